"""Attributes that count channels: groups, hidden units, heads."""

from onnxprune.coupling.rules import MICROSOFT
from onnxprune.coupling.rules.recurrent import STATES
from onnxprune.rewrite.repairs._site import Site, repairs

__all__ = ["conv", "group_normalization", "recurrent"]


@repairs("Conv", "ConvTranspose", "DeformConv")
@repairs("ConvTransposeWithDynamicPads", "FusedConv", domain=MICROSOFT)
def conv(site: Site) -> None:
    """Groups that stay, and blocks of channels with sampling places of their own."""
    blocks, places = site.node.attributes.get("offset_group", 1), site.node.inputs[2:3]
    if isinstance(blocks, int) and blocks > 1:
        kept = site.kept(places[0], 1) * blocks // site.trace.shapes[places[0]][1]
        if kept != blocks:
            site.attributes["offset_group"] = kept
    group = site.node.attributes.get("group", 1)
    if not isinstance(group, int) or group == 1:
        return
    x, w, y = site.node.inputs[0], site.node.inputs[1], site.node.outputs[0]
    transposed = site.node.op_type.startswith("ConvTranspose")
    value, axis = (y, 1) if transposed else (x, 1)
    per_group = site.kept(w, 1)
    count = site.kept(value, axis)
    if count % per_group:
        site.refuse("the kept channels do not fill whole groups")
    if count // per_group != group:
        site.attributes["group"] = count // per_group


@repairs("GRU", "LSTM", "RNN")
def recurrent(site: Site) -> None:
    """Units that stay. Initial states of zeros go: that is what their absence means."""
    site.attributes["hidden_size"] = units = site.kept(site.node.inputs[2], 2)
    for slot in STATES[site.node.op_type]:
        state = site.node.inputs[slot] if slot < len(site.node.inputs) else ""
        if state and site.kept(state, 2) != units:
            site.dropped.add(slot)


@repairs("GroupNormalization")
def group_normalization(site: Site) -> None:
    """Groups that stay, which keep equally many channels."""
    groups = site.node.attributes["num_groups"]
    assert isinstance(groups, int)
    rows = site.full(site.node.inputs[0], 1).reshape(groups, -1).sum(axis=1)
    if len(set(rows[rows > 0].tolist())) > 1:
        site.refuse("its groups do not keep equally many channels")
    site.attributes["num_groups"] = int((rows > 0).sum())
