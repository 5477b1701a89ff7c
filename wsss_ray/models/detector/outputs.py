# ruff: noqa: N803, N806
"""The network's token scores to boxes of classes (paper, 3.1).

The network scores every query against every token of the prompt. A class's score for a query is the largest score over
all tokens of all its phrases. The box belongs to its best class if that score exceeds the threshold.

Shapes: B prompts, Q queries, T token columns of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wsss_ray.models.detector.prompts import NO_CLASS, Prompt
from wsss_ray.models.device import to_device
from wsss_ray.models.results import Detections


def read_outputs(
    logits_BQT: torch.Tensor,
    boxes_BQ4: torch.Tensor,
    prompts: Sequence[Prompt],
    sizes: Sequence[tuple[int, int]],
    *,
    mode: Literal["parent", "reference"],
    box_threshold: float,
) -> list[Detections]:
    """Return the boxes that belong to a class, one result per prompt.

    Boxes are scaled as published: from relative centers to pixel corners in float32. They are not clipped, so they may
    reach past the border.

    Args:
        logits_BQT: one column per token of the prompt, then columns that are ignored.
        boxes_BQ4: cx, cy, w, h relative to the image.
        prompts: the prompts.
        sizes: (height, width) of the original images.
        mode: with "reference" a query is dropped whose best delimiter ([CLS], [SEP], full stop, unknown token) scores
            above its best class, as in the published code.
        box_threshold: score that a box must exceed.

    Raises:
        ValueError: the outputs of the network are NaN.
    """
    device = logits_BQT.device
    is_class_B1T = to_device(_class_tokens(prompts, logits_BQT.shape[-1]), device)[:, None, :]
    scores_BQT = logits_BQT.float().sigmoid()
    best_BQ, token_BQ = scores_BQT.masked_fill(~is_class_B1T, -1).max(-1)
    keep_BQ = best_BQ > box_threshold
    if mode == "reference":
        keep_BQ &= scores_BQT.masked_fill(is_class_B1T, -1).amax(-1) <= best_BQ
    broken = logits_BQT.isnan().any() | boxes_BQ4.isnan().any()
    columns = (boxes_BQ4.float(), best_BQ[..., None], token_BQ[..., None], keep_BQ[..., None])
    table_BQ8 = torch.cat([*columns, broken.expand(*keep_BQ.shape, 1)], -1).cpu()  # the only wait for the device
    if table_BQ8[..., -1].any():
        raise ValueError(
            "the detector's outputs are not numbers (NaN). With precision float16 use bfloat16 or float32 instead; "
            "with another precision the weights are damaged."
        )
    kept = [table_Q8[table_Q8[:, 6] > 0] for table_Q8 in table_BQ8]
    return [
        _detections(rows[:, :4], rows[:, 4], rows[:, 5].int().tolist(), prompt, size)
        for rows, prompt, size in zip(kept, prompts, sizes, strict=True)
    ]


def _class_tokens(prompts: Sequence[Prompt], columns: int) -> NDArray[np.bool_]:
    """Return whether each column (B, columns) is a token of a class; delimiters and padding are not."""
    is_class = np.zeros((len(prompts), columns), np.bool_)
    for row, prompt in zip(is_class, prompts, strict=True):
        row[: len(prompt.token_class_ids)] = np.array(prompt.token_class_ids) != NO_CLASS
    return is_class


def _detections(
    relative: torch.Tensor, scores: torch.Tensor, tokens: Sequence[int], prompt: Prompt, size: tuple[int, int]
) -> Detections:
    height, width = size
    boxes = relative * torch.tensor([width, height, width, height])
    boxes[:, :2] -= boxes[:, 2:] / 2
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        boxes=boxes.numpy(),
        scores=scores.numpy(),
        class_ids=np.array([prompt.token_class_ids[token] for token in tokens], np.int32),
        phrases=tuple(prompt.phrases[prompt.token_phrases[token]] for token in tokens),
    )
