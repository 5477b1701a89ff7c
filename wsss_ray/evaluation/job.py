"""The evaluation job: compare labels with their truth, in one exact confusion matrix over all units."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig
from wsss_ray.datasets.manifest import read_text
from wsss_ray.datasets.voc_list import parse_split_list
from wsss_ray.engine.cluster import connect_for, warn_of_local_paths
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.progress import Progress
from wsss_ray.errors import JobError
from wsss_ray.evaluation.confusion_image import draw_confusion
from wsss_ray.evaluation.image import ImageEvaluator
from wsss_ray.evaluation.instances import InstanceRule
from wsss_ray.evaluation.result import Evaluation, conclude
from wsss_ray.evaluation.tables import format_tables
from wsss_ray.evaluation.tally import FAILED, IMAGES_SCHEMA, MISSING, Tally
from wsss_ray.evaluation.truths import CocoTruth, pack_by_unit
from wsss_ray.evaluation.unit import UnitEvaluator
from wsss_ray.labels.inputs import PngFolder, check_names, find_labels, find_pngs, nothing_matches
from wsss_ray.labels.run import damage_error
from wsss_ray.labels.scores import ClassIndex
from wsss_ray.shards.image_shards import ShardSet, check_label_space, count_rejected, read_shard_set
from wsss_ray.storage.json_files import encode_json
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage

RESULT_FILE = "evaluation.json"
TABLE_FILE = "evaluation.txt"
CONFUSION_FILE = "confusion.png"
IMAGES_FILE = "images.parquet"

UNITS_PER_TASK = 8
"""About a second of work: the 32 images of a unit take about 0.15 s."""


def run(config: EvaluateConfig) -> Evaluation:
    """Evaluate labels, write the tables to `config.output`, and return them.

    Memory holds the sums, and a row of about 150 bytes per image (see IMAGES_SCHEMA).

    Raises:
        ValueError: labels, images and truth do not fit together.
        JobError: the job broke off, label files are damaged, or labels are missing and `missing` is "error".
    """
    check_output(config, job="evaluate")
    classes = ClassSet.load(config.classes)
    images = Storage(config.images, config.storage)
    shards = read_shard_set(images)
    check_label_space(shards, classes)
    evaluator = _make_evaluator(config, classes, images, shards)
    folder = evaluator.truths if isinstance(evaluator.truths, PngFolder) else None
    check_names(images, shards, subset=evaluator.subset, truths=folder, labels=evaluator.labels)
    packed = None
    if config.coco_annotations is not None:
        packed = pack_by_unit(config, classes, images, shards, evaluator.subset)
    output = Storage(config.output, config.storage)
    output.sweep()
    tally = Tally.zero(evaluator.evaluator.index.count)
    tables: dict[int, pa.Table] = {}
    damaged: dict[str, str] = {}
    progress = Progress(total=shards.rows, done=0, every_seconds=config.status_seconds)
    with connect_for(shards.rows, config.ray) as resources, progress.printing():
        warn_of_local_paths(resources, images, Storage(config.labels, config.storage))
        for index, result in map_units(
            shards.units,
            evaluator,
            config=config.ray,
            resources=resources,
            units_per_task=UNITS_PER_TASK,
            attachments=packed,
        ):
            tally.add(result.tally)
            tables[index] = result.images
            if result.damage is not None:
                damaged[shards.units[index].name] = result.damage
            failed = sum(state in {MISSING, FAILED} for state in result.images["state"].to_pylist())
            progress.add(shards.units[index].rows, failed=failed)
        rate = progress.rate
    rows = pa.concat_tables([IMAGES_SCHEMA.empty_table(), *(tables[index] for index in sorted(tables))])
    evaluation = conclude(
        tally,
        rows,
        evaluator.evaluator.index,
        split=config.split,
        class_set=classes.name,
        boundary=config.boundary,
        instance_rule=_instance_rule(config, tally),
        resamples=config.bootstrap,
        seed=config.seed,
        subset=evaluator.subset,
        rejected=count_rejected(images),
        images_per_second=rate,
    )
    _check_evaluated(evaluation, evaluator, rows)
    _write(evaluation, rows, config, output)
    print(format_tables(evaluation), flush=True)
    print(f"{evaluation.images_per_second:.0f} images/s; tables in {output.describe(RESULT_FILE)}", flush=True)
    unlabelled = len(evaluation.missing) + len(evaluation.failed) + len(evaluation.not_in_shards)
    if config.missing == "error" and unlabelled:
        raise JobError(
            f"{unlabelled:,} images have no usable label or are not in the image shards, and --missing is error. "
            f"{output.describe(RESULT_FILE)} lists them."
        )
    if (error := damage_error(damaged)) is not None:
        raise error
    return evaluation


def _make_evaluator(config: EvaluateConfig, classes: ClassSet, images: Storage, shards: ShardSet) -> UnitEvaluator:
    truths: PngFolder | CocoTruth | None = None
    if config.coco_annotations is not None:
        truths = CocoTruth(classes=classes, order=config.coco_order, crowd=config.coco_crowd)
    elif config.truth is not None:
        truths = find_pngs(Storage(config.truth, config.storage), what="truth PNGs named by image id")
    elif not shards.has_truth:
        raise ValueError(
            f"the image shards in {images.uri} hold no truth: give --truth FOLDER of PNGs named by image id, or "
            "--coco-annotations INSTANCES.json, or recreate the shards with a truth (wsss-ray shard --help)."
        )
    subset = None
    if config.subset is not None:
        text = read_text(config.subset, config.storage, what="list of image ids")
        subset = frozenset(entry.voc_id for entry in parse_split_list(text, config.subset))
    return UnitEvaluator(
        images=images,
        labels=find_labels(Storage(config.labels, config.storage), shards, instances=config.instances),
        truths=truths,
        evaluator=ImageEvaluator(
            index=ClassIndex.of(classes),
            ignore_id=classes.ignore_id,
            boundary_ratio=config.boundary_ratio if config.boundary else None,
            smallest_object=config.smallest_object if config.instances else None,
        ),
        palette=classes.palette() if classes.label_dtype is np.uint8 else None,
        subset=subset,
        skip_missing=config.missing == "skip",
    )


def _instance_rule(config: EvaluateConfig, tally: Tally) -> InstanceRule | None:
    if not config.instances:
        return None
    return InstanceRule(
        truth="components" if config.coco_annotations is None else "coco",
        smallest=config.smallest_object,
        by_instances=tally.by_instances,
        by_components=tally.by_components,
    )


def _check_evaluated(evaluation: Evaluation, evaluator: UnitEvaluator, rows: pa.Table) -> None:
    """Raise a ValueError where nothing was evaluated: no usable truth, or no label of an image that has one."""
    skipped = len(evaluation.skipped)
    if evaluation.images == 0 and skipped == rows.num_rows - len(evaluation.no_truth) - len(evaluation.bad_truth):
        raise ValueError(f"none of the {rows.num_rows:,} images has a label, and --missing is skip.")
    if evaluation.images == 0:
        reason = next(iter(evaluation.bad_truth.items()), None)
        bad = f"; the first that cannot be used is {reason[0]}: {reason[1]}" if reason else ""
        raise ValueError(f"none of the {rows.num_rows:,} images has a usable truth{bad}.")
    if isinstance(evaluator.labels, PngFolder) and len(evaluation.missing) == evaluation.images:
        raise ValueError(nothing_matches(evaluator.labels, rows["image_id"][0].as_py(), what="labels"))


def _write(evaluation: Evaluation, rows: pa.Table, config: EvaluateConfig, output: Storage) -> None:
    """Write the files; the JSON file comes last and marks them as complete."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    output.write(IMAGES_FILE, buffer.getvalue())
    output.write(CONFUSION_FILE, draw_confusion(evaluation))
    output.write(TABLE_FILE, (format_tables(evaluation) + "\n").encode())
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("storage", "ray")}
    content = {**evaluation.to_json(), "config": settings}
    text = masked(json.dumps(content, ensure_ascii=False, allow_nan=False))
    output.write(RESULT_FILE, encode_json(json.loads(text)))
