"""SAM's image encoder: resizing of images, and images to features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.models.device import Compute, to_device
from wsss_ray.models.fast import self_check
from wsss_ray.models.fast.ops import Attend
from wsss_ray.models.fast.sam_encoder import use_fast_layers
from wsss_ray.models.fast.sam_half import HalfEncoder

logger = logging.getLogger(__name__)


def resized_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the height and width of an image whose longer side becomes `side`, by segment-anything's rule.

    The shorter side has at least one pixel. The package's own rule can give 0 for narrow images, and then it fails.
    """
    scale = side * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_longest_side(
    image: NDArray[np.uint8], side: int, backend: Literal["torchvision", "pil"] = "pil"
) -> NDArray[np.uint8]:
    """Return an image at the network's size.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: length of the network's longer side in pixels.
        backend: pil equals `ResizeLongestSide.apply_image` bit by bit; torchvision is faster.
    """
    height, width = resized_size(image.shape[0], image.shape[1], side)
    if backend == "torchvision":
        pixels = torch.from_numpy(image if image.flags.writeable else image.copy())
        channels_last = pixels[None].permute(0, 3, 1, 2)  # strides that torch recognizes: otherwise it copies twice
        resized = functional.interpolate(channels_last, (height, width), mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


class ImageEncoder:
    """The image encoder of a SAM on its device, in its precision."""

    def __init__(
        self,
        sam: Sam,
        compute: Compute,
        *,
        kernels: Literal["auto", "stock"] = "auto",
        compile_mode: str = "off",
        attend: Attend | None = None,
    ) -> None:
        """Take over `sam.image_encoder`, whose weights must be final and on the device.

        Args:
            sam: the network; its encoder's layers are replaced in place where `kernels` is auto.
            compute: device and precision.
            kernels: auto uses the layers of `fast/sam_encoder`; stock leaves the package's own.
            compile_mode: a mode of torch.compile, or off. When compiled, batches are padded with empty images to a
                power of two, so that few shapes are compiled.
            attend: the attention of a GPU in 16 bits, as `HalfEncoder` takes it.
        """
        self._compute = compute
        self._sam = sam
        self.side: int = sam.image_encoder.img_size
        """Side of the network's square input, in pixels."""
        self.float32_fallbacks = 0
        """Batches that overflowed in float16 and were encoded again in float32."""
        self._compiles = compile_mode != "off"
        self._network: Callable[[Tensor], Tensor] = sam.image_encoder
        self._exact: nn.Module | None = sam.image_encoder
        """The network in float32, for batches that overflow; None where it is not needed."""
        dtype = compute.autocast_dtype
        if kernels == "auto" and compute.device.type == "cuda" and dtype is not None:
            half = HalfEncoder(sam.image_encoder, dtype, attend)
            if attend is None and not self._agrees(half):
                kernels = "stock"
            else:
                self._network = half
                if dtype == torch.bfloat16:  # which has the range of float32
                    self._exact = None
                    sam.image_encoder = half
        if kernels == "auto" and self._exact is not None:
            use_fast_layers(sam, compute.device)
        if self._compiles:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is, with a warning
            self._network = torch.compile(self._network, mode=compile_mode, dynamic=False)

    def _agrees(self, half: HalfEncoder) -> bool:
        """Return whether the layers of a GPU give what the package's own give in float32, on one random image."""
        inputs = torch.randn(1, 3, self.side, self.side, device=self._compute.device)
        with Compute(device=self._compute.device, tier="float32").running():
            expected = self._sam.image_encoder(inputs)
        overflows = self._compute.tier == "float16"
        with self._compute.running():
            return self_check.agrees(
                "SAM's encoder", lambda: [half(inputs).float()], [expected], may_overflow=overflows
            )

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the features (B, C, g, g) float32 of images from `resize_longest_side`.

        The CPU encodes them one by one. Batches are no faster there, and the features of an image do not depend on the
        other images of its batch, bit by bit.
        """
        if self._compute.device.type == "cpu":
            return torch.cat([self._encode_finite([picture]) for picture in pictures])
        return self._encode_finite(pictures)

    def _encode_finite(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        features = self._encode(pictures, self._compute, self._network)
        if self._compute.tier == "float16" and not bool(features.isfinite().all()):
            logger.warning("float16 overflowed in SAM's image encoder: %d images are encoded in float32", len(pictures))
            self.float32_fallbacks += 1
            assert self._exact is not None
            features = self._encode(pictures, Compute(device=self._compute.device, tier="float32"), self._exact)
        return features

    def features_of(self, inputs: Tensor) -> Tensor:
        """Return the features (B, C, g, g) of normalized images (B, 3, side, side), in the context of the precision."""
        features: Tensor = self._network(inputs)
        return features.float()

    def _encode(
        self, pictures: Sequence[NDArray[np.uint8]], compute: Compute, network: Callable[[Tensor], Tensor]
    ) -> Tensor:
        device = compute.device
        with compute.running():
            count = 1 << (len(pictures) - 1).bit_length() if self._compiles else len(pictures)
            inputs = torch.zeros(count, 3, self.side, self.side, device=device)
            for slot, picture in enumerate(pictures):
                pixels = to_device(picture, device).permute(2, 0, 1)
                height, width = pixels.shape[1:]
                inputs[slot, :, :height, :width] = (pixels - self._sam.pixel_mean) / self._sam.pixel_std
            features: Tensor = network(inputs)
            return features[: len(pictures)].float()
