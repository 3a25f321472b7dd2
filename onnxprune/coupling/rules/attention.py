"""Fused attention: whole heads (or whole groups that share a key), and dims within heads.

Query heads are ``group x repeat``: ``repeat`` of them read one key and value head. The channels of
a tensor are heads x dim; all heads keep the same dims. Queries and keys meet inside the operator,
over the dims called ``key``; the dims of values, called ``value``, pass to the output.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.relations import Axis, Contract, Freeze, Positions, Relation, Split, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, Tensor, rule

__all__ = [
    "Heads",
    "attention",
    "grouped_query_attention",
    "multi_head_attention",
    "packed_attention",
]

Part = Mapping[str, Positions]


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one operator; ``value`` names the dims of values."""

    op: Op
    heads: int
    groups: int
    value: str = "value"

    def axis(self, name: str) -> Axis:
        """Name the factor that numbers groups, repeats, or dims."""
        return Axis(f"{self.op.name}/{name}", 0)

    def part(self, heads: int, size: int, dims: str = "") -> Part:
        """Tell heads x dims apart in a row of ``size`` positions."""
        place, dim = np.arange(size), size // heads
        head, repeat = place // dim, heads // self.groups
        found = {"group": head // repeat}
        if repeat > 1:
            found["repeat"] = head % repeat
        if dims:
            found[dims] = place % dim
        return found

    def split(self, axis: Axis, parts: Sequence[Part]) -> Iterator[Relation]:
        """Split an axis on which parts follow each other."""
        names = dict.fromkeys(name for part in parts for name in part)
        sizes = [len(part["group"]) for part in parts]
        factors = [
            (
                self.axis(name),
                np.concatenate(
                    [p.get(name, np.full(n, -1)) for p, n in zip(parts, sizes, strict=True)]
                ),
            )
            for name in names
        ]
        yield Split(axis, tuple(factors))

    def tokens(self, tensor: Tensor | None, heads: int, dims: str) -> Iterator[Relation]:
        """(batch, tokens, heads x dim) or (batch, heads, tokens, dim)."""
        if tensor is None:
            return
        yield from self.op.tie(tensor, 0, self.op.y(), 0)
        if tensor.rank == 3:
            yield from self.split(tensor.axis(2), [self.part(heads, tensor.shape[2], dims)])
            return
        yield from self.split(tensor.axis(1), [self.part(heads, heads)])
        dim = np.arange(tensor.shape[-1])
        yield Tie(tensor.axis(-1), self.axis(dims), dim, dim)

    def scores(self, tensor: Tensor | None) -> Iterator[Relation]:
        """Masks, biases and scores: (batch, heads, queries, keys), broadcast."""
        if tensor is None:
            return
        if tensor.rank > 2 and tensor.shape[-3] == self.heads:
            yield from self.split(tensor.axis(-3), [self.part(self.heads, self.heads)])
        if tensor.rank > 3:
            yield from self.op.tie(tensor, 0, self.op.y(), 0)

    def rotated(self, caches: Sequence[Tensor | None], *, interleaved: bool) -> Iterator[Relation]:
        """Rotary embedding turns pairs of key dims by one column of cosines and sines."""
        for cache in caches:
            if cache is not None:
                yield from _pairs(self.axis("key"), cache, interleaved=interleaved)


def _pairs(dims: Axis, cache: Tensor, *, interleaved: bool) -> Iterator[Relation]:
    width = cache.shape[-1]
    dim = np.arange(2 * width)
    if width == 1:
        yield Freeze(dims, "a rotary embedding turns this only pair of dims", dim)
    else:
        yield Tie(dims, cache.axis(-1), dim, dim // 2 if interleaved else dim % width)


def _optional_output(op: Op, slot: int) -> Tensor | None:
    return op.outputs[slot] if slot < len(op.outputs) else None


@rule("Attention")
def attention(op: Op) -> Iterator[Relation]:
    """The standard's: query, key, value, mask, past key and value; also the scores go out."""
    q, k, v, y = op.x(0), op.x(1), op.x(2), op.y()
    heads = op.integer("q_num_heads", 0) or q.shape[1]
    groups = op.integer("kv_num_heads", 0) or k.shape[1]
    found = Heads(op, heads, groups)
    for tensor, count, dims in (
        (q, heads, "key"),
        (k, groups, "key"),
        (v, groups, "value"),
        (y, heads, "value"),
        (op.optional(4), groups, "key"),
        (op.optional(5), groups, "value"),
        (_optional_output(op, 1), groups, "key"),
        (_optional_output(op, 2), groups, "value"),
    ):
        yield from found.tokens(tensor, count, dims)
    for scores in (op.optional(3), _optional_output(op, 3)):
        yield from found.scores(scores)
    if (lengths := op.optional(6)) is not None:
        yield from op.tie(lengths, 0, y, 0)
    yield Contract(q.axis(-1), 0)


# Slots of padding mask, bias of scores, past key, past value and bias.
_SLOTS = {
    "MultiHeadAttention": (4, 5, 6, 7, 3),
    "DecoderMaskedMultiHeadAttention": (3, 4, 5, 6, 10),
}


@rule(*_SLOTS, domain=MICROSOFT)
def multi_head_attention(op: Op) -> Iterator[Relation]:
    """Projected queries, keys and values; onnxruntime has the packed forms on GPUs only.

    Where keys and values come as heads, or are stored, they have equally many dims.
    """
    padding, scores, past_key, past_value, bias = (op.optional(s) for s in _SLOTS[op.op_type])
    q, k, v, heads = op.x(0), op.x(1), op.x(2), op.integer("num_heads", 1)
    alike = k.rank == 4 or past_key is not None
    found = Heads(op, heads, heads, "key" if alike else "value")
    for tensor, dims in (
        (q, "key"),
        (k, "key"),
        (v, found.value),
        (op.y(), found.value),
        (past_key, "key"),
        (past_value, found.value),
        (_optional_output(op, 1), "key"),
        (_optional_output(op, 2), found.value),
    ):
        yield from found.tokens(tensor, heads, dims)
    for tensor in (scores, _optional_output(op, 3)):
        yield from found.scores(tensor)
    yield from _padding(op, padding)
    yield Contract(q.axis(-1), 0)
    if bias is not None:
        size = q.shape[2]
        yield from found.split(bias.axis(0), _qkv(found, (size, size, bias.shape[0] - 2 * size)))
        yield Contract(bias.axis(0), _SLOTS[op.op_type][-1])


def _qkv(found: Heads, sizes: Sequence[int]) -> list[Part]:
    dims = ("key", "key", found.value)
    return [found.part(found.heads, n, name) for n, name in zip(sizes, dims, strict=True)]


@rule("GroupQueryAttention", domain=MICROSOFT)
def grouped_query_attention(op: Op) -> Iterator[Relation]:
    """Queries, keys and values apart or in one row; keys and values have equally many dims."""
    q, k, v = op.x(0), op.optional(1), op.optional(2)
    heads, groups = op.integer("num_heads", 1), op.integer("kv_num_heads", 1)
    found = Heads(op, heads, groups, "key")
    if any(op.optional(slot) is not None for slot in range(12, 16)):
        return  # quantized caches and norms of queries and keys inside the operator
    if k is None or v is None:
        dim = q.shape[2] // (heads + 2 * groups)
        parts = [found.part(n, n * dim, "key") for n in (heads, groups, groups)]
        yield from found.split(q.axis(2), parts)
        yield from op.tie(q, 0, op.y(), 0)
    else:
        yield from found.tokens(q, heads, "key")
    others = (k, v, op.optional(3), op.optional(4))
    for tensor in (*others, _optional_output(op, 1), _optional_output(op, 2)):
        yield from found.tokens(tensor, groups, "key")
    yield from found.tokens(op.y(), heads, "key")
    yield from found.scores(op.optional(10))
    if (sink := op.optional(11)) is not None:
        yield from found.split(sink.axis(0), [found.part(heads, heads)])
    caches = (op.optional(7), op.optional(8)) if op.flag("do_rotary") else ()
    yield from found.rotated(caches, interleaved=op.flag("rotary_interleaved"))
    for tensor in (op.optional(5), op.optional(9)):
        if tensor is not None and tensor.rank:
            yield from op.tie(tensor, 0, op.y(), 0)
    yield Contract(q.axis(2), 0)


@rule("Attention", domain=MICROSOFT)
def packed_attention(op: Op) -> Iterator[Relation]:
    """The projection to queries, keys and values is inside: three blocks of one weight."""
    x, w, bias, y = op.x(0), op.x(1), op.optional(2), op.y()
    heads = op.integer("num_heads", 1)
    past, present = op.optional(4), _optional_output(op, 1)
    stored = [tensor for tensor in (past, present) if tensor is not None]
    found = Heads(op, heads, heads, "key" if stored else "value")
    sizes = op.integers("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    yield from op.tie(x, 0, y, 0)
    yield Tie(x.axis(2), w.axis(0))
    yield Contract(x.axis(2), 0)
    for tensor, slot in ((w, 1), (bias, 2)):
        if tensor is not None:
            yield from found.split(tensor.axis(-1), _qkv(found, sizes))
            yield Contract(tensor.axis(-1), slot)
    yield from found.tokens(y, heads, found.value)
    for tensor in stored:
        yield from op.tie(tensor, 1, y, 0)
        yield from found.split(tensor.axis(2), [found.part(heads, heads)])
        dim = np.arange(tensor.shape[-1])
        yield Tie(tensor.axis(-1), found.axis("key"), dim, dim)
    if op.flag("do_rotary"):
        dim = np.arange(sizes[0] // heads)
        yield Freeze(found.axis("key"), "Attention rotates these dims by a table of its own", dim)
    yield from found.scores(op.optional(5))
    yield from _padding(op, op.optional(3))


def _padding(op: Op, mask: Tensor | None) -> Iterator[Relation]:
    """One row or one number per sample; other lists hold several numbers per sample."""
    if mask is not None and mask.shape[0] == op.y().shape[0]:
        yield from op.tie(mask, 0, op.y(), 0)
    elif mask is not None:
        yield Freeze(op.y().axis(0), f"{op.op_type} lists starts and ends of all samples")


@rule("RotaryEmbedding")
def rotary(op: Op) -> Iterator[Relation]:
    """Pairs of dims are turned together, by one column of cosines and sines."""
    yield from _rotary(op, op.x(1), op.x(2), op.optional(3))


@rule("RotaryEmbedding", domain=MICROSOFT)
def rotary_of_onnxruntime(op: Op) -> Iterator[Relation]:
    """The same, with positions before the tables."""
    yield from _rotary(op, op.x(2), op.x(3), op.x(1))


def _rotary(op: Op, cos: Tensor, sin: Tensor, at: Tensor | None) -> Iterator[Relation]:
    x, y = op.x(0), op.y()
    yield from op.same(x, y, but=(2 if x.rank == 4 else 1,))
    given = op.integer("num_heads", 0)
    count = x.shape[1] if x.rank == 4 else given or x.shape[2] // (2 * cos.shape[-1])
    heads = Heads(op, count, count)
    yield from heads.tokens(x, count, "key")
    yield from heads.rotated((cos, sin), interleaved=op.flag("interleaved"))
    for tensor in (at, *((cos, sin) if cos.rank == 3 else ())):
        if tensor is not None and tensor.rank > 1:
            yield from op.tie(tensor, 0, y, 0)
