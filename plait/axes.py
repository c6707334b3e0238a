"""The axis letters used in every tensor signature, and short aliases for jaxtyping.

b batch (rows)      s sequence        v vocabulary       k codebook
d width             n count of a kind (images, documents, targets: the docstring says which)
gh gw code grid     fh fw fold        c h w pixels       l length of one document
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Ids = Int[Tensor, "b s"]
Mask = Bool[Tensor, "b s"]
Embeddings = Float[Tensor, "b s d"]
Hidden = Float[Tensor, "b s d"]
Images = Float[Tensor, "b 3 h w"]
CodeGrid = Int[Tensor, "b gh gw"]

__all__ = ["Bool", "CodeGrid", "Embeddings", "Float", "Hidden", "Ids", "Images", "Int", "Mask", "Tensor"]
