"""SAM's own mask decoder for the boxes of many images, with the interface of the replacement in `fast/sam_decoder`."""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam
from torch import Tensor


class StockDecoder:
    """Masks of box prompts by segment-anything's own modules, one image after the other (`kernels: stock`)."""

    def __init__(self, sam: Sam) -> None:
        """Take the prompt encoder and the mask decoder of `sam`."""
        self._prompt_encoder = sam.prompt_encoder
        self._mask_decoder = sam.mask_decoder

    def tokens_of_images(self, features: Tensor) -> Tensor:
        """Return the (B, C, g, g) features of the image encoder as they are."""
        return features

    def decode(self, images: Tensor, image_of_box: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask logits (n, 4 g, 4 g), positive inside, and the predicted IoUs (n,).

        Args:
            images: (B, C, g, g), from `tokens_of_images`.
            image_of_box: (n,) int64 indices into B, in ascending order.
            boxes: (n, 4) float32 XYXY in pixels of the network's input.
        """
        logits, scores = [], []
        for image in image_of_box.unique():
            sparse, dense = self._prompt_encoder(points=None, boxes=boxes[image_of_box == image], masks=None)
            masks, predicted = self._mask_decoder(
                image_embeddings=images[image : image + 1],
                image_pe=self._prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            logits.append(masks[:, 0])
            scores.append(predicted[:, 0])
        return torch.cat(logits), torch.cat(scores)
