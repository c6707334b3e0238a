"""Any decoder of transformers as a backbone: embeddings in, hidden states after the final norm out.

The decoder runs as transformers wrote it; only its attention is replaced (plait.backbones.attention). Tokens of a packed call
are fed document after document in one row, so padding is never computed and no mask is built. The backbone owns the text table
and the text output weight of the model it wraps; rows of other segments live elsewhere and are scaled and capped alike through
`embedding_scale` and `logit_softcap`. It knows no vocabulary, no loss and no sampling. Whether an architecture can be packed
and cached at all is proven at construction (plait.backbones.proof).
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from plait.axes import Embeddings, Float, Hidden, Int, Tensor
from plait.backbones.attention import NAME, DocumentScope
from plait.backbones.cache import RowCache
from plait.backbones.configuration import build_config, check_attention
from plait.backbones.proof import prove
from plait.errors import CheckpointError, LayoutError, RecipeError
from plait.records import Layout, Side

STATIC_ROOM = 64
"""A compiled cache has a multiple of so many positions."""


class CausalLM(nn.Module):
    """A transformers decoder behind `plait.protocols.Backbone`.

    Args:
        model: a causal language model of transformers.
        gradient_checkpointing: recompute each layer in the backward pass instead of keeping its activations.

    Raises:
        RecipeError: the architecture cannot be packed per document or cached per row.
    """

    def __init__(self, model: PreTrainedModel, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        prove(model.config)
        model.set_attn_implementation(NAME)
        self.model = model
        self._step: Callable[..., Tensor] | None = None
        if gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def from_config(
        cls, architecture: str | type[PreTrainedConfig], gradient_checkpointing: bool = False, **sizes: Any
    ) -> "CausalLM":
        """A randomly initialised backbone.

        Args:
            architecture: a model type of transformers ("llama", "qwen3", "gemma2", ...) or a config class.
            gradient_checkpointing: see the class.
            sizes: settings of that config class (vocab_size, hidden_size, num_hidden_layers, ...).

        Raises:
            RecipeError: an unknown architecture or setting, or one that cannot be packed or cached.
        """
        config = build_config(architecture, **sizes)
        prove(config)  # before the weights are made
        return cls(AutoModelForCausalLM.from_config(config), gradient_checkpointing)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        gradient_checkpointing: bool = False,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        subfolder: str = "",
        gguf_file: str | None = None,
    ) -> "CausalLM":
        """A backbone with released weights, read from safetensors only; no code of the release is run.

        Args:
            name_or_folder: name on the Hub or a folder written by `save_pretrained`.
            gradient_checkpointing: see the class.
            dtype: type of the weights in memory; under autocast keep fp32.
            revision, subfolder: on the Hub.
            gguf_file: name of the file there that holds everything, in the place of config.json and safetensors.

        Raises:
            RecipeError: there is no such model, it cannot be read, or it cannot be packed or cached.
        """
        source = str(name_or_folder)
        if (Path(source) / "adapter_config.json").is_file():
            raise RecipeError(
                f"name_or_folder={source} holds adapters for another model, which would be fetched by its name: expected the whole model. "
                "Next: merge them, or name that model."
            )
        where = {"revision": revision, "subfolder": subfolder, "trust_remote_code": False}
        where |= {"gguf_file": gguf_file} if gguf_file else {}
        safe = {} if gguf_file else {"use_safetensors": True}
        try:
            config = AutoConfig.from_pretrained(source, **where)
            check_attention(config)
            prove(config)  # before gigabytes are read
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **safe, **where)
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"name_or_folder={source}: transformers cannot read it ({str(error).splitlines()[0]}). Expected a name on the Hub "
                "or a folder with config.json and safetensors. Check the spelling, the network, or download it first."
            ) from error
        return cls(model, gradient_checkpointing)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        gradient_checkpointing: bool = False,
        vocab_size: int | None = None,
        device: torch.device | str = "cpu",
    ) -> "CausalLM":
        """A randomly initialised backbone of the architecture of a folder; its weights come from elsewhere.

        Args:
            folder: holds the config.json of `save_config` or of a release; no other file is read and no code of it is run.
            gradient_checkpointing: see the class.
            vocab_size: rows of the text table; None: as many as the config says.
            device: where the weights are made; "meta" makes none (for names and shapes).

        Raises:
            CheckpointError: there is no config.json, or transformers cannot read it.
        """
        if not (Path(folder) / "config.json").is_file():
            raise CheckpointError(f"No backbone in {folder}: expected a config.json of transformers.")
        try:
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        except (ValueError, OSError, KeyError) as error:
            raise CheckpointError(f"{Path(folder) / 'config.json'} cannot be read: {str(error).splitlines()[0]}") from error
        check_attention(config)
        if vocab_size is not None:
            config.get_text_config().vocab_size = vocab_size
        prove(config)
        with torch.device(device):
            return cls(AutoModelForCausalLM.from_config(config, dtype=torch.float32), gradient_checkpointing)

    def shallow(self, num_layers: int, num_rows: int) -> "CausalLM":
        """A randomly initialised model of the same block design and width with another table: for heads that write a few tokens.

        Args:
            num_layers: of them; all attend to everything.
            num_rows: of its table, which is not tied to the output.

        Raises:
            RecipeError: fewer than one layer.
        """
        if num_layers < 1:
            raise RecipeError(f"A transformer of {num_layers} layers was asked for, expected at least 1.")
        config = deepcopy(self.config)
        text = config.get_text_config()
        text.num_hidden_layers, text.vocab_size, text.tie_word_embeddings = num_layers, num_rows, False
        config.tie_word_embeddings = False
        if getattr(text, "layer_types", None):
            text.layer_types = ["full_attention"] * num_layers
        with self.text_table.device:
            return CausalLM(AutoModelForCausalLM.from_config(config, dtype=torch.float32))

    def save_config(self, folder: str | Path, **changes: Any) -> None:
        """Write config.json without weights, readable by `from_folder` and by transformers.

        Args:
            changes: settings that differ in what is written (vocab_size, token ids).
        """
        config = deepcopy(self.config)
        config.update({"architectures": [type(self.model).__name__], **changes})
        config.save_pretrained(str(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and safetensors as transformers does, readable by `from_pretrained` of either side.

        Raises:
            CheckpointError: the model holds what its config does not tell of (experts, taps, adapters that are not merged).
        """
        with torch.device("meta"):
            expected = type(self.model)(self.config).state_dict().keys()
        differing = sorted(self.model.state_dict().keys() ^ expected)
        if differing:
            raise CheckpointError(
                f"{len(differing)} tensors are not those of a plain {self.config.model_type!r} ({differing[0]}, ...), expected its "
                "names alone: transformers would read such a folder and draw what it misses. Merge adapters first; write "
                "a backbone with experts or taps with plait.checkpoints."
            )
        self.model.save_pretrained(str(folder))

    @property
    def config(self) -> PreTrainedConfig:
        """The config of the wrapped model."""
        return self.model.config

    @property
    def decoder(self) -> nn.Module:
        """The layers with their final norm, without the output weight."""
        return self.model.get_decoder()

    @property
    def width(self) -> int:
        """Width of embeddings and hidden states."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def max_length(self) -> int:
        """Positions that the backbone was made for."""
        return self.config.get_text_config().max_position_embeddings

    @property
    def reads_side(self) -> bool:
        """Whether something in the model needs the record `side` of every call. Who puts it there says so (plait.backbones.call)."""
        return bool(self._side_readers)

    @property
    def _side_readers(self) -> tuple[str, ...]:
        return getattr(self.model, "side_readers", ())

    @property
    def text_rows(self) -> int:
        """Rows of the text table; may exceed the size of the tokenizer (Qwen pads its table)."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def text_table(self) -> Float[Tensor, "v d"]:
        """The text table as stored, before `embedding_scale`."""
        return self.model.get_input_embeddings().weight

    @property
    def text_weight(self) -> Float[Tensor, "v d"]:
        """The output weight of the text rows; the very text table where the backbone is tied."""
        return self.model.get_output_embeddings().weight

    @property
    def is_tied(self) -> bool:
        """Whether input and output rows are one tensor: rows of further segments should then be tied as well."""
        return self.text_weight is self.text_table

    @property
    def embedding_scale(self) -> float:
        """Factor on embedding rows (Gemma: the root of the width). Rows of other tables must be multiplied by it as well."""
        table = self.model.get_input_embeddings()
        # the number, where there is one besides the buffer, which has no value on the meta device
        scale = getattr(table, "scalar_embed_scale", getattr(table, "embed_scale", 1.0))
        # in bf16 Gemma rounds its factor (55.4 to 55.5 for 7B), and so must whoever scales rows alike
        return float(torch.as_tensor(scale, device="cpu").to(self.text_table.dtype))

    @property
    def logit_softcap(self) -> float | None:
        """Soft cap of final logits, cap * tanh(logits / cap) (Gemma-2), or None."""
        return getattr(self.config.get_text_config(), "final_logit_softcapping", None)

    def embed_text(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """Rows of the text table, scaled as the backbone scales them."""
        return self.model.get_input_embeddings()(ids)

    def text_scores(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        """Logits of all text rows, soft-capped as the backbone caps them."""
        return self.cap(functional.linear(hidden, self.text_weight.to(hidden.dtype)))

    def cap(self, logits: Tensor) -> Tensor:
        """The soft cap of the backbone on logits of any segment; the identity where it has none."""
        cap = self.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def compile_decoding(self, **options: Any) -> None:
        """Compile calls that add one token to every row of a cache; the first one after this takes a while (half a minute on CPU).
        With vision experts these are calls of text alone and of visual tokens alone; mixed ones run as without this.

        Args:
            options: of torch.compile. `options={"freezing": True}` packs the weights of now: faster on CPU, and deaf to later training.
        """
        self._step = torch.compile(self._decode, **options)

    def new_cache(self, rows: int, capacity: int) -> RowCache:
        """An empty cache for `rows` rows of at most `capacity` tokens."""
        layers, device = self.config.get_text_config().num_hidden_layers, self.text_table.device
        if self._step is None:
            return RowCache(rows, capacity, layers, device)
        # few different sizes, so that little is compiled anew
        return RowCache(rows, -(-capacity // STATIC_ROOM) * STATIC_ROOM, layers, device, is_static=True)

    def forward(
        self, embeddings: Embeddings, layout: Layout, side: Side | None = None, cache: RowCache | None = None
    ) -> Hidden:
        """Hidden states after the final norm; zeros at padding of a packed call, undefined at padding of a cached one.

        Args:
            embeddings: rows of `embed_text` and of other tables, scaled.
            layout: positions, documents and, without a cache, groups; with a cache the one that `cache.append` returned.
            side: record for taps and experts: it travels as a keyword argument through every layer.
            cache: keys and values of earlier calls; needs torch.no_grad or inference_mode.

        Returns:
            (b s d)

        Raises:
            LayoutError: layout or side differs from the embeddings in shape, side is missing where something reads it, groups miss
                tokens, a document is longer than `max_length`, or the cache did not announce the call.
        """
        if embeddings.shape[:2] != layout.documents.shape:
            raise LayoutError(
                f"Embeddings have rows and tokens {tuple(embeddings.shape[:2])}, the layout {tuple(layout.documents.shape)}."
            )
        self._check_side(side, layout, cache is not None)
        if cache is not None:
            if torch.is_grad_enabled():
                raise LayoutError("The cache keeps no gradients: call under torch.no_grad(), or train without a cache.")
            scope = cache.take(layout)
            step = None if self._step is None else scope.step()
            # a graph holds the sizes of the routes: one for text, one for images, but none for every mixture of a batch
            is_mixed = self.reads_side and all(tokens.numel() > 0 for tokens in side.routes)
            if step is not None and not is_mixed:
                return self._step(embeddings, layout.positions, step, side)
            return self._decode(embeddings, layout.positions, scope, side)
        longest = max((group.shape[1] for group in layout.groups), default=0)
        if longest > self.max_length:
            raise LayoutError(
                f"A document of {longest} tokens came to a backbone that was made for {self.max_length} positions, expected at "
                "most as many. Raise max_position_embeddings, or leave such documents out of the source."
            )
        scope = DocumentScope.of(layout)
        tokens = embeddings.flatten(0, 1).index_select(0, scope.order)
        positions = layout.positions.flatten().index_select(0, scope.order)
        hidden = self._decode(tokens[None], positions[None], scope, None if side is None else side.take(scope.order))[0]
        rows = hidden.new_zeros(embeddings.shape[0] * embeddings.shape[1], hidden.shape[1])
        return rows.index_copy(0, scope.order, hidden).unflatten(0, embeddings.shape[:2])

    def _check_side(self, side: Side | None, layout: Layout, is_cached: bool) -> None:
        if side is None:
            if self.reads_side:
                raise LayoutError(
                    f"The backbone has {' and '.join(self._side_readers)}, but the call has no record of what its tokens are and see. "
                    "Expected side=plait.records.Side(is_visual, ...) beside embeddings and layout; for text alone it is all False."
                )
            return
        if side.is_visual.shape != layout.documents.shape:
            raise LayoutError(
                f"Side.is_visual has the shape {tuple(side.is_visual.shape)}, the layout {tuple(layout.documents.shape)}: expected "
                "one entry per token of the call. Make both from the same tokens."
            )
        if side.given_routes is not None:
            routed = sum(tokens.numel() for tokens in side.given_routes)
            fed = layout.documents.numel() if is_cached else sum(group.numel() for group in layout.groups)
            if routed != fed:
                raise LayoutError(
                    f"Side.given_routes lead {routed} tokens and the layers are fed {fed}: expected every token once. Make the routes with "
                    "plait.records.find_routes from the layout of this call."
                )

    def _decode(self, embeddings: Tensor, positions: Tensor, scope: Any, side: Side | None) -> Tensor:
        output = self.decoder(
            inputs_embeds=embeddings,
            position_ids=positions,
            # transformers makes no mask where there is one already; the scope ignores it
            attention_mask=embeddings.new_zeros(1, 1, 1, 1),
            use_cache=False,
            scope=scope,
            side=side,
            return_dict=True,
        )
        return output.last_hidden_state
