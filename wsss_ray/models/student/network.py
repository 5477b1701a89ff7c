"""The student: a segmentation network with its preprocessing, scales, loss and learning rates.

Shapes: N images, C classes (channel 0 the background), S outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.models.device import to_device
from wsss_ray.models.student.spec import IGNORE, StudentSpec


class Network(Protocol):
    """The interface of a network: normalized images (N, 3, H, W) to logits (N, C, h, w) in float32."""

    head: tuple[str, ...]
    """Prefixes of the names of the classifier's parameters."""
    head_rate: float
    """Factor of the learning rate for the classifier's weights; its biases have twice this factor."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        ...

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the logits of images of this size."""
        ...


class StudentNetwork(nn.Module):
    """A network applied at several scales (MSC); the logits are joined by their maximum."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: StudentSpec, network: nn.Module) -> None:
        """Wrap a network that follows the protocol `Network`, for `spec.num_classes` classes."""
        super().__init__()
        self.spec = spec
        self.network = network
        for name in ("mean", "std"):
            values = torch.tensor(getattr(spec.preprocessing, name), device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of every scale, then their maximum at the first scale's resolution.

        With one scale there is one output. Each output is (N, C, h, w) float32, also under autocast.

        Args:
            images: (N, 3, H, W) RGB from 0 to 255, uint8 or floating point.
        """
        pixels = (images - self.mean) / self.std
        if self.spec.preprocessing.channel_order == "bgr":
            pixels = pixels.flip(1)  # a list of indices would be copied to the device, which waits for it
        if images.is_contiguous(memory_format=torch.channels_last):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        outputs = [self.network(_rescale(pixels, scale)) for scale in self.spec.scales]
        if len(outputs) == 1:
            return (outputs[0],)
        highest = outputs[0]
        for logits in outputs[1:]:
            highest = torch.maximum(
                highest, functional.interpolate(logits, size=highest.shape[2:], mode="bilinear", align_corners=False)
            )
        return (*outputs, highest)

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (h, w) of every output for images of this height and width."""
        network = cast(Network, self.network)
        sizes = [network.output_size(*_rescaled_size(height, width, scale)) for scale in self.spec.scales]
        return sizes if len(sizes) == 1 else [*sizes, sizes[0]]

    def targets(self, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the targets (N, h, w) int64, one for each output.

        A pixel of a target is the nearest pixel of the label, as with Pillow's NEAREST. Of two equally near pixels
        either can be taken.

        Args:
            labels: (N, H, W) channels or IGNORE, of any integer type.
        """
        planes = labels[:, None].float()  # interpolation takes no integers; float is exact below 2**24
        made: dict[tuple[int, int], Tensor] = {}
        sizes = self.output_sizes(labels.shape[1], labels.shape[2])
        for size in sizes:
            if size not in made:
                made[size] = functional.interpolate(planes, size=size, mode="nearest-exact")[:, 0].long()
        return tuple(made[size] for size in sizes)

    def loss_sums(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of each output, summed over the pixels that have a class: (S,) float32.

        The loss of a step is the sum over outputs of loss_sums[s] / max(valid pixels of target s, 1), where pixels are
        counted over the whole global batch. Without valid pixels a sum and its gradients are 0.
        """
        return torch.stack(
            [
                functional.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum")
                for logits, target in zip(outputs, targets, strict=True)
            ]
        )

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return groups for an optimizer (`name`, `params`, `lr`, `weight_decay`) of all trained parameters.

        base: the backbone's weights. norm: its biases and normalizations, without decay (the ResNets of DeepLab-v2 do
        not train them). head: the classifier's weights at ten times `lr`. head_bias: its biases at twenty times `lr`,
        without decay. In `deeplabv2-tiny`, whose backbone also starts at random, the factors are one and two.
        """
        network = cast(Network, self.network)
        rates = {
            "base": (1.0, weight_decay),
            "norm": (1.0, 0.0),
            "head": (network.head_rate, weight_decay),
            "head_bias": (2 * network.head_rate, 0.0),
        }
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith(network.head):
                groups["head_bias" if name.endswith("bias") else "head"].append(parameter)
            else:
                groups["base" if parameter.ndim > 1 else "norm"].append(parameter)
        return [
            {"name": name, "params": groups[name], "lr": factor * lr, "weight_decay": decay}
            for name, (factor, decay) in rates.items()
            if groups[name]
        ]

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], *, flip: bool = False) -> list[Tensor]:
        """Return the class probabilities of each image at its own size: (C, H, W) float32 on the student's device.

        Args:
            images: (H, W, 3) uint8 RGB. Images of equal size run together, so pass as many as fit into memory.
            flip: whether to average with the probabilities of the mirrored image.

        Raises:
            ValueError: an image has another form.
        """
        assert not self.network.training, "call eval() before predicting"
        results: dict[int, Tensor] = {}
        for indices in _by_size(images):
            batch = to_device(np.stack([images[index] for index in indices]), self.mean.device)
            pixels = batch.permute(0, 3, 1, 2)  # channels last, which is fastest on a GPU
            found = self._probabilities(pixels)
            if flip:
                found = (found + self._probabilities(pixels.flip(3)).flip(3)) / 2
            results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(images))]

    def _probabilities(self, pixels: Tensor) -> Tensor:
        logits = functional.interpolate(self(pixels)[-1], size=pixels.shape[2:], mode="bilinear", align_corners=False)
        return logits.softmax(1)


def _rescaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def _rescale(pixels: Tensor, scale: float) -> Tensor:
    """Return the resized images, as in the published code: coordinates by the scale itself, sizes rounded down."""
    if scale == 1:
        return pixels
    if min(pixels.shape[2:]) * scale < 1:
        size = _rescaled_size(pixels.shape[2], pixels.shape[3], scale)
        return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return functional.interpolate(pixels, scale_factor=scale, mode="bilinear", align_corners=False)


def _by_size(images: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Yield the indices of images of equal size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"image {index} is {image.dtype} of shape {image.shape}: a student takes uint8 RGB of shape (H, W, 3)."
            )
        groups.setdefault(image.shape, []).append(index)
    yield from groups.values()
