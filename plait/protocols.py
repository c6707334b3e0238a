"""The seams: what a part must offer so that any system can use it. Contracts only, no implementation.

A system is a builder function that assembles parts behind these protocols (see plait/systems/). A part never imports another
part: what crosses between them is handed over by the builder.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from plait.axes import Embeddings, Float, Hidden, Images, Int, Tensor
from plait.document import Document, Form, ImageSpan, Span
from plait.records import Generation, Layout, LossTerms, Reading, Side, Turn, Verdict, VisionFeatures


@runtime_checkable
class TextTokenizer(Protocol):
    """Text <-> ids of the text segment. Specials that the tokenizer already has are read literally in text: the layout lets through
    those that a wording has written, and no others."""

    size: int
    bos_id: int
    eos_id: int
    pad_id: int
    markers: Mapping[str, int]
    """names of plait's markers (see plait.sequence.vocabulary.MARKERS) -> ids that this tokenizer already has for them;
    at least pad, begin_document and end_document"""
    special_ids: Set[int]
    """ids that a text has only where a special string stands in it"""

    def encode(self, text: str) -> list[int]:
        """Ids without bos and eos. Raises VocabularyError for a word it cannot write."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text in normal form: `decode(encode(t))` is a fixed point."""


@runtime_checkable
class VisionTokenizer(Protocol):
    """Images -> code grids, and a loss to train it."""

    code_sizes: tuple[int, ...]
    """number of codes per level (one level for most tokenizers, two for dual ones)"""
    digit_sizes: tuple[tuple[int, ...], ...]
    """per level, the sizes of the digits that a code is made of, least significant first (FSQ levels); (size,) if it has none"""
    grid_shapes: tuple[tuple[int, int], ...]
    """(gh, gw) per level at `image_size`"""
    image_size: tuple[int, int]

    def encode(self, images: Images) -> tuple[Int[Tensor, "b gh gw"], ...]:
        """Images in [-1, 1] -> one grid of codes per level."""

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Training loss on a batch {"images": (b 3 h w) in [-1, 1], "counts": {term: count over the optimiser step}}."""


@runtime_checkable
class ImageDecoder(Protocol):
    """Codes or conditions -> pixels."""

    def decode(self, codes: tuple[Int[Tensor, "b gh gw"], ...], noise: Tensor | None = None) -> Images:
        """Images in [-1, 1]."""


@runtime_checkable
class VisionEncoder(Protocol):
    """Images -> features. It resizes and normalises by itself."""

    image_size: tuple[int, int]
    """(height, width) to which pictures are resized"""
    resize_filter: str
    """how, for the figures that depend on it"""
    width: int
    grid_shape: tuple[int, int]

    def __call__(self, images: Images) -> VisionFeatures:
        """Features of images in [-1, 1]."""


@runtime_checkable
class Connector(Protocol):
    """Features of a vision encoder -> tokens of a backbone. A picture in tiles is a row per tile."""

    tokens_per_tile: int
    width: int
    """of the tokens"""

    def __call__(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n m d"]:
        """Tokens of each tile, from features (n c gh gw), or (n l c) in raster order."""


@runtime_checkable
class LatentSpace(Protocol):
    """Images <-> continuous latents of mean 0 and spread 1 per channel: what a diffusion decoder denoises."""

    latent_shape: tuple[int, int, int]
    """(channels, height, width) at `image_size`"""
    image_size: tuple[int, int]

    def encode(self, images: Images) -> Float[Tensor, "b d gh gw"]:
        """Images in [-1, 1] -> latents."""

    def decode(self, latents: Float[Tensor, "b d gh gw"]) -> Images:
        """Latents -> images, clamped to [-1, 1]."""


@runtime_checkable
class Rows(Protocol):
    """The rows of one vocabulary segment: how its tokens enter the backbone and how they are scored under the one softmax."""

    size: int
    num_logits: int
    """logits that `score` writes out per position (fewer than `size` for factorised codes)"""

    def parameters(self) -> Iterable[Tensor]:
        """Every tensor that `logits` and `score` may read."""

    def embed(self, ids: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """Local ids -> embeddings."""

    def logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """All logits of the segment (for sampling: only where the segment is legal)."""

    def score(self, hidden: Float[Tensor, "n d"], targets: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """(log-sum-exp over the segment, logit of the target); targets < 0 lie in another segment and their logit is ignored."""

    def top(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """The highest logit of the segment (for the max-z loss), without writing all of them out."""


@runtime_checkable
class Input(Protocol):
    """How a part of what is read enters the backbone: codes that are no rows of the head, pictures as features, places in a picture."""

    def enter(self, embeddings: Embeddings, side: Side, reading: Reading) -> tuple[Embeddings, Side]:
        """The embeddings (b s d) with what this part puts or adds at its places, and the record with what it has to tell taps."""


@runtime_checkable
class Scorer(Protocol):
    """What objectives of tokens ask of a head: from which states its targets are scored, and how."""

    terms: Sequence[str]
    num_logits: int
    """logits that `score` writes out per target"""

    def states(self, hidden: Float[Tensor, "n d"], codes: Int[Tensor, "n f"]) -> Float[Tensor, "nf d"]:
        """Hidden states (n d) and what follows them (local ids, n f) -> what each of it is scored from, one after the other. No code is
        seen by its own state or by those before it."""

    def score(
        self, states: Float[Tensor, "n d"], segments: Int[Tensor, "n"], local: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """(log-sum-exp over all that competes, logit of the target), per target."""

    def score_parameters(self) -> list[Tensor]:
        """Every tensor that `score` reads (a lean loss takes their gradients itself)."""


Objective = Callable[[Any, Hidden, Any], LossTerms]
"""(head, hidden states (b s d), `plait.sequence.batch.SequenceBatch`) -> loss terms of the head (see plait.objectives)"""


@runtime_checkable
class Head(Protocol):
    """How what a model says is scored and drawn. It may remember: what it keeps of a generation lies in `Generation.states`."""

    terms: Sequence[str]
    """the loss terms (`plait.sequence.batch.TERMS`) whose positions are its own"""

    def loss(self, hidden: Hidden, batch: Any, side: Side) -> LossTerms:
        """The loss terms of its targets in a batch (`plait.sequence.batch.SequenceBatch`)."""

    def observe(self, generation: Generation, rows: Int[Tensor, "n"], hidden: Hidden, layout: Layout) -> None:
        """Look at a backbone call of a generation: the hidden states (n s d) of these rows of it."""

    def step(self, generation: Generation, turn: Turn) -> Int[Tensor, "n f"] | Images:
        """What stands next in some rows: local ids (n f) of one position, or where a picture is predicted as a whole the finished
        pictures (n 3 h w) in [-1, 1]. All streams of a sample go on with the same."""

    def compile_drawing(self, **options: Any) -> None:
        """Compile what `step` calls once per token (options of torch.compile)."""


@runtime_checkable
class Cache(Protocol):
    """Keys and values with one write position per row."""

    lengths: Int[Tensor, "b"]
    """tokens held by each row"""

    def append(self, rows: Int[Tensor, "n"], lengths: Int[Tensor, "n"]) -> Layout:
        """Announce the next backbone call: it feeds `rows`, of each the first `lengths[i]` of s = max(lengths) tokens. Returns the
        layout of the call; after the call the write positions have moved by `lengths`. Raises LayoutError when a row would overflow."""

    def reset(self, rows: Int[Tensor, "n"]) -> None:
        """Forget these rows (their write position returns to 0)."""


@runtime_checkable
class Backbone(Protocol):
    """Embeddings in, hidden states out (after the final norm)."""

    width: int
    max_length: int
    """positions that it was made for"""

    def __call__(self, embeddings: Embeddings, layout: Layout, side: Side | None = None, cache: Cache | None = None) -> Hidden:
        """Hidden states of every token. A backbone with taps or experts refuses a call without `side`."""

    def new_cache(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` rows of at most `capacity` tokens."""


@runtime_checkable
class Tap(Protocol):
    """What a decoder layer adds to the residual stream between attention and feed-forward."""

    def __call__(self, hidden: Hidden, side: Side) -> Hidden:
        """What is added to the hidden states (b s d). A packed call has one row, its documents one after another, and `side` in the same
        order."""


@runtime_checkable
class Noise(Protocol):
    """Randomness is an input of sampling."""

    def choose(self, probabilities: Float[Tensor, "n v"], samples: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """Draw one id per row; `samples` says which sample a row belongs to."""

    def normal(self, shape: Sequence[int], samples: Int[Tensor, "n"]) -> Float[Tensor, "n *shape"]:
        """Standard normal numbers of this shape per row (what a diffusion decoder begins with)."""


@runtime_checkable
class Policy(Protocol):
    """How the next token is drawn from logits."""

    guidance_weights: tuple[float, ...]
    """one weight per guidance branch; empty: no branch is run"""
    reads_history: bool
    """whether `draw` must be told what stands already"""

    def draw(
        self,
        logits: Float[Tensor, "n v"],
        branches: Sequence[Float[Tensor, "n v"]],
        samples: Int[Tensor, "n"],
        noise: Noise,
        history: Sequence[Sequence[int]] | None = None,
    ) -> Int[Tensor, "n"]:
        """Draw one local id per row among the given logits (already restricted to what is legal; -inf is impossible). A row whose logits
        are not finite has nothing to draw from and gets -1: a device need not be asked before its ids are fetched.

        Args:
            branches: logits of the guidance branches, from the one that knows least to the one that knows most.
            history: per row the ids that stand already, counted as the columns of the logits are: those of the document for text,
                those of the current picture for codes. None where `reads_history` is false.
        """


@runtime_checkable
class Template(Protocol):
    """The wording of a system: documents of the data -> documents in the system's own format. What is not its own (the texts of documents,
    captions, questions) may hold no marker: it is refused."""

    marks: Sequence[str]
    """the strings in its texts that are one id in a text tokenizer that knows them"""
    form: Form
    """of the pictures that are given"""

    def wrap(self, document: Document, counter: int) -> Document:
        """Add instructions, drop captions, choose the direction; random choices are drawn from `counter` alone."""

    def guidance_branches(self, document: Document, image_index: int) -> tuple[Document, ...]:
        """What the guidance branches of picture `image_index` read, each up to and including its hole, from the one that knows least
        to the one that knows most (one is usual: nothing known; two: nothing, and the pictures alone). Empty: no guidance."""


@runtime_checkable
class PromptTemplate(Protocol):
    """How a system is asked. A prompt is a document that is complete up to the point where the model takes over: a last hole is
    drawn, and after the last span the model writes on until it ends the document. Nothing in a prompt carries loss."""

    def texts(self) -> Iterable[str]:
        """Every wording of its own that training uses."""

    def draw_prompt(self, caption: str, instruction: str | None = None) -> Document:
        """Ends in a hole: the picture that the caption describes; `instruction` takes the place of the system's own wording."""

    def caption_prompt(self, image: ImageSpan, instruction: str | None = None) -> Document:
        """What the model writes after it is the caption of the picture; `instruction` takes the place of the system's own wording."""

    def question_prompt(self, image: ImageSpan, question: str) -> Document:
        """What the model writes after it is the answer, without the question."""

    def edit_prompt(self, before: ImageSpan, instruction: str) -> Document:
        """Ends in a hole: the picture `before` after the instruction was carried out."""

    def story_prompt(self, spans: Sequence[Span]) -> Document:
        """The opening of a story, spans in the order and wording of the data; holes among them are drawn in passing."""

    def answer(self, text: str) -> str:
        """Text that the model wrote, without the markers of the wording."""


@runtime_checkable
class UnifiedModel(Protocol):
    """What evaluation, alignment and rendering know of a system."""

    positions_per_image: int
    """positions that a picture takes, its markers not counted"""

    def loss(self, batch: Any) -> LossTerms: ...

    def score(self, documents: Sequence[Document], *, is_plain: bool = False) -> Float[Tensor, "n"]:
        """Summed cross entropy in nats of what carries loss in each document; plain: among words alone."""

    def generate(
        self, documents: Sequence[Document], policies: Mapping[str, Policy], seeds: Sequence[int], **budget: int
    ) -> list[Document]:
        """Document in, document out, batched. Holes are drawn; after the last span the model goes on until it ends the document."""


@runtime_checkable
class World(Protocol):
    """Data: documents by number and pictures by their ids. Document *i* of a task and split is a pure function of *i*."""

    splits: Sequence[str]
    """the first is for training"""
    tasks: Sequence[str]
    is_closed: bool
    """whether its words are all the words that there are"""
    examinations: Any
    """what it asks a model by itself (`plait.evaluation.examination.Examinations`); None: it knows no more than its documents say"""

    def source(self, task: str, split: str) -> Sequence[Document]:
        """The documents of a task. Raises RecipeError where the split has none."""

    def picture(self, image_id: str) -> Image.Image:
        """A picture. Raises DocumentError for an id that names none."""

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """Pictures of one size: uint8 (n h w 3)."""

    def image_ids(self, split: str, subset: str | None = None) -> list[str]:
        """The distinct pictures of a split, or of a part of it that the world has a name for."""

    def vocabulary_texts(self, glyphs: bool = True) -> Iterable[str]:
        """Texts that a text tokenizer is trained on; with the names of single glyphs, where the world has such."""

    def fingerprint(self) -> str:
        """A hash of all that determines documents, pictures and splits."""


@runtime_checkable
class Judge(Protocol):
    """Says how far pictures show what was asked for: an oracle of a world, or a model that looks."""

    def judge(self, pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[Mapping[str, Verdict]]:
        """Per picture criterion -> verdict, given the request in words that it was drawn for. The criterion "all" asks for everything."""

    def describe(self) -> Mapping[str, Any]:
        """How it judges: figures are comparable where this is equal."""
