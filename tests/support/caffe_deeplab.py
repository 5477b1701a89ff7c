"""A DeepLab written from the published Caffe-style code's names and geometry, apart from the package's own.

Stages are `layer2` to `layer5`, a bottleneck is reduce, conv3x3, increase and shortcut, each a convolution and a batch
normalisation; the stride stands in the first 1x1 convolution and the pooling rounds up.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def unit(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, relu: bool = True) -> nn.Module:
    padding = {1: 0, 3: dilation, 7: 3}[kernel]
    parts: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        "bn": nn.BatchNorm2d(outputs, eps=1e-5, momentum=1 - 0.999),
    }
    if relu:
        parts["relu"] = nn.ReLU()
    return nn.Sequential(OrderedDict(parts))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, dilation: int, first: bool) -> None:
        super().__init__()
        middle = outputs // 4
        self.reduce = unit(inputs, middle, 1, stride=stride)
        self.conv3x3 = unit(middle, middle, 3, dilation=dilation)
        self.increase = unit(middle, outputs, 1, relu=False)
        self.shortcut = unit(inputs, outputs, 1, stride=stride, relu=False) if first else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.increase(self.conv3x3(self.reduce(features))) + self.shortcut(features))


def stage(blocks: int, inputs: int, outputs: int, *, stride: int, dilation: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            (
                f"block{number}",
                Bottleneck(
                    inputs if number == 1 else outputs,
                    outputs,
                    stride=stride if number == 1 else 1,
                    dilation=dilation,
                    first=number == 1,
                ),
            )
            for number in range(1, blocks + 1)
        )
    )


class Pyramid(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        for number, rate in enumerate((6, 12, 18, 24)):
            self.add_module(f"c{number}", nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate))

    def forward(self, features: Tensor) -> Tensor:
        return sum(branch(features) for branch in self.children())  # type: ignore[return-value]


def caffe_deeplab(blocks: tuple[int, int, int, int], *, width: int, classes: int) -> nn.Sequential:
    """The network with random weights and statistics, in evaluation mode; the published one has width 64."""
    stem = OrderedDict(conv1=unit(3, width, 7, stride=2), pool=nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    network = nn.Sequential(
        OrderedDict(
            layer1=nn.Sequential(stem),
            layer2=stage(blocks[0], width, 4 * width, stride=1, dilation=1),
            layer3=stage(blocks[1], 4 * width, 8 * width, stride=2, dilation=1),
            layer4=stage(blocks[2], 8 * width, 16 * width, stride=1, dilation=2),
            layer5=stage(blocks[3], 16 * width, 32 * width, stride=1, dilation=4),
            aspp=Pyramid(32 * width, classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()
