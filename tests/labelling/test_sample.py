"""What a dry run says before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, LabelConfig
from wsss_ray.labelling.sample import describe_prompts


def test_a_phrase_of_which_the_detector_knows_nothing_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text("name: x\nclasses:\n  cat: {}\n  zebra: {phrases: [漢字]}\n", encoding="utf-8")
    classes = ClassSet.load(str(tmp_path / "set.yaml"))
    config = LabelConfig(input="", output="", detector=DetectorConfig(model="demo"))
    rows = pa.table({"image_id": ["a"], "tags": [["cat"]]})  # of another class: no actor would meet it in this image
    with pytest.raises(ValueError, match=r"set\.yaml:4: the phrase '漢字' of class 'zebra' holds no token"):
        describe_prompts(config, classes, rows)
    plain = ClassSet.load("demo")
    assert describe_prompts(config, plain, rows) == ["prompt    a: cat ."]
