"""The labelling job: label image shards by their tags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.resources import Resources
from wsss_ray.engine.stage import StageSpec
from wsss_ray.labelling.plan import decided, describe_models, identity, stage_specs
from wsss_ray.labelling.sample import describe_prompts
from wsss_ray.labelling.weights import check_weights
from wsss_ray.labels.job import LabelJob
from wsss_ray.labels.sink import LabelSink, writes_grey
from wsss_ray.models.cost.counted import seconds_per_image
from wsss_ray.models.cost.gpus import find_gpu
from wsss_ray.shards.image_shards import check_label_space, read_shard_set
from wsss_ray.storage.storage import Storage

DRY_RUN_SECONDS = 60.0
"""How long a dry run waits for a node's checks."""


def run(config: LabelConfig) -> dict[str, Any]:
    """Label all images of `config.input` that have no label in `config.output` yet.

    Returns:
        The summary over all sessions, as `summary.json` holds it; empty for a dry run.

    Raises:
        ValueError: input, output or configuration cannot be used together; nothing was changed.
        JobError: the run stopped early or units could not be read; finished units are kept.
    """
    check_output(config, job="label")
    images = Storage(config.input, config.storage)
    classes = ClassSet.load(config.classes, assist_words=config.assist_words)
    shards = read_shard_set(images)
    check_label_space(shards, classes)
    grey = writes_grey(config.png_palette, classes)
    sink = LabelSink(output=Storage(config.output, config.storage), classes=classes, png=config.png, grey=grey)
    return _LabellingJob(config=config, images=images, shards=shards, sink=sink).run()


@dataclass(frozen=True, kw_only=True)
class _LabellingJob(LabelJob[LabelConfig]):
    done_word: ClassVar[str] = "labelled"

    def decided(self, *, has_gpus: bool, has_bfloat16: bool) -> _LabellingJob:
        return replace(self, config=decided(self.config, has_gpus=has_gpus, has_bfloat16=has_bfloat16))

    def identity(self) -> dict[str, Any]:
        return identity(self.config, self.sink.classes, self.shards)

    def stages(self, resources: Resources) -> tuple[StageSpec, ...]:
        check_weights(self.config)
        return stage_specs(self.config, self.sink.classes, self.shards, resources)

    def describe_models(self) -> list[str]:
        return describe_models(self.config, self.sink.classes)

    def describe_rows(self, rows: pa.Table) -> list[str]:
        return describe_prompts(self.config, self.sink.classes, rows)

    def check_nodes(self) -> None:
        from wsss_ray.doctor.check import report_nodes  # noqa: PLC0415 - only a dry run needs it

        report_nodes(self.config, timeout=DRY_RUN_SECONDS)

    def expected_seconds(self, device: str) -> float | None:
        settings = self.config.segmenter
        gpu = find_gpu(device)
        is_counted = (self.config.detector.type, settings.type) == ("grounding-dino", "sam")
        if gpu is None or not is_counted or settings.model == "tiny":
            return None
        return seconds_per_image(
            gpu, settings.model, detector=self.config.detector.precision, segmenter=settings.precision
        )

    def rows_with_work(self, rows: pa.Table) -> pa.Table:
        return rows.filter([bool(tags) for tags in rows["tags"].to_pylist()])
