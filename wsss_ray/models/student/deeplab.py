"""DeepLab-v2: a ResNet at output stride 8 and atrous spatial pyramid pooling (Chen et al., arXiv 1606.00915)."""

from __future__ import annotations

from torch import Tensor, nn

from wsss_ray.config.student import Geometry
from wsss_ray.models.student.backbone import FORMS, Backbone, FrozenBatchNorm

RATES = (6, 12, 18, 24)


class Aspp(nn.Module):
    """The sum of four classifiers: 3x3 convolutions of different dilation, so with different fields of view."""

    def __init__(self, channels: int, num_classes: int) -> None:
        """Create the convolutions. Weights are from N(0, 0.01) and biases are 0, as published."""
        super().__init__()
        self.branches = nn.ModuleList(_branch(channels, num_classes, rate) for rate in RATES)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, num_classes, h, w) of features (N, channels, h, w), summed in float32."""
        first, *others = (branch(features).float() for branch in self.branches)
        for logits in others:
            first = first + logits
        return first


def _branch(channels: int, num_classes: int, rate: int) -> nn.Conv2d:
    branch = nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate)
    nn.init.normal_(branch.weight, std=0.01)
    assert branch.bias is not None
    nn.init.zeros_(branch.bias)
    return branch


class DeepLabV2(nn.Module):
    """DeepLab-v2: normalized images (N, 3, H, W) to logits (N, C, h, w) float32, at an eighth of the size."""

    head = ("aspp.",)
    """Prefixes of the names of the classifier's parameters."""

    def __init__(self, architecture: str, geometry: Geometry, num_classes: int) -> None:
        """Build "deeplabv2-NAME", randomly initialized. NAME is one of `backbone.FORMS`."""
        super().__init__()
        form = FORMS[architecture.removeprefix("deeplabv2-")]
        self.backbone = Backbone(form, geometry)
        self.aspp = Aspp(self.backbone.channels, num_classes)
        self.head_rate = 10.0 if form.norm is FrozenBatchNorm else 1.0
        """10 for a backbone with frozen norms, which is pretrained; 1 for one that trains from scratch."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, C, h, w) of normalized images (N, 3, H, W)."""
        return self.aspp(self.backbone(images))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the logits of images of this size."""
        return self.backbone.output_size(height, width)
