"""Attributes of fused attention: counts of heads, sizes, and the scale that the dims imply."""

import numpy as np

from onnxprune.coupling.keeps import Mask
from onnxprune.coupling.rules import MICROSOFT
from onnxprune.rewrite.repairs._site import Site, repairs

__all__ = ["attention", "packed_attention", "rotary"]


@repairs("Attention")
@repairs(
    "DecoderMaskedMultiHeadAttention",
    "GroupQueryAttention",
    "LinearAttention",
    "MultiHeadAttention",
    domain=MICROSOFT,
)
def attention(site: Site) -> None:
    """Heads that stay among queries and among keys, and the scale of the original dims."""
    queries, keys = _names(site)
    q, k = site.node.inputs[:2]
    rank = len(site.trace.shapes[q])
    if rank == 4:  # (batch, heads, tokens, dim): nothing counts the heads
        heads = groups = 0
        before, after = site.trace.shapes[q][3], site.kept(q, 3)
    elif not k:
        heads, groups, before, after = _one_row(site)
    else:
        heads, before, after = _counts(site, site.full(q, 2), _integer(site, queries))
        groups = heads
        if keys:
            groups = _counts(site, site.full(k, 2), _integer(site, keys))[0]
    for name, count in ((queries, heads), (keys, groups)):
        if name in site.node.attributes and _integer(site, name) != count:
            site.attributes[name] = count
    if site.node.op_type == "GroupQueryAttention":
        unit = 16 if site.node.attributes.get("do_rotary") else 8
        if after % unit:
            site.refuse(f"onnxruntime wants heads of a multiple of {unit} dims")
    _write_scale(site, before, after)


def _names(site: Site) -> tuple[str, str]:
    """Return the attributes that count heads of queries and of keys ("" where they are one)."""
    return {
        "Attention": ("q_num_heads", "kv_num_heads"),
        "GroupQueryAttention": ("num_heads", "kv_num_heads"),
        "LinearAttention": ("q_num_heads", "kv_num_heads"),
    }.get(site.node.op_type, ("num_heads", ""))


def _integer(site: Site, name: str) -> int:
    value = site.node.attributes[name]
    assert isinstance(value, int)
    return value


def _one_row(site: Site) -> tuple[int, int, int, int]:
    """Count in a row of all query heads, then all key heads, then all value heads."""
    heads, groups = _integer(site, "num_heads"), _integer(site, "kv_num_heads")
    row = site.full(site.node.inputs[0], 2)
    dim = len(row) // (heads + 2 * groups)
    queries, keys = row[: heads * dim], row[heads * dim : (heads + groups) * dim]
    kept, before, after = _counts(site, queries, heads)
    return kept, _counts(site, keys, groups)[0], before, after


def _counts(site: Site, row: Mask, heads: int) -> tuple[int, int, int]:
    """Return the heads that stay, and the dims per head before and after."""
    table = row.reshape(heads, -1)
    by_head, by_dim = np.any(table, axis=1), np.any(table, axis=0)
    if not np.array_equal(table, np.outer(by_head, by_dim)):
        site.refuse("its heads would not all keep the same dims")
    return int(by_head.sum()), table.shape[1], int(by_dim.sum())


def _write_scale(site: Site, before: int, after: int) -> None:
    """Scores are divided by the root of the original dims, whatever stays of them."""
    if before != after and not site.node.attributes.get("scale"):
        site.attributes["scale"] = 1 / float(np.sqrt(before))


@repairs("Attention", domain=MICROSOFT)
def packed_attention(site: Site) -> None:
    """The weight holds queries, keys and values in one row."""
    heads, row = _integer(site, "num_heads"), site.full(site.node.inputs[1], 1)
    given = site.node.attributes.get("qkv_hidden_sizes")
    sizes = [len(row) // 3] * 3 if given is None else list(given)  # type: ignore[call-overload]
    q, k, v = np.split(row, np.cumsum(sizes)[:2])
    kept, before, after = _counts(site, q, heads)
    if kept != heads:
        site.attributes["num_heads"] = kept
    new = [int(part.sum()) for part in (q, k, v)]
    if new != sizes and (given is not None or len(set(new)) > 1):
        site.attributes["qkv_hidden_sizes"] = new
    _write_scale(site, before, after)


@repairs("RotaryEmbedding")
@repairs("RotaryEmbedding", domain=MICROSOFT)
def rotary(site: Site) -> None:
    """Heads, and how many of their dims are turned."""
    x = site.node.inputs[0]
    cos = site.node.inputs[2 if site.node.domain == MICROSOFT else 1]
    heads, turned = (
        int(site.node.attributes.get(name, 0))  # type: ignore[call-overload]
        for name in ("num_heads", "rotary_embedding_dim")
    )
    if heads and len(site.trace.shapes[x]) == 3:
        kept = _counts(site, site.full(x, 2), heads)[0]
        if kept != heads:
            site.attributes["num_heads"] = kept
    width = site.kept(cos, len(site.trace.shapes[cos]) - 1)
    if turned and turned != 2 * width:
        site.attributes["rotary_embedding_dim"] = 2 * width
