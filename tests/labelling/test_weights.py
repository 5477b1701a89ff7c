"""Weights that are checked in the driver, before an actor loads them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wsss_ray import Labeller
from wsss_ray.config import DetectorConfig, LabelConfig, RayConfig, SegmenterConfig
from wsss_ray.config.label import LabellerConfig
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.labelling import job as labelling
from wsss_ray.labelling.weights import check_weights
from wsss_ray.labels import job as labels_job
from wsss_ray.models.sam.weights import DEMO_WEIGHTS


def configure(folder: Path, **settings: str) -> LabellerConfig:
    segmenter = SegmenterConfig(model="tiny", checkpoint=str(folder), **settings)
    return LabellerConfig(classes="demo", detector=DetectorConfig(model="demo"), segmenter=segmenter)


def test_weights_that_fit_pass_with_their_digest(tmp_path: Path) -> None:
    shutil.copytree(DEMO_WEIGHTS, tmp_path / "sam")
    check_weights(configure(tmp_path / "sam"))
    digest = hashlib.sha256((tmp_path / "sam/model.safetensors").read_bytes()).hexdigest()
    check_weights(configure(tmp_path / "sam", sha256=digest.upper()))
    with pytest.raises(ValueError, match=rf"model\.safetensors has SHA-256 {digest}, not 0000"):
        check_weights(configure(tmp_path / "sam", sha256="0" * 64))


def test_a_labeller_compares_the_digest_of_local_weights(tmp_path: Path) -> None:
    shutil.copytree(DEMO_WEIGHTS, tmp_path / "sam")
    digest = hashlib.sha256((tmp_path / "sam/model.safetensors").read_bytes()).hexdigest()
    assert Labeller(configure(tmp_path / "sam", sha256=digest)).segmenter is not None
    with pytest.raises(ValueError, match=rf"model\.safetensors has SHA-256 {digest}, not 0000"):
        _ = Labeller(configure(tmp_path / "sam", sha256="0" * 64)).segmenter


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    shutil.copytree(DEMO_WEIGHTS, tmp_path / "sam")
    settings = json.loads((tmp_path / "sam/config.json").read_text())
    settings["depth"] += 1
    (tmp_path / "sam/config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"does not fit the segmenter tiny: .* missing"):
        check_weights(configure(tmp_path / "sam"))


def test_the_job_refuses_damaged_weights_before_its_actors_start(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def no_ray(config: RayConfig) -> Iterator[Resources]:
        yield Resources(nodes=(Node(cpus=1, gpus=0),))

    monkeypatch.setattr(labels_job, "connect", no_ray)
    (tmp_path / "sam.pth").write_bytes(b"no checkpoint")
    config = LabelConfig(
        input=str(photos),
        output=str(tmp_path / "run"),
        detector=DetectorConfig(model="demo"),
        segmenter=SegmenterConfig(model="vit_b", checkpoint=str(tmp_path / "sam.pth")),
    )
    with pytest.raises(ValueError, match=r"sam\.pth is damaged or holds other objects than tensors"):
        labelling.run(config)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    shutil.copytree(DEMO_WEIGHTS, tmp_path / "sam")
    file = tmp_path / "sam/model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as a checkpoint"):
        check_weights(configure(tmp_path / "sam"))
