"""The stages and the sink without Ray: label spaces of every width, and equal rows in both placements."""

from __future__ import annotations

import io
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from label_runs import image_rows
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.images.label_png import decode_label
from wsss_ray.images.rle import decode_mask
from wsss_ray.labelling.stages import DetectStage, LabelStage, SegmentStage
from wsss_ray.labels.sink import LabelSink
from wsss_ray.shards.label_files import encode_labels, read_label_counts, read_labels
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

UNIT = Unit(shard="shard-00000-of-00001.parquet", row_group=0, rows=1, digest="ab" * 32, exif="ignore")
Configure = Callable[..., LabelConfig]


def many_classes(count: int) -> ClassSet:
    letters = string.ascii_lowercase
    return ClassSet.from_names([f"{letters[i // 26]}{letters[i % 26]}" for i in range(count)], name=f"{count} classes")


def rows_with_error(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["source", "truth"]).append_column("error", pa.nulls(rows.num_rows, pa.string()))


@pytest.mark.parametrize(
    ("count", "dtype", "ignore"),
    [(254, np.uint8, 255), (255, np.uint16, 65535), (256, np.uint16, 65535), (300, np.uint16, 65535)],
)
def test_labels_are_as_wide_as_the_class_set_needs(
    photo_rows: pa.Table, configure: Configure, tmp_path: Path, count: int, dtype: type, ignore: int
) -> None:
    classes = many_classes(count)
    config = configure("in", tmp_path)
    config = replace(config, detector=replace(config.detector, box_threshold=0.05))
    row = photo_rows.slice(0, 1).to_pylist()[0]
    row["tags"] = list(classes.names[-3:])
    rows = pa.Table.from_pylist([row], schema=photo_rows.schema)
    labelled = LabelStage(config, classes, "ignore")(rows_with_error(rows), Meter())
    sink = LabelSink(output=Storage(str(tmp_path)), classes=classes, png=True, grey=False)
    counts = sink.commit(UNIT, labelled, version=None)
    label = decode_label(read_labels(sink.output, UNIT)["label"][0].as_py())
    assert classes.ignore_id == ignore
    assert label.dtype == dtype
    painted = set(np.unique(label)) - {0}
    assert painted
    assert painted <= {count - 2, count - 1, count}
    assert sum(entry["pixels"] for entry in counts["classes"].values()) == np.count_nonzero(label)
    with Image.open(tmp_path / "png" / f"{row['image_id']}.png") as png:
        assert png.mode == ("P" if dtype is np.uint8 else "I;16")
        assert np.array_equal(np.array(png), label)


def test_both_placements_give_the_same_rows(photo_rows: pa.Table, configure: Configure) -> None:
    config, classes = configure("in", "out"), ClassSet.load("voc")
    rows = rows_with_error(photo_rows.slice(0, 3))
    fused = LabelStage(config, classes, "ignore")(rows, Meter())
    split = SegmentStage(config, classes, "ignore")(DetectStage(config, classes, "ignore")(rows, Meter()), Meter())
    assert fused.equals(split)
    assert sum(len(instances) for instances in fused["instances"].to_pylist()) >= 3


def test_images_without_boxes_are_background_and_name_their_tags(
    photo_rows: pa.Table, configure: Configure, tmp_path: Path
) -> None:
    config, classes = configure("in", "out"), ClassSet.load("voc")
    strict = replace(config, detector=replace(config.detector, box_threshold=0.999))
    labelled = LabelStage(strict, classes, "ignore")(rows_with_error(photo_rows.slice(0, 3)), Meter())
    sink = LabelSink(output=Storage(str(tmp_path)), classes=classes, png=False, grey=False)
    unit = replace(UNIT, rows=3)
    assert sink.commit(unit, labelled, version=None)["statuses"] == {"no_detections": 3}
    for row in read_labels(sink.output, unit).to_pylist():
        assert row["status"] == "no_detections"
        assert row["undetected_tags"] == row["tags"]
        assert not decode_label(row["label"]).any()


@pytest.mark.parametrize("paint", ["detection", "score", "area", "prob"])
def test_the_label_is_the_join_of_the_instances(photo_rows: pa.Table, configure: Configure, paint: str) -> None:
    config, classes = configure("in", "out"), ClassSet.load("voc")
    config = replace(config, fusion=replace(config.fusion, paint=paint))
    row = LabelStage(config, classes, "ignore")(rows_with_error(photo_rows.slice(1, 1)), Meter()).to_pylist()[0]
    covered = np.zeros((row["height"], row["width"]), bool)
    last = np.zeros(covered.shape, np.uint8)
    for instance in row["instances"]:
        mask = decode_mask(instance["mask"]["counts"], row["height"], row["width"])
        covered |= mask
        last[mask] = instance["class_id"]
    label = decode_label(row["label"])
    assert covered.any()
    assert np.array_equal(label > 0, covered)
    if paint == "detection":
        assert np.array_equal(label, last)


def test_exif_rule_of_the_shards_decides_how_an_image_is_read(configure: Configure, photo_rows: pa.Table) -> None:
    with Image.open(io.BytesIO(photo_rows["image"][0].as_py())) as photo:
        exif = photo.getexif()
        exif[0x0112] = 6
        stream = io.BytesIO()
        photo.crop((0, 0, 200, 100)).save(stream, "JPEG", exif=exif)
    rows = image_rows({"turned": (stream.getvalue(), ["dog"])})
    config, classes = configure("in", "out"), ClassSet.load("voc")
    stage = LabelStage(config, classes, "apply")
    wrong = stage(rows_with_error(rows), Meter()).to_pylist()[0]
    assert wrong["error"] == "decode: wrong size: the image is 100 x 200, its row says 200 x 100"
    turned = rows.set_column(3, "height", pa.array([200], pa.int32())).set_column(
        4, "width", pa.array([100], pa.int32())
    )
    right = stage(rows_with_error(turned), Meter()).to_pylist()[0]
    assert decode_label(right["label"]).shape == (200, 100)


def test_a_retry_yields_to_a_writer_that_came_first(photo_rows: pa.Table, configure: Configure, tmp_path: Path) -> None:
    config, classes = configure("in", tmp_path), ClassSet.load("voc")
    labelled = LabelStage(config, classes, "ignore")(rows_with_error(photo_rows.slice(0, 1)), Meter())
    sink = LabelSink(output=Storage(str(tmp_path)), classes=classes, png=False, grey=False)
    sink.commit(UNIT, labelled, version=None)
    old = sink.output.list("labels")[f"{UNIT.name}.parquet"].version
    first = read_labels(sink.output, UNIT)
    counts = read_label_counts(sink.output, UNIT)
    sink.output.write(UNIT.label_path, encode_labels(first, UNIT, {**counts, "images": 77}))
    failed = labelled.set_column(labelled.schema.get_field_index("error"), "error", pa.array(["label: late"]))
    assert sink.commit(UNIT, failed, version=old)["images"] == 77
    assert read_labels(sink.output, UNIT).equals(first)
