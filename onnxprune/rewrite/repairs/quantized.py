"""Attributes of quantized operators that count what stays."""

from onnxprune.rewrite.repairs._site import Site, repairs

__all__ = ["blocked_matmul", "dynamic_lstm", "quantized_conv"]

_MS = "com.microsoft"


@repairs("QLinearConv", "ConvInteger")
@repairs("QLinearConv", domain=_MS)
def quantized_conv(site: Site) -> None:
    """Groups that stay."""
    group = site.node.attributes.get("group", 1)
    if not isinstance(group, int) or group == 1:
        return
    weight = site.node.inputs[3 if site.node.op_type == "QLinearConv" else 1]
    x = site.node.inputs[0]
    channel = len(site.trace.shapes[x]) - 1 if site.node.attributes.get("channels_last") else 1
    per_group, count = site.kept(weight, 1), site.kept(x, channel)
    if count % per_group:
        site.refuse("the kept channels do not fill whole groups")
    if count // per_group != group:
        site.attributes["group"] = count // per_group


@repairs("DynamicQuantizeLSTM", domain=_MS)
def dynamic_lstm(site: Site) -> None:
    """Units that stay."""
    site.attributes["hidden_size"] = site.kept(site.node.inputs[2], 1)


@repairs("MatMulNBits", domain=_MS)
def blocked_matmul(site: Site) -> None:
    """Rows and columns that stay."""
    a, y = site.node.inputs[0], site.node.outputs[0]
    for name, value in (("K", a), ("N", y)):
        last = len(site.trace.shapes[value]) - 1
        site.attributes[name] = site.kept(value, last)
