"""The prediction job: predict image shards with a trained student; the output has the form of a labelling run."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from wsss_ray.config import PredictConfig
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.resources import Resources, check_pools, model_pool, without_gpus
from wsss_ray.engine.stage import Stage, StageSpec
from wsss_ray.labels.decoded_images import Exif
from wsss_ray.labels.job import LabelJob
from wsss_ray.labels.sink import writes_grey
from wsss_ray.models.precision import decide
from wsss_ray.prediction.sink import PredictionSink
from wsss_ray.prediction.student_file import KnownStudent, find_student
from wsss_ray.shards.image_shards import ShardSet, read_shard_set
from wsss_ray.storage.storage import Storage

ALGORITHM_VERSION = 1
"""Incremented when a change of the code changes predictions on purpose."""


def run(config: PredictConfig) -> dict[str, Any]:
    """Predict all images of `config.input` that have no row in `config.output` yet.

    Returns:
        The summary over all sessions, as `summary.json` holds it; empty for a dry run.

    Raises:
        ValueError: input, student, output or configuration cannot be used together; nothing was changed.
        JobError: the run was interrupted or units could not be read; finished units are kept.
    """
    check_output(config, job="predict")
    images = Storage(config.input, config.storage)
    shards = read_shard_set(images)
    student = find_student(config.student, config.storage)
    _check_classes(shards, student)
    sink = PredictionSink(
        output=Storage(config.output, config.storage),
        classes=student.classes,
        png=config.png,
        grey=writes_grey(config.png_palette, student.classes),
        soft=config.soft,
    )
    return _PredictionJob(config=config, images=images, shards=shards, sink=sink, student=student).run()


def _check_classes(shards: ShardSet, student: KnownStudent) -> None:
    if student.spec.label_space != shards.label_space:
        raise ValueError(
            f"the student {student.uri} knows the classes of '{student.spec.class_set}', but the shards were made with "
            f"class set '{shards.classes}', which has other names or ids. Make the shards with --classes "
            f"{student.spec.class_set}, or give a student of '{shards.classes}'."
        )


@dataclass(frozen=True, kw_only=True)
class _PredictionJob(LabelJob[PredictConfig]):
    student: KnownStudent

    done_word: ClassVar[str] = "predicted"

    def decided(self, *, has_gpus: bool, has_bfloat16: bool) -> _PredictionJob:
        config = decide(self.config, has_gpus=has_gpus, has_bfloat16=has_bfloat16)
        return replace(
            self, config=replace(config, ray=config.ray if config.device == "cuda" else without_gpus(config.ray))
        )

    def identity(self) -> dict[str, Any]:
        config, spec = self.config, self.student.spec
        return {
            "algorithm": ALGORITHM_VERSION,
            "classes": {"name": spec.class_set, "label_space": spec.label_space},
            "student": {
                "architecture": spec.architecture,
                "scales": list(spec.scales),
                "weights": self.student.digest,
                "device": config.device,
                "precision": config.precision,
                "flip": config.flip,
            },
            "crf": dataclasses.asdict(config.crf_settings) if config.crf else "off",
            "longest_side": config.longest_side,
            "tags_only": config.tags_only,
            "soft": {"threshold": config.soft_threshold} if config.soft else "off",
            "shards": self.shards.digest,
        }

    def stages(self, resources: Resources) -> tuple[StageSpec, ...]:
        pool = model_pool(self.config.ray, resources)
        check_pools([pool], resources, self.config.ray)
        make = functools.partial(
            _make_stage, self.config, self.student.uri, self.shards.units[0].exif, self.student.sha256
        )
        return (StageSpec(name="predict", make=make, pool=pool),)

    def describe_models(self) -> list[str]:
        spec, config, crf = self.student.spec, self.config, self.config.crf_settings
        scales = " ".join(f"{scale:g}" for scale in spec.scales)
        size = "own size" if config.longest_side is None else f"at most {config.longest_side} pixels a side"
        settings = f"scales {scales}, flip {'on' if config.flip else 'off'}, {size}"
        refined = (
            f"{crf.iterations} iterations; positions: weight {crf.position_weight:g}, width {crf.position_width:g}; "
            f"with colors: weight {crf.bilateral_weight:g}, widths {crf.xy_width:g} and {crf.rgb_width:g}"
        )
        return [
            f"classes   {spec.class_set}: {len(spec.class_names) - 1} and background"
            + (", for each image only those of its tags" if config.tags_only else ""),
            f"student   {self.student.uri}: {spec.architecture}, {settings}",
            f"crf       {refined if config.crf else 'off'}",
        ]

    def rows_with_work(self, rows: pa.Table) -> pa.Table:
        if not self.config.tags_only:
            return rows
        return rows.filter([bool(tags) for tags in rows["tags"].to_pylist()])


def _make_stage(config: PredictConfig, student: str, exif: Exif, sha256: str | None) -> Stage:
    from wsss_ray.prediction.stage import PredictStage  # noqa: PLC0415 - the driver runs no model

    return PredictStage(config, student, exif, sha256=sha256)
