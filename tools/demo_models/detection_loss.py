"""The training loss of the demo's detector.

transformers' own loss is not used: with different prompts in a batch it takes labels from the wrong prompt, and it
gives the proposals of the two-stage encoder no gradient. Here every image has its own token targets. Decoder layers
get the set loss (one query per object) and proposals a dense loss (a few cells per object).

Shapes: Q queries or cells, T text tokens, N objects of an image. Boxes are cxcywh in 0 to 1 unless stated otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

CLASS_WEIGHT, BOX_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
_ALPHA = 0.25
_CELLS_PER_THING = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """The objects of an image: `boxes` (N, 4) and `tokens` (N, T) float, 1 at the tokens of the object's phrase."""

    boxes: torch.Tensor
    tokens: torch.Tensor


def set_loss(
    logits: torch.Tensor, boxes: torch.Tensor, text_mask: torch.Tensor, targets: Sequence[Target]
) -> torch.Tensor:
    """Return the weighted sum of class, box and GIoU losses of a decoder layer, each object matched to one query.

    logits (B, Q, T), boxes (B, Q, 4), text_mask (B, T) True at tokens that are not padding. Returns a scalar;
    matching uses the same three terms and weights.
    """
    matches = []
    for image_logits, image_boxes, mask, target in zip(logits, boxes, text_mask, targets, strict=True):
        with torch.no_grad():
            cost = _matching_cost(image_logits[:, mask], image_boxes, target.boxes, target.tokens[:, mask])
        query, thing = linear_sum_assignment(cost.numpy())
        matches.append((torch.as_tensor(query), torch.as_tensor(thing)))
    return _loss_of_matches(logits, boxes, text_mask, targets, matches)


def proposal_loss(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    text_mask: torch.Tensor,
    targets: Sequence[Target],
    centers: torch.Tensor,
) -> torch.Tensor:
    """Return the same loss for the encoder's proposals, one per cell; an object gets the cells nearest to its center.

    logits (B, Q, T), boxes (B, Q, 4), centers (Q, 2) of the cells in 0 to 1. Cells must be within 40 % of the object's
    extent around its center (the nearest always counts); if objects compete, the smaller gets the cell.
    """
    matches = []
    for target in targets:
        offsets = (centers[:, None] - target.boxes[None, :, :2]) / target.boxes[None, :, 2:]
        distance = offsets.abs().amax(dim=-1)
        owner = torch.full((len(centers),), -1)
        for thing in target.boxes[:, 2:].prod(dim=-1).argsort(descending=True).tolist():
            near = distance[:, thing].topk(_CELLS_PER_THING, largest=False)
            owner[near.indices[(near.values <= 0.4) | (near.values == near.values.min())]] = thing
        cells = (owner >= 0).nonzero()[:, 0]
        matches.append((cells, owner[cells]))
    return _loss_of_matches(logits, boxes, text_mask, targets, matches)


def cell_centers(shapes: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the centers (Q, 2), x and y in 0 to 1, of the cells of feature maps of (height, width), by level."""
    centers = []
    for height, width in shapes:
        rows, columns = torch.meshgrid(
            (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
        )
        centers.append(torch.stack([columns, rows], dim=-1).reshape(-1, 2))
    return torch.cat(centers)


def _matching_cost(
    logits: torch.Tensor, boxes: torch.Tensor, target_boxes: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return the costs (Q, N) of matching queries to objects: focal class cost of the phrase's tokens, L1, GIoU."""
    probability = logits.sigmoid()
    present = _ALPHA * (1 - probability) ** 2 * -F.logsigmoid(logits)
    absent = (1 - _ALPHA) * probability**2 * -F.logsigmoid(-logits)
    class_cost = (present - absent) @ (tokens / tokens.sum(dim=-1, keepdim=True)).T
    box_cost = torch.cdist(boxes, target_boxes, p=1)
    giou = generalized_box_iou(_corners(boxes), _corners(target_boxes))
    return CLASS_WEIGHT * class_cost + BOX_WEIGHT * box_cost - GIOU_WEIGHT * giou


def _loss_of_matches(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    text_mask: torch.Tensor,
    targets: Sequence[Target],
    matches: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """Return the focal loss of all queries and the box losses of matched ones, divided by the number of matches."""
    wanted = torch.zeros_like(logits)
    found, true = [], []
    for index, (target, (query, thing)) in enumerate(zip(targets, matches, strict=True)):
        wanted[index, query] = target.tokens[thing]
        found.append(boxes[index, query])
        true.append(target.boxes[thing])
    found_boxes, true_boxes = torch.cat(found), torch.cat(true)
    count = max(len(true_boxes), 1)
    finite = logits.masked_fill(~text_mask[:, None], 0.0)  # padding is -inf, and left out of the sum below
    entropy = F.binary_cross_entropy_with_logits(finite, wanted, reduction="none")
    probability = finite.sigmoid()
    missed = wanted * (1 - probability) + (1 - wanted) * probability
    alpha = wanted * _ALPHA + (1 - wanted) * (1 - _ALPHA)
    class_loss = (alpha * missed**2 * entropy * text_mask[:, None]).sum() / count
    box_loss = (found_boxes - true_boxes).abs().sum() / count
    giou_loss = generalized_box_iou_loss(_corners(found_boxes), _corners(true_boxes), reduction="sum") / count
    return CLASS_WEIGHT * class_loss + BOX_WEIGHT * box_loss + GIOU_WEIGHT * giou_loss


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")
