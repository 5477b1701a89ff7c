"""What the pipeline's dry run times: the devices and precisions that its jobs would use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from drawn import drawn_scenes
from label_runs import image_rows

from wsss_ray.config import DetectorConfig, LabelConfig, PredictConfig, SegmenterConfig, TrainConfig
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.engine.stage import StageSpec
from wsss_ray.labels.sample import Timing
from wsss_ray.pipeline import estimate
from wsss_ray.pipeline.estimate import Images


@pytest.mark.parametrize(
    ("node", "device", "precision"),
    [
        (Node(cpus=8, gpus=1, gpu_kind="A100"), "cuda", "bfloat16"),
        (Node(cpus=8, gpus=1, gpu_kind="T4"), "cuda", "float32"),
        (Node(cpus=8, gpus=0), "cpu", "float32"),
    ],
)
def test_samples_run_where_the_jobs_would(
    node: Node, device: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that chose for itself could time a CPU in silence where the job then refuses its GPU."""
    timed: list[Any] = []

    def time_stages(stages: list[StageSpec], _: object) -> list[Timing]:
        timed.extend(stage.make.args for stage in stages)  # type: ignore[attr-defined]
        return [Timing(stage="label", actors=1, seconds=1.0, loading=1.0, device="", row_bytes=1.0)]

    monkeypatch.setattr(estimate, "time_stages", time_stages)
    monkeypatch.setattr(estimate, "_untrained_stage", lambda *_: None)
    images = Images(count=2, size=1, units=[2], sample=image_rows(drawn_scenes(2)), exif="ignore", seconds=1.0)
    label = LabelConfig(
        input="",
        output="",
        classes="demo",
        detector=DetectorConfig(model="demo"),
        segmenter=SegmenterConfig(model="tiny"),
    )
    predict = PredictConfig(input="", output="", student="")
    plan: Any = SimpleNamespace(label=label, predict=predict, train=TrainConfig(images="", output=""))
    resources = Resources(nodes=(node,))
    estimate._label(plan, SimpleNamespace(name="label"), images, resources)  # type: ignore[arg-type]
    estimate._predict(plan, SimpleNamespace(name="predict"), images, resources)  # type: ignore[arg-type]
    ((labelling, *_), (_, prediction, _)) = timed
    for settings in (labelling.detector, labelling.segmenter, prediction):
        assert (settings.device, settings.precision) == (device, precision)
