"""Keys and values of a batch of rows, with one write position per row.

transformers' static cache has one length for all rows; interleaved generation needs more: rows switch between text and images,
guidance rows start late, whole images are appended at once. A call is announced by `append`, which hands out its layout; the
attention of the call then writes and reads here. Bookkeeping stays on the CPU: with `rows` and `lengths` as CPU tensors no call
waits for the device. Storage grows by doubling up to the capacity. The cache does not know what a token means.
"""

from dataclasses import dataclass

import torch

from plait.axes import Float, Int, Tensor
from plait.backbones.attention import Rule, additive, attend_causally, attend_visible, visible
from plait.errors import LayoutError
from plait.records import Layout, Movable

FIRST_STORAGE = 64


class RowCache:
    """The static cache behind `plait.protocols.Cache`.

    Args:
        rows: number of rows.
        capacity: most tokens a row can hold.
        layers: number of attention layers.
        device: device of the backbone.
        is_static: storage has its full size from the beginning, so that calls of one token per row have one shape (to be compiled).
    """

    def __init__(
        self, rows: int, capacity: int, layers: int, device: torch.device | str = "cpu", *, is_static: bool = False
    ) -> None:
        if rows < 1 or capacity < 1:
            raise LayoutError(f"A cache needs at least one row and one position, got {rows} rows of {capacity}.")
        self.lengths = torch.zeros(rows, dtype=torch.int64)
        self.capacity = capacity
        self.device = torch.device(device)
        self.is_static = is_static
        self._stored: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._call: CallScope | None = None

    def append(self, rows: Int[Tensor, "n"], lengths: Int[Tensor, "n"]) -> Layout:
        """Announce the next backbone call: it feeds `rows`, of each the first `lengths[i]` of s = max(lengths) tokens.

        Args:
            rows: different row indices.
            lengths: new tokens per row; 0 leaves a row as it is.

        Returns:
            The layout of the call, (n s). The write positions have moved; the call itself must follow.

        Raises:
            LayoutError: a row would overflow, a row occurs twice or does not exist, no token is fed, or the last announced call
                never came.
        """
        rows, lengths = rows.to("cpu", torch.int64), lengths.to("cpu", torch.int64)
        self._check(rows, lengths)
        starts = self.lengths[rows]
        stops = starts + lengths
        if int(stops.max()) > self.capacity:
            worst = int(stops.argmax())
            raise LayoutError(
                f"Row {int(rows[worst])} holds {int(starts[worst])} tokens and cannot take {int(lengths[worst])} more: "
                f"the cache has {self.capacity} positions per row. Ask new_cache for a larger capacity or shorten the prompt."
            )
        self.lengths[rows] = stops
        placed = self._place_alike(rows, starts, stops) or self._place(rows, starts, lengths).to(self.device)
        self._call = CallScope(self, placed, rows, starts, stops)
        return placed.layout

    def _place_alike(self, rows: Tensor, starts: Tensor, stops: Tensor) -> "_Placement | None":
        """Where tokens go if all rows stand at the same place and get as many: made on the device itself, to which nothing is copied."""
        first, start, stop, number = int(rows[0]), int(starts[0]), int(stops[0]), len(rows)
        is_run = torch.equal(rows, torch.arange(first, first + number))
        if not (is_run and bool((starts == start).all()) and bool((stops == stop).all())):
            return None
        positions = torch.arange(start, stop, device=self.device).expand(number, -1)
        layout = Layout(positions, torch.zeros_like(positions))
        return _Placement(layout, torch.arange(first, first + number, device=self.device), ())

    def _place(self, rows: Tensor, starts: Tensor, lengths: Tensor) -> "_Placement":
        """Where tokens go, on the CPU."""
        steps = torch.arange(int(lengths.max()))
        is_real = steps < lengths[:, None]
        layout = Layout(torch.where(is_real, starts[:, None] + steps, 0), torch.where(is_real, 0, -1))
        # which tokens are no padding; nothing where all are
        return _Placement(layout, rows, () if bool(is_real.all()) else is_real.nonzero(as_tuple=True))

    def reset(self, rows: Int[Tensor, "n"]) -> None:
        """Forget these rows: their write position returns to 0.

        Raises:
            LayoutError: between an append and its call.
        """
        if self._call is not None:
            raise LayoutError("Rows cannot be reset between cache.append and the backbone call that it announced.")
        self.lengths[rows.to("cpu", torch.int64)] = 0

    def take(self, layout: Layout) -> "CallScope":
        """The scope of the announced call; the backbone asks for it once.

        Raises:
            LayoutError: no call was announced, or the layout is not the one that `append` returned.
        """
        call, self._call = self._call, None
        if call is None or call.layout is not layout:
            raise LayoutError(
                "A backbone call through a cache needs the very layout that cache.append returned just before it, "
                + ("but no call was announced." if call is None else "but got another one.")
            )
        return call

    def storage(self, layer: int, like: Float[Tensor, "n h s d"], length: int) -> tuple[Tensor, Tensor]:
        """Keys and values (b h t d) of a layer with room for `length` tokens per row."""
        stored = self._stored[layer]
        room = 0 if stored is None else stored[0].shape[2]
        if room < length:
            grown = self.capacity if self.is_static else min(self.capacity, max(FIRST_STORAGE, 2 * room, length))
            shape = (self.lengths.numel(), like.shape[1], grown, like.shape[3])
            # zeros, not empty: a masked key has weight 0, but 0 times an uninitialised nan would still be nan
            fresh = tuple(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
            if stored is not None:
                for new, old in zip(fresh, stored, strict=True):
                    new[:, :, :room] = old
            self._stored[layer] = stored = fresh
        return stored

    def _check(self, rows: Tensor, lengths: Tensor) -> None:
        if self._call is not None:
            raise LayoutError("cache.append was called twice without the backbone call that the first one announced.")
        if rows.ndim != 1 or rows.shape != lengths.shape or rows.numel() == 0:
            shapes = f"{tuple(rows.shape)} and {tuple(lengths.shape)}"
            raise LayoutError(f"append needs two vectors of one length >= 1, got {shapes}.")
        if int(rows.min()) < 0 or int(rows.max()) >= self.lengths.numel():
            raise LayoutError(f"Rows {rows.tolist()} leave the cache, which has rows 0 to {self.lengths.numel() - 1}.")
        if rows.numel() > 1 and int(torch.bincount(rows).max()) > 1:
            raise LayoutError(f"A row can be fed only once per call, got rows {rows.tolist()}.")
        if int(lengths.min()) < 0 or int(lengths.max()) == 0:
            raise LayoutError(f"A call must feed at least one token and no negative number, got lengths {lengths.tolist()}.")


@dataclass(frozen=True)
class _Placement(Movable):
    """Where the tokens of a call go: their layout, their rows of the cache, and the tokens that are no padding as (line, column)."""

    layout: Layout
    rows: Int[Tensor, "n"]
    real: tuple[Int[Tensor, "t"], ...]


class CallScope:
    """What the tokens of one cached call look at: everything their row holds up to and including themselves."""

    def __init__(self, cache: RowCache, placed: _Placement, rows: Tensor, starts: Tensor, stops: Tensor) -> None:
        self.layout = placed.layout
        self._cache = cache
        self._longest = int(stops.max())
        self._is_fresh = int(starts.max()) == 0
        # one new token per row and all rows equally long: every stored key up to the longest is seen
        self._sees_all = self.layout.positions.shape[1] == 1 and int(stops.min()) == self._longest
        self._starts = starts
        first, number = int(rows[0]), rows.numel()
        is_run = torch.equal(rows, torch.arange(first, first + number))
        # a run of rows is read through a view; anything else has to be gathered
        self._run = slice(first, first + number) if is_run else None
        self._rows = placed.rows
        self._real = placed.real or None
        self._masks: dict[tuple[int | None, torch.dtype], Tensor] = {}
        self._flat: dict[tuple[int, int], Tensor] = {}

    def step(self) -> "StepScope | None":
        """The same call as tensors of fixed shapes: where every row of a static cache gets one token and none is the first."""
        cache = self._cache
        if not cache.is_static or None in cache._stored or self.layout.positions.shape[1] > 1:
            return None
        feeds_all = self._run is not None and self._starts.numel() == cache.lengths.numel()
        return StepScope(self.layout.positions, cache._stored) if feeds_all and int(self._starts.min()) > 0 else None

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "n h s d"],
        key: Float[Tensor, "n hk s d"],
        value: Float[Tensor, "n hk s d"],
        rule: Rule,
    ) -> Float[Tensor, "n s h d"]:
        """Write the new keys and values, then attend to all that is stored."""
        keys, values = self._cache.storage(layer, value, self._longest)
        self._write(keys, key)
        self._write(values, value)
        if self._is_fresh:  # nothing stored before this call; padding comes last, so causality hides it
            output = attend_causally(query, key, value, rule)
        else:
            keys, values = self._read(keys), self._read(values)
            output = attend_visible(query.to(keys.dtype), keys, values, self._mask(rule.window, keys.dtype), rule)
        return output.transpose(1, 2)

    def _write(self, stored: Tensor, states: Tensor) -> None:
        states = states.transpose(1, 2).to(stored.dtype)
        states = states.flatten(0, 1) if self._real is None else states[self._real]
        # one flat index: several times faster on CPU than indexing rows and positions around the head axis
        stored.view(-1, stored.shape[3]).index_copy_(0, self._places(*stored.shape[1:3]), states.flatten(0, 1))

    def _places(self, heads: int, room: int) -> Tensor:
        """(t * heads) where the new tokens stand in a storage that is flattened up to its last axis."""
        if (heads, room) not in self._flat:
            rows, positions = self._rows[:, None].expand_as(self.layout.positions), self.layout.positions
            rows, positions = (x.flatten() if self._real is None else x[self._real] for x in (rows, positions))
            head = torch.arange(heads, device=rows.device)
            self._flat[heads, room] = ((rows[:, None] * heads + head) * room + positions[:, None]).flatten()
        return self._flat[heads, room]

    def _read(self, stored: Tensor) -> Tensor:
        seen = stored[:, :, : self._longest]
        return seen[self._run] if self._run is not None else seen.index_select(0, self._rows)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if self._sees_all and (window is None or window >= self._longest):
            return None
        if (window, dtype) not in self._masks:
            keys = torch.arange(self._longest, device=self.layout.positions.device)
            seen = visible(self.layout.positions, keys, window)
            self._masks[window, dtype] = additive(seen, dtype)[:, None]
        return self._masks[window, dtype]


@dataclass(frozen=True)
class StepScope:
    """One more token for every row of a static cache, each at its own position. Nothing but tensors: what a compiler can see through.

    Args:
        positions: (b 1) where the new tokens stand.
        stored: keys and values (b h t d) per layer.
    """

    positions: Int[Tensor, "b 1"]
    stored: list[tuple[Tensor, Tensor]]

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "b h 1 d"],
        key: Float[Tensor, "b hk 1 d"],
        value: Float[Tensor, "b hk 1 d"],
        rule: Rule,
    ) -> Float[Tensor, "b 1 h d"]:
        """See `CallScope.attend`."""
        keys, values = self.stored[layer]
        rows, heads, room, width = keys.shape
        place = torch.arange(rows * heads, device=keys.device).view(rows, heads) * room + self.positions
        for storage, states in ((keys, key), (values, value)):
            storage.view(-1, width).index_copy_(0, place.flatten(), states.to(storage.dtype).reshape(-1, width))
        seen = visible(self.positions, torch.arange(room, device=keys.device), rule.window)
        output = attend_visible(query.to(keys.dtype), keys, values, additive(seen, keys.dtype)[:, None], rule)
        return output.transpose(1, 2)
