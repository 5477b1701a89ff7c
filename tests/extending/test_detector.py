"""A detector from outside of the package: examples/owlv2_detector.py with a tiny random OWLv2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn_scenes
from label_runs import image_rows, write_shards
from PIL import Image
from repository import REPOSITORY
from transformers import (
    CLIPTokenizer,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    pipeline,
)

from wsss_ray import Labeller
from wsss_ray.config import DetectorConfig, StorageConfig
from wsss_ray.labels.run import LabelRun
from wsss_ray.shards.label_files import read_labels
from wsss_ray.storage.storage import Storage

EXAMPLES = REPOSITORY / "examples"
TYPE = "owlv2_detector:Owlv2Detector"
SIDE, PATCH, WIDTH = 64, 16, 32


@pytest.fixture(scope="module")
def owlv2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny OWLv2 of random weights, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("owlv2")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16, pad_token="<|endoftext|>")
    layers = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = tokens.index("<|endoftext|>")
    text = {"vocab_size": len(tokens), "max_position_embeddings": 16, "bos_token_id": end - 1, "eos_token_id": end}
    config = Owlv2Config(
        text_config={**layers, **text, "pad_token_id": end},
        vision_config={**layers, "image_size": SIDE, "patch_size": PATCH},
        projection_dim=WIDTH,
    )
    torch.manual_seed(0)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    processor = Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE})
    Owlv2Processor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_the_example_is_one_short_file() -> None:
    assert len((EXAMPLES / "owlv2_detector.py").read_text().splitlines()) < 120


@pytest.mark.usefixtures("examples")
def test_a_labeller_takes_the_detector_by_module_and_class(owlv2: Path) -> None:
    labels = Labeller.from_config("demo", detector=DetectorConfig(type=TYPE, model=str(owlv2), box_threshold=0.0))
    scene = np.random.default_rng(0).integers(0, 255, (48, 96, 3), dtype=np.uint8)
    with_tags, without = labels.label([scene, scene], [["cat", "dining table"], []])
    assert with_tags.status == "ok"
    patches = (SIDE // PATCH) ** 2
    assert len(with_tags.instances) == patches
    table = set(labels.classes.phrases_of("dining table"))
    for instance in with_tags.instances:
        assert labels.classes.by_id[instance.class_id].name == ("dining table" if instance.phrase in table else "cat")
        assert instance.mask().shape == (48, 96)
    assert without.status == "no_tags"
    assert with_tags.label.shape == (48, 96)


@pytest.mark.usefixtures("examples")
def test_its_boxes_are_those_of_transformers_own_pipeline(owlv2: Path) -> None:
    settings = DetectorConfig(type=TYPE, model=str(owlv2), box_threshold=0.0, options={"template": "{}"})
    labels = Labeller.from_config("demo", detector=settings)
    scene = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    expected = pipeline("zero-shot-object-detection", model=str(owlv2))(
        Image.fromarray(scene), candidate_labels=["cat"], threshold=0.0
    )
    (found,) = labels.detector.detect([scene], [["cat"]])
    order = np.argsort(-found.scores, kind="stable")
    assert found.scores[order] == pytest.approx([entry["score"] for entry in expected], abs=1e-5)
    boxes = [[entry["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for entry in expected]
    assert np.abs(found.boxes[order] - np.array(boxes)).max() <= 1  # the pipeline cuts its boxes to whole pixels


def test_the_job_runs_it_in_its_actors_and_names_it_in_the_run(owlv2: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write_shards(Storage(str(shards)), image_rows(drawn_scenes(3)), images_per_unit=3, classes="demo")
    command = [sys.executable, "-m", "wsss_ray", "label", "--config", "demo", "--input", str(shards)]
    flags = ["--output", str(tmp_path / "run"), "--detector.type", TYPE, "--detector.model", str(owlv2)]
    options = ["--detector.box-threshold", "0", "--detector.options", "template", "a {}"]
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES}:{REPOSITORY}"}
    subprocess.run([*command, *flags, *options], env=environment, check=True, cwd=tmp_path)
    run = LabelRun.open(labels=str(tmp_path / "run"), images=str(shards), classes="demo", storage=StorageConfig())
    assert run.identity["detector"]["type"] == TYPE
    assert run.identity["detector"]["options"] == {"template": "a {}"}
    rows = read_labels(run.labels, run.units[0]).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert all(row["instances"] for row in rows)


def test_an_unknown_type_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match=r"detector.*grounding-dno.*Did you mean .grounding-dino"):
        DetectorConfig(type="grounding-dno")
    with pytest.raises(ValueError, match=r"no_such_module"):
        Labeller.from_config("demo", detector=DetectorConfig(type="no_such_module:Detector")).detector  # noqa: B018
