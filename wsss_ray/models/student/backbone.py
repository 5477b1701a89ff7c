"""ResNets at output stride 8: torchvision's blocks and names, with the strides and dilations of DeepLab.

Tensors are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from wsss_ray.config.student import Geometry

_STRIDES = (1, 2, 1, 1)
_DILATIONS = (1, 1, 2, 4)
_GROUP_CHANNELS = 8


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalization whose statistics and weights never change, not even in training."""

    def __init__(self, features: int) -> None:
        """Create the layer for tensors (N, `features`, H, W)."""
        super().__init__(features)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay in evaluation mode whatever `mode` is."""
        del mode
        return super().train(False)


def group_norm(features: int) -> nn.GroupNorm:
    """Return a group normalization with groups of 8 channels or more. It trains from scratch with any batch size."""
    return nn.GroupNorm(max(1, features // _GROUP_CHANNELS), features)


@dataclass(frozen=True, kw_only=True)
class ResNetForm:
    """The sizes and blocks of a ResNet."""

    block: type[BasicBlock] | type[Bottleneck]
    """torchvision's residual block."""
    blocks: tuple[int, int, int, int]
    """Number of blocks of each stage."""
    width: int = 64
    """Channels of the stem; stage k has `width * 2**k` times the block's expansion."""
    norm: Callable[[int], nn.Module] = FrozenBatchNorm
    """Function from a number of channels to a normalization layer."""


FORMS = {
    "resnet101": ResNetForm(block=Bottleneck, blocks=(3, 4, 23, 3)),
    "resnet50": ResNetForm(block=Bottleneck, blocks=(3, 4, 6, 3)),
    "resnet18": ResNetForm(block=BasicBlock, blocks=(2, 2, 2, 2)),
    "tiny": ResNetForm(block=BasicBlock, blocks=(1, 1, 1, 1), width=12, norm=group_norm),
}


class Backbone(nn.Module):
    """A ResNet without its classifier; the state dict has torchvision's names and shapes.

    Geometry `caffe`: every block of layer3 has dilation 2, of layer4 dilation 4; the stride of a bottleneck is in its
    first 1x1 convolution; the pooling rounds sizes up. Geometry `torchvision`: the first block of a stage has the
    dilation of the previous stage; the stride of a bottleneck is in its 3x3 convolution; the pooling rounds down.
    """

    def __init__(self, form: ResNetForm, geometry: Geometry) -> None:
        """Build the network, randomly initialized."""
        super().__init__()
        self.geometry = geometry
        self.conv1 = nn.Conv2d(3, form.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = form.norm(form.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=geometry == "caffe")
        channels = form.width
        for stage, count in enumerate(form.blocks):
            self.add_module(f"layer{stage + 1}", _make_stage(form, geometry, stage, count, channels))
            channels = form.width * 2**stage * form.block.expansion
        self.channels = channels
        """Number of channels of the features."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                _weaken_residuals(module, blocks=sum(form.blocks))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (N, channels, h, w) of normalized images (N, 3, H, W); (h, w) is `output_size(H, W)`."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (1, 2, 3, 4):
            features = self.get_submodule(f"layer{stage}")(features)
        return features

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the features of images of this size: an eighth, rounded by the geometry."""
        return self._output_length(height), self._output_length(width)

    def _output_length(self, length: int) -> int:
        stem = (length - 1) // 2 + 1
        pooled = (stem - 1) // 2 + 1 if self.geometry == "torchvision" else -((1 - stem) // 2) + 1
        return (pooled - 1) // 2 + 1


def _make_stage(form: ResNetForm, geometry: Geometry, stage: int, count: int, channels: int) -> nn.Sequential:
    planes = form.width * 2**stage
    outputs = planes * form.block.expansion
    blocks = []
    for index in range(count):
        first = index == 0
        stride = _STRIDES[stage] if first else 1
        inherited = geometry == "torchvision" and first and stage > 0
        downsample = None
        if first and (stride > 1 or channels != outputs):
            projection = nn.Conv2d(channels, outputs, 1, stride=stride, bias=False)
            downsample = nn.Sequential(projection, form.norm(outputs))
        block = form.block(channels if first else outputs, planes, stride, downsample, norm_layer=form.norm)
        _dilate(block, _DILATIONS[stage - 1] if inherited else _DILATIONS[stage])
        if geometry == "caffe" and isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        blocks.append(block)
    return nn.Sequential(*blocks)


def _weaken_residuals(block: BasicBlock | Bottleneck, *, blocks: int) -> None:
    """Scale the residual branch down: with frozen norms, random weights would let features grow block by block."""
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    if isinstance(last, FrozenBatchNorm):
        nn.init.constant_(last.weight, blocks**-0.5)


def _dilate(block: nn.Module, dilation: int) -> None:
    """Set the dilation of a block's 3x3 convolutions; torchvision's basic block does not take it as an argument."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (dilation, dilation)
