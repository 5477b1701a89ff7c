"""The detector's loss on small tensors with known answers."""

import math

import pytest
import torch

from tools.demo_models.detection_loss import Target, cell_centers, proposal_loss, set_loss

SURE = 30.0
MASK = torch.tensor([[True, True, True, False]])
FIRST = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
BOX = torch.tensor([[0.5, 0.5, 0.2, 0.2]])


def logits(rows: list[list[float]]) -> torch.Tensor:
    """Return the logits of an image whose last token is padding."""
    values = torch.tensor([rows])
    return values.masked_fill(~MASK[:, None], -math.inf)


def test_a_perfect_answer_costs_nothing() -> None:
    answer = logits([[-SURE, -SURE, -SURE, 0], [SURE, -SURE, -SURE, 0]])
    boxes = torch.stack([torch.tensor([[0.1, 0.1, 0.1, 0.1], BOX[0].tolist()])])
    loss = set_loss(answer, boxes, MASK, [Target(boxes=BOX, tokens=FIRST)])
    assert float(loss) == pytest.approx(0.0, abs=1e-4)


def test_the_wrong_token_costs_the_focal_loss() -> None:
    answer = logits([[-SURE, SURE, -SURE, 0]])
    loss = set_loss(answer, BOX[None], MASK, [Target(boxes=BOX, tokens=FIRST)])
    assert float(loss) == pytest.approx(2 * (0.25 * SURE + 0.75 * SURE), rel=1e-5)


def test_a_shifted_box_costs_distance_and_overlap() -> None:
    answer = logits([[SURE, -SURE, -SURE, 0]])
    shifted = BOX + torch.tensor([[0.1, 0.0, 0.0, 0.0]])
    loss = set_loss(answer, shifted[None], MASK, [Target(boxes=BOX, tokens=FIRST)])
    assert float(loss) == pytest.approx(5 * 0.1 + 2 * (1 - 1 / 3), rel=1e-4)


def test_every_image_has_its_own_prompt() -> None:
    mask = MASK.repeat(2, 1)
    answer = torch.cat([logits([[SURE, -SURE, -SURE, 0]]), logits([[-SURE, SURE, SURE, 0]])])
    targets = [
        Target(boxes=BOX, tokens=FIRST),
        Target(boxes=BOX, tokens=torch.tensor([[0.0, 1.0, 1.0, 0.0]])),
    ]
    boxes = BOX.repeat(2, 1, 1)
    assert float(set_loss(answer, boxes, mask, targets)) == pytest.approx(0.0, abs=1e-4)
    assert float(set_loss(answer, boxes, mask, targets[::-1])) > 10


def test_an_image_without_things_only_pays_for_claims() -> None:
    empty = Target(boxes=torch.zeros(0, 4), tokens=torch.zeros(0, 4))
    silent = set_loss(logits([[-SURE, -SURE, -SURE, 0]]), BOX[None], MASK, [empty])
    loud = set_loss(logits([[SURE, -SURE, -SURE, 0]]), BOX[None], MASK, [empty])
    assert float(silent) == pytest.approx(0.0, abs=1e-4)
    assert float(loud) > 10


def test_cells_lie_row_by_row_and_level_by_level() -> None:
    centers = cell_centers([(1, 2), (1, 1)])
    assert centers.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]


def test_proposals_near_the_centre_own_the_thing() -> None:
    centers = cell_centers([(1, 4)])  # x = 0.125, 0.375, 0.625, 0.875
    box = torch.tensor([[0.5, 0.5, 0.5, 1.0]])
    good = logits([[-SURE, -SURE, -SURE, 0]] + [[SURE, -SURE, -SURE, 0]] * 2 + [[-SURE, -SURE, -SURE, 0]])
    boxes = box.repeat(1, 4, 1)
    target = Target(boxes=box, tokens=FIRST)
    assert float(proposal_loss(good, boxes, MASK, [target], centers)) == pytest.approx(0.0, abs=1e-4)
    assert float(proposal_loss(good.roll(1, dims=1), boxes, MASK, [target], centers)) > 10


def test_the_smaller_thing_wins_a_cell() -> None:
    centers = cell_centers([(2, 2)])  # all four inside the large thing, and nearest to the small one
    large, small = [0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]
    target = Target(
        boxes=torch.tensor([large, small]), tokens=torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    )
    answer = logits([[-SURE, SURE, -SURE, 0]] * 4)
    loss = proposal_loss(answer, torch.tensor([[small] * 4]), MASK, [target], centers)
    assert float(loss) == pytest.approx(0.0, abs=1e-4)
