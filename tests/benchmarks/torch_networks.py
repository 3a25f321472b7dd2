"""Two of the real networks rebuilt in torch, with the weights of their ONNX files by name.

``rebuilt`` refuses a network whose outputs are not those of the file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from scoring import outputs
from shared_data import Inputs
from torch import nn

State = dict[str, torch.Tensor]
_CLOSE = 1e-3  # of the largest output
_SETTLING = 128  # samples: all go through at once


class Block(nn.Module):
    """Two convolutions around a shortcut that drops positions and adds empty channels."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride, self.more = (2, (width - before) // 2) if width > before else (1, 0)
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return torch.relu(y + x)


class ResNet20(nn.Module):
    """The network of resnet20_cifar10, whose weights keep their names in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(y.mean((2, 3)))

    def streams(self) -> Iterator[nn.Module]:
        """Return the layers that write to what the shortcuts carry, and the head."""
        yield from (self.conv1, self.linear)
        yield from (m.conv2 for m in self.modules() if isinstance(m, Block))


class Step(nn.Module):
    """A convolution of MobileNetV2, and a BatchNormalization that changes nothing."""

    def __init__(self, node: onnx.NodeProto, state: State, *, clipped: bool) -> None:
        super().__init__()
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        weight, bias = state[node.input[1]], state[node.input[2]]
        width, before, size, _ = weight.shape
        stride, groups = given["strides"][0], given["group"]
        self.pad = nn.ZeroPad2d((0, 1, 0, 1) if stride > 1 else size // 2)
        self.conv = nn.Conv2d(before * groups, width, size, stride, groups=groups)
        self.conv.weight.data, self.conv.bias.data = weight, bias
        self.bn = nn.BatchNorm2d(width)
        self.act = nn.ReLU6() if clipped else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(self.pad(x))))

    @staticmethod
    def settle(step: "Step", given: tuple[torch.Tensor]) -> None:
        """Give the BatchNormalization the statistics of its input, and undo what they change."""
        bn = step.bn
        bn.running_var, bn.running_mean = torch.var_mean(step.conv(step.pad(*given)), (0, 2, 3))
        bn.weight.data = (bn.running_var + bn.eps).sqrt()
        bn.bias.data = bn.running_mean.clone()


class MobileNetV2(nn.Module):
    """The network of mobilenetv2_tf2: its layers numbered as in the file.

    The numbers that have no convolution are the sums, and the mean before the head. The file's
    BatchNormalizations are folded; here every convolution has one again, with the statistics that
    some inputs cause, so that these can be estimated anew after a cut.
    """

    def __init__(self, file: onnx.ModelProto, state: State) -> None:
        super().__init__()
        self.steps = nn.ModuleDict()
        for node in (n for n in file.graph.node if n.op_type == "Conv"):
            _, number, *inner, _ = node.input[1].split(".")
            self.steps[number[1:]] = Step(node, state, clipped=bool(inner))
        self.last = max(map(int, self.steps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        carried = x
        for number in range(1, self.last + 1):
            if str(number) in self.steps:
                step = self.steps[str(number)]
                x = step(x)
                ends = isinstance(step.act, nn.Identity)
            elif number == self.last - 1:
                x = x.mean((2, 3), keepdim=True)
            else:
                x, ends = x + carried, True
            if ends and (str(number + 1) in self.steps):
                carried = x
        return x.flatten(1)

    def streams(self) -> Iterator[nn.Module]:
        """Return the layers that write to what the shortcuts carry, and the head."""
        yield from (s.conv for s in self.steps.values() if isinstance(s.act, nn.Identity))


def rebuilt(path: Path, inputs: Inputs) -> ResNet20 | MobileNetV2:
    """Make the network of a file; the inputs are what BatchNormalization was not folded for."""
    file = onnx.load(path)
    state = {
        i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in file.graph.initializer
    }
    if "resnet20" in path.stem:
        model: ResNet20 | MobileNetV2 = ResNet20()
        model.load_state_dict(state, strict=False)
    else:
        model = MobileNetV2(file, state)
        hooks = [s.register_forward_pre_hook(Step.settle) for s in model.steps.values()]
        with torch.no_grad():
            model.eval()(torch.from_numpy(inputs[:_SETTLING]))
        for hook in hooks:
            hook.remove()
    model.eval()
    with torch.no_grad():
        ours = model(torch.from_numpy(inputs[:8])).numpy()
    theirs = outputs(path, inputs[:8])[0][0]
    assert np.abs(ours - theirs).max() < _CLOSE * np.abs(theirs).max(), "not the file's network"
    return model
