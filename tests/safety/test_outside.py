"""Ids and class names of other people's making end in files below the output, or nowhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from made_runs import Made, image_row, instance, label_row, write_run

from wsss_ray.classes import ClassSet
from wsss_ray.config import ExportConfig, ReportConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.export.job import run as run_export
from wsss_ray.report import job as report
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import read_shard_set, read_unit
from wsss_ray.shards.label_files import encode_labels, read_labels
from wsss_ray.shards.schemas import IMAGE_SCHEMA, LABEL_SCHEMA
from wsss_ray.storage.storage import Storage

LABEL = np.pad(np.full((30, 30), 1, np.uint8), 5)
HOSTILE_IDS = ["../../evil", "/etc/evil", "a/b", "..", ".hidden", "a\0b", "", "x" * 300, "a\nb"]


@pytest.mark.parametrize("image_id", HOSTILE_IDS)
def test_a_shard_with_a_hostile_id_is_refused(tmp_path: Path, image_id: str) -> None:
    """Its digest is right: whoever made it can compute one."""
    classes = ClassSet.load("voc")
    made = Made(image_id=image_id, label=LABEL, tags=["dog"])
    storage = Storage(str(tmp_path))
    rows = pa.Table.from_pylist([image_row(made, None)], schema=IMAGE_SCHEMA)
    data = encode_image_shard([rows], exif="apply", label_space=classes.label_space_digest, classes="voc")
    storage.write(shard_name(0, 1), data)
    (unit,) = read_shard_set(storage).units
    with pytest.raises(ShardError, match="is no image id"):
        read_unit(storage, unit)
    labels = pa.Table.from_pylist([label_row(made, classes, None)], schema=LABEL_SCHEMA)
    storage.write(unit.label_path, encode_labels(labels, unit, {}))
    with pytest.raises(ShardError, match="is no image id"):
        read_labels(storage, unit)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes have names that would be paths and markup."""
    root = tmp_path_factory.mktemp("hostile") / "deep" / "deeper"
    root.mkdir(parents=True)
    names = ["../../evil", str(root.parent / "evil"), "<script>alert(1)</script>", "con\\..\\evil"]
    (root / "classes.yaml").write_text(yaml.safe_dump({"name": "hostile", "classes": {name: {} for name in names}}))
    classes = ClassSet.load(str(root / "classes.yaml"))
    made = [
        Made(
            image_id=f"image-{i}",
            label=LABEL * np.uint8(i + 1),
            tags=[name],
            instances=[instance(i + 1, LABEL > 0, phrase=name)],
        )
        for i, name in enumerate(names)
    ]
    write_run(Storage(str(root / "images")), Storage(str(root / "labels")), [made], classes=classes)
    return root


def outside(root: Path, output: Path) -> dict[str, int]:
    """Files around the output, with their times."""
    found = {str(path): path.stat().st_mtime_ns for path in root.parent.parent.rglob("*") if path.is_file()}
    return {path: time for path, time in found.items() if not Path(path).is_relative_to(output)}


FORMATS = ["voc", "coco-instances", "coco-panoptic", "coco-semantic", "yolo-seg", "huggingface"]


@pytest.mark.parametrize("name", [*FORMATS, "gallery"])
def test_class_names_are_no_paths(hostile: Path, local_ray: Resources, name: str) -> None:
    output = hostile / f"out-{name}"
    before = outside(hostile, output)
    common = {
        "labels": str(hostile / "labels"),
        "images": str(hostile / "images"),
        "classes": str(hostile / "classes.yaml"),
        "output": str(output),
    }
    if name == "gallery":
        report.run(ReportConfig(**common))
        pages = "".join(path.read_text() for path in output.rglob("*.html"))
        assert "<script>alert(1)" not in pages
    else:
        run_export(ExportConfig(**common, format=name))  # type: ignore[arg-type]
    assert outside(hostile, output) == before
    written = [path for path in output.rglob("*") if path.is_file()]
    assert written
    assert not any("evil" in str(path.relative_to(output)) or "script>" in path.name for path in written)
