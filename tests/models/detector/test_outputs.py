"""Token scores to boxes of classes, by hand: best token, delimiters, threshold, pixels."""

import numpy as np
import pytest
import torch

from wsss_ray.models.detector.outputs import read_outputs
from wsss_ray.models.detector.prompts import Prompt
from wsss_ray.models.results import Detections

# [CLS] hot dog . dog . [SEP]: "dog" has one id in two classes
PROMPT = Prompt(
    text="hot dog . dog .",
    input_ids=(101, 5, 6, 1012, 6, 1012, 102),
    token_class_ids=(-1, 7, 7, -1, 9, -1, -1),
    token_phrases=(-1, 0, 0, -1, 1, -1, -1),
    phrases=("hot dog", "dog"),
)
SHORT = Prompt(
    text="cat .",
    input_ids=(101, 8, 1012, 102),
    token_class_ids=(-1, 3, -1, -1),
    token_phrases=(-1, 0, -1, -1),
    phrases=("cat",),
)
COLUMNS = 10


def logits_of(*queries: dict[int, float]) -> torch.Tensor:
    """(queries, COLUMNS) logits from {token: score}; the other tokens score 0.01."""
    scores = torch.full((len(queries), COLUMNS), 0.01)
    for row, query in enumerate(queries):
        for token, score in query.items():
            scores[row, token] = score
    return torch.logit(scores)


def read(*queries: dict[int, float], mode: str = "parent", threshold: float = 0.3) -> Detections:
    boxes = torch.tensor([[0.1 * (index + 1), 0.5, 0.2, 0.4] for index in range(len(queries))])
    (found,) = read_outputs(
        logits_of(*queries)[None], boxes[None], [PROMPT], [(100, 200)], mode=mode, box_threshold=threshold
    )
    return found


def test_the_best_token_names_class_phrase_and_score() -> None:
    found = read({1: 0.4, 2: 0.5}, {2: 0.45, 4: 0.6}, {2: 0.6, 4: 0.45})
    assert found.class_ids.tolist() == [7, 9, 7]
    assert found.phrases == ("hot dog", "dog", "hot dog")
    assert found.scores == pytest.approx([0.5, 0.6, 0.6])


def test_a_score_must_exceed_the_threshold() -> None:
    found = read({1: 0.31}, {1: 0.29}, {4: 0.95}, threshold=0.3)
    assert found.scores == pytest.approx([0.31, 0.95])
    assert len(read({1: 0.29})) == 0


@pytest.mark.parametrize("delimiter", [0, 3, 5, 6])
def test_reference_mode_drops_what_a_delimiter_wins(delimiter: int) -> None:
    queries = [{1: 0.4, delimiter: 0.5}, {1: 0.4, delimiter: 0.35}]
    assert read(*queries, mode="parent").scores == pytest.approx([0.4, 0.4])
    found = read(*queries, mode="reference")
    assert found.boxes[:, 0].tolist() == pytest.approx([20.0])  # the second query alone


def test_columns_behind_the_prompt_are_ignored() -> None:
    """Padding scores minus infinity in the network; even a high score there would name no class."""
    logits = logits_of({1: 0.4})
    logits[:, len(PROMPT.input_ids) :] = float("-inf")
    (found,) = read_outputs(
        logits[None], torch.full((1, 1, 4), 0.5), [PROMPT], [(10, 10)], mode="reference", box_threshold=0.3
    )
    assert found.class_ids.tolist() == [7]


def test_boxes_become_pixel_corners_and_are_not_clipped() -> None:
    (found,) = read_outputs(
        logits_of({1: 0.9}, {4: 0.9})[None],
        torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.05, 0.9, 0.2, 0.4]]]),
        [PROMPT],
        [(100, 200)],
        mode="parent",
        box_threshold=0.3,
    )
    np.testing.assert_allclose(found.boxes, [[80, 30, 120, 70], [-10, 70, 30, 110]], atol=1e-4)


def test_each_row_has_its_own_prompt_and_size() -> None:
    logits = torch.stack([logits_of({1: 0.9}), logits_of({1: 0.8, 4: 0.9})])
    boxes = torch.full((2, 1, 4), 0.5)
    first, second = read_outputs(
        logits, boxes, [PROMPT, SHORT], [(100, 200), (10, 20)], mode="parent", box_threshold=0.3
    )
    assert (first.phrases, second.phrases) == (("hot dog",), ("cat",))
    assert second.scores == pytest.approx([0.8])  # column 4 is behind the short prompt
    assert (first.boxes[0] == 10 * second.boxes[0]).all()


def test_nan_is_an_error() -> None:
    logits = logits_of({1: 0.9})
    logits[0, 1] = float("nan")
    with pytest.raises(ValueError, match=r"NaN.*float16"):
        read_outputs(logits[None], torch.full((1, 1, 4), 0.5), [PROMPT], [(9, 9)], mode="parent", box_threshold=0.3)
