"""Whole blocks of language models that onnxruntime writes as one operator."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Contract, Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, rule
from onnxprune.coupling.rules.attention import Heads


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(op: Op) -> Iterator[Relation]:
    """A sum of looked-up rows, normalized; all tables follow the last axis."""
    ids, y = op.x(0), op.y()
    for axis in (0, 1):
        for tensor in (ids, op.optional(1), op.optional(7), op.optional(8)):
            if tensor is not None:
                yield from op.tie(tensor, axis, y, axis)
    for tensor in (*op.inputs[2:7], *op.outputs[2:]):
        if tensor is not None:
            yield from op.tie(tensor, -1, y, -1)
    for extra in op.outputs[1:2]:
        if extra is not None:
            yield from op.tie(extra, 0, y, 0)
    for extra in op.outputs[2:]:
        if extra is not None:
            yield from op.same(extra, y)
    yield Freeze(y.axis(1), "EmbedLayerNormalization numbers these positions")
    yield Contract(op.x(2).axis(1), 2, "norm")


@rule("MoE", domain=MICROSOFT)
def mixture_of_experts(op: Op) -> Iterator[Relation]:
    """Expert by expert two or three linear layers; their inner neurons are the same in all."""
    x, router, fc1, fc2, y = op.x(0), op.x(1), op.x(2), op.x(4), op.y()
    yield Contract(x.axis(-1), 0)
    yield Contract(fc2.axis(2), 4)
    yield Tie(y.axis(-1), fc2.axis(1))
    yield Tie(x.axis(-1), y.axis(-1))  # one hidden_size for both
    if (bias := op.optional(5)) is not None:
        yield Tie(bias.axis(1), y.axis(-1))
    if x.rank == 2:
        yield Tie(x.axis(0), y.axis(0))
        yield Tie(router.axis(0), y.axis(0))
    inner = fc2.shape[2]
    place = np.arange(fc1.shape[1])
    interleaved = op.integer("swiglu_fusion", 0) == 1
    neuron = place // 2 if interleaved else place % inner
    for weight, bias in ((fc1, op.optional(3)), (op.optional(6), op.optional(7))):
        if weight is not None:
            yield Tie(x.axis(-1), weight.axis(2))
        for tensor in (weight, bias):
            if tensor is not None:
                size = tensor.shape[1]
                yield Tie(tensor.axis(1), fc2.axis(2), place[:size], neuron[:size])


@rule("CausalConvWithState", domain=MICROSOFT)
def causal_conv(op: Op) -> Iterator[Relation]:
    """One filter per channel, along time; the state is the end of the previous stretch."""
    x, w, bias, past = op.x(0), op.x(1), op.optional(2), op.optional(3)
    if op.integer("state_window", 0) or (op.flag("channels_last") and x.rank != 3):
        return
    channel = -1 if op.flag("channels_last") else 1
    for tensor in (x, past, *op.outputs[1:]):
        if tensor is not None:
            yield from op.tie(tensor, 0, op.y(), 0)
            yield from op.tie(tensor, channel, op.y(), channel)
    for tensor in (w, bias):
        if tensor is not None:
            yield Tie(tensor.axis(0), op.y().axis(channel))


@rule("LinearAttention", domain=MICROSOFT)
def linear_attention(op: Op) -> Iterator[Relation]:
    """A state of key dims x value dims per key head, written and read token by token."""
    q, k, v, past, decay, beta = (op.optional(slot) for slot in range(6))
    heads, groups = op.integer("q_num_heads", 1), op.integer("kv_num_heads", 1)
    assert q is not None
    assert k is not None
    if op.integer("state_window", 0) or groups > heads:
        return
    found = Heads(op, heads, groups)
    for tensor, count, dims in (
        (q, heads, "key"),
        (k, groups, "key"),
        (v, groups, "value"),
        (op.y(), heads, "value"),
        (decay, groups, "key" if decay is not None and decay.shape[2] > groups else ""),
        (beta, groups, ""),
    ):
        if tensor is not None and tensor.shape[2] == 1:
            yield from op.tie(tensor, 0, op.y(), 0)  # one rate for all heads
        else:
            yield from found.tokens(tensor, count, dims)
    for state in (past, *op.outputs[1:]):
        if state is not None:
            yield from op.tie(state, 0, op.y(), 0)
            yield from found.split(state.axis(1), [found.part(groups, groups)])
            for axis, name in ((2, "key"), (3, "value")):
                dim = np.arange(state.shape[axis])
                yield Tie(state.axis(axis), found.axis(name), dim, dim)
    yield Contract(q.axis(2), 0)
    yield Contract(k.axis(2), 1)
