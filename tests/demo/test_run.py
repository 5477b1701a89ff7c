"""A small demo: all jobs in a chain, and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsss_ray.config import DemoConfig
from wsss_ray.demo import steps as student
from wsss_ray.demo.run import run


def test_the_demo_runs_and_runs_again(
    tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DemoConfig(output=str(tmp_path), scenes=8, student_scenes=8, student_iterations=2)
    first = run(config)
    assert first["pseudo_label_miou"] > 0.7
    assert 0 < first["student_miou"] < first["pseudo_label_miou"]  # of two updates
    assert first["student_trained_on"] == "pseudo-labels of 8 train scenes"
    assert first["images_per_second"] > 0
    assert json.loads((tmp_path / "summary.json").read_text()) == first
    assert f"labelled 4 scenes from their tags: open {tmp_path / 'first.png'}" in capsys.readouterr().out
    assert (tmp_path / "first.png").stat().st_size > 10_000
    assert (tmp_path / "gallery" / "index.html").exists()
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert sorted(path.name for path in (tmp_path / "labels" / "png").iterdir()) == sorted(
        path.name for path in (tmp_path / "scenes" / "truth").iterdir()
    )
    (tmp_path / "summary.json").unlink()
    capsys.readouterr()
    assert run(config) == first
    printed = capsys.readouterr().out
    assert "nothing to do: all 8 images are labelled" in printed
    assert "is trained" in printed
    with pytest.raises(ValueError, match="a demo of other scenes"):
        run(DemoConfig(output=str(tmp_path), scenes=9))


def test_the_students_scenes_are_none_that_the_models_were_trained_on(tmp_path: Path) -> None:
    student.draw(tmp_path, "train", 2, first=student.FIRST_SCENE)
    assert sorted(path.stem for path in (tmp_path / "truth").iterdir()) == ["train-0500000", "train-0500001"]
