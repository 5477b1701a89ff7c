"""The comparison of students: its arithmetic, and a small comparison through all jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from soak import SOAK

from tools.compare_students import background_miou, compare, format_table, reached
from wsss_ray.classes import ClassSet
from wsss_ray.engine.resources import Resources
from wsss_ray.evaluation.result import Evaluation, conclude
from wsss_ray.evaluation.tally import IMAGES_SCHEMA, Tally
from wsss_ray.labels.scores import ClassIndex


def evaluation(matrix: list[list[int]]) -> Evaluation:
    index = ClassIndex.of(ClassSet.from_names(["cat", "dog"]))
    tally = Tally.zero(index.count)
    tally.matrix += np.array(matrix)
    given = {"split": None, "class_set": "x", "boundary": False, "instance_rule": None, "resamples": 0, "seed": 0}
    images = pa.Table.from_pylist([], schema=IMAGES_SCHEMA)
    return conclude(tally, images, index, subset=None, rejected=0, images_per_second=1.0, **given)  # type: ignore[arg-type]


def test_the_background_alone_scores_its_share_over_the_classes_present() -> None:
    # 60 pixels of background, 40 of cat, none of dog, 9 without truth: IoU 0.6 and 0.
    judged = evaluation([[10, 50, 0, 0], [20, 15, 0, 5], [0, 0, 0, 0], [9, 0, 0, 0]])
    assert background_miou(judged) == pytest.approx(0.6 / 2)


def test_the_bars_are_of_the_means() -> None:
    mious = {"pseudo": {0: 0.58, 1: 0.62}, "exact": {0: 0.6, 1: 0.7}}
    found = reached(mious, 0.1)
    assert found["measures"] == pytest.approx({"pseudo / exact": 0.6 / 0.65, "exact": 0.65, "pseudo - background": 0.5})
    assert all(found["reached"].values())
    assert reached(mious, 0.5)["reached"] == {"pseudo / exact": True, "exact": True, "pseudo - background": False}
    assert not reached({"pseudo": {0: 0.5}, "exact": {0: 0.59}}, 0.1)["reached"]["pseudo / exact"]


@pytest.mark.skipif(not SOAK, reason="in `make soak`: two trainings beside that of the demo's test")
def test_a_small_comparison_runs_and_runs_again(
    tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    first = compare(tmp_path, scenes=8, test_scenes=4, seeds=[5], iterations=2)
    assert set(first["miou"]) == {"pseudo", "exact"}
    assert 0.05 < first["background_miou"] < 0.3
    assert first["pseudo_label_miou_of_train_scenes"] > 0.5
    written = json.loads((tmp_path / "students.json").read_text())
    assert written == json.loads(json.dumps(first))
    table = (tmp_path / "students.txt").read_text()
    assert table == format_table(first) + "\n"
    assert table.startswith("trained on         seed 5     mean\npseudo-labels")
    assert "NOT reached" in table
    capsys.readouterr()
    assert compare(tmp_path, scenes=8, test_scenes=4, seeds=[5], iterations=2) == first
    assert capsys.readouterr().out.count("nothing to do") >= 7  # shards, labels, and for both trainings and predictions
    with pytest.raises(ValueError, match="other scenes"):
        compare(tmp_path, scenes=9, test_scenes=4, seeds=[5], iterations=2)
