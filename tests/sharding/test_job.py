"""The shard job on real photos and edge cases: complete, deterministic, resumable, and what it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import deadly_rows
import numpy as np
import pytest
import ray
import ray.cloudpickle
from faulty_s3 import FaultyS3
from PIL import Image
from repository import REPOSITORY
from sharding_cases import all_rows, folder_config, rejected_rows, write_photos

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.folder import FolderSource
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.images.label_png import decode_label
from wsss_ray.sharding import job as sharding
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.storage import Storage

EDGE = json.loads((REPOSITORY / "tests/images/edge_expectations.json").read_text(encoding="utf-8"))


def test_a_folder_becomes_shards_once(tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete and deterministic; a rerun does nothing, or only what is missing."""
    root = write_photos(tmp_path / "in", 90, broken=(7, 60))
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    options = {"shard_mb": 1, "images_per_unit": 8, "max_pixels": 400_000_000}
    config = folder_config(root, tmp_path / "out", **options)
    summary = sharding.run(config)
    assert (summary.images, summary.rows, summary.rejected, summary.skipped) == (91, 88, 3, 0)
    assert summary.reasons == {"decode: not an image": 2, "read: absent": 1}
    assert summary.tags["dog"] == 88
    assert summary.shards == 3
    out = tmp_path / "out"
    rows = all_rows(out)
    assert [row["image_id"] for row in rows] == sorted({path.stem for path in root.iterdir()} - {"007", "060", "gone"})
    assert all(row["image"] == (root / row["source"]).read_bytes() for row in rows)
    assert {unit.max_pixels for unit in read_shard_set(Storage(str(out))).units} == {400_000_000}, "for later jobs"
    assert {row["source"] for row in rejected_rows(out)} == {"007.png", "060.png", "gone.png"}
    assert json.loads((out / "summary.json").read_text())["rows"] == 88

    shards = {path.name: path.read_bytes() for path in out.glob("shard-*.parquet")}
    other = tmp_path / "other"
    sharding.run(folder_config(root, other, **options))
    assert {path.name: path.read_bytes() for path in other.glob("shard-*.parquet")} == shards

    left = [out / f".summary.json.{'0' * 32}.tmp", out / f"reports/.shard.json.{'0' * 32}.tmp"]
    for path in left:
        path.touch()
    (out / "shard-00001-of-00003.parquet").unlink()
    (out / "reports/shard-00002-of-00003.json").unlink()
    first = (out / "shard-00000-of-00003.parquet").stat().st_mtime_ns
    assert sharding.run(config) == summary
    assert {path.name: path.read_bytes() for path in out.glob("shard-*.parquet")} == shards
    assert (out / "shard-00000-of-00003.parquet").stat().st_mtime_ns == first
    assert len(rejected_rows(out)) == 3
    assert not any(path.exists() for path in left), "what killed writers left is removed"

    def no_ray(*_: object) -> None:
        raise AssertionError("a finished set needs no Ray")

    monkeypatch.setattr(sharding, "connect_for", no_ray)
    assert sharding.run(config) == summary
    (out / "summary.json").write_bytes(b"[")
    assert sharding.run(config) == summary, "from the reports"
    assert json.loads((out / "summary.json").read_text())["rows"] == 88


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("shard-00000-of-00001.parquet", lambda path: path.write_bytes(b"")),
        ("shard-00000-of-00001.parquet", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("shard-00000-of-00001.parquet", lambda path: flip(path, -6)),
        ("shard-00000-of-00001.parquet", lambda path: flip(path, -2000)),
        ("shard-00000-of-00001.parquet", lambda path: flip(path, path.stat().st_size // 2)),
        ("reports/shard-00000-of-00001.json", lambda path: path.write_bytes(b"{")),
        ("reports/shard-00000-of-00001.json", lambda path: path.write_bytes(b"[" * 100_000)),
        ("reports/shard-00000-of-00001.json", lambda path: flip(path, path.read_bytes().index(b'"truth": 0') + 9)),
        ("reports/shard-00000-of-00001.json", lambda path: path.write_bytes(b"\xff{}")),
    ],
)
def test_a_damaged_shard_or_report_is_written_again(
    tmp_path: Path,
    local_ray: Resources,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: Callable[[Path], object],
) -> None:
    root = write_photos(tmp_path / "in", 4, broken=(2,))
    config = folder_config(root, tmp_path / "out")
    summary = sharding.run(config)
    whole = (tmp_path / "out" / file).read_bytes()
    damage(tmp_path / "out" / file)
    assert sharding.run(config) == summary
    assert (tmp_path / "out" / file).read_bytes() == whole
    line = next(line for line in capsys.readouterr().out.splitlines() if "is replaced: " in line)
    assert line.startswith("shard-00000-of-00001.parquet is replaced: ")
    assert f"/out/{file}" in line


def test_the_first_rejects_and_unlisted_images_are_named(
    tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_photos(tmp_path / "in", 14, broken=tuple(range(6)))
    table = tmp_path / "tags.csv"
    table.write_text("file,tags\n000.PNG,dog\n" + "".join(f"{number:03d}.png,dog\n" for number in range(1, 8)))
    sharding.run(folder_config(root, tmp_path / "out", tags=str(table), tags_for_all=()))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    start = lines.index("000.PNG: read: absent: no such file; there is 000.png")
    assert lines[start + 1].startswith("001.png: decode: not an image")
    assert lines[start + 5] == "and 1 more"
    assert lines[start + 6].split(maxsplit=2) == ["not", "listed", "7 images on disk are not in the tag file"]
    assert lines[start + 7 : start + 13] == ["000.png", "008.png", "009.png", "010.png", "011.png", "and 2 more"]


def test_another_configuration_is_refused_with_the_fields(tmp_path: Path, local_ray: Resources) -> None:
    root = write_photos(tmp_path / "in", 3)
    sharding.run(folder_config(root, tmp_path / "out"))
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        sharding.run(folder_config(root, tmp_path / "out", shard_mb=1, exif="ignore", tags_for_all=("cat",)))
    assert str(caught.value).splitlines()[1:] == [
        '  exif: "apply" -> "ignore"',
        "  shard_mb: 256 -> 1",
        "  tags: the images have other tags",
    ]
    with pytest.raises(ValueError, match="classes: their names or ids differ"):
        sharding.run(folder_config(root, tmp_path / "out", classes="coco"))
    (root / "001.png").unlink()
    with pytest.raises(ValueError, match=r"images: other images are listed \(ids, paths or sizes\)"):
        sharding.run(folder_config(root, tmp_path / "out"))


def test_phrases_and_places_of_the_files_may_differ(tmp_path: Path, local_ray: Resources) -> None:
    root = write_photos(tmp_path / "in", 3)
    summary = sharding.run(folder_config(root, tmp_path / "out"))
    shutil.copytree(root, tmp_path / "copy")
    assert sharding.run(folder_config(tmp_path / "copy", tmp_path / "out", classes="voc-raw")) == summary


def test_shards_of_unknown_origin_are_not_joined(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/shard-00000-of-00001.parquet").touch()
    with pytest.raises(ValueError, match=r"holds files, but no shards.json"):
        sharding.run(folder_config(root, tmp_path / "out"))


def test_nothing_to_do_is_an_error_that_says_why(tmp_path: Path, local_ray: Resources) -> None:
    root = write_photos(tmp_path / "in", 2, broken=(0, 1))
    with pytest.raises(JobError, match=r"none of the 2 images became a row; most often: decode: not an image"):
        sharding.run(folder_config(root, tmp_path / "out"))
    assert len(rejected_rows(tmp_path / "out")) == 2
    (tmp_path / "tags.csv").write_text("file,tags\n000.png,\n")
    options = {"tags": str(tmp_path / "tags.csv"), "tags_for_all": (), "untagged": "skip"}
    with pytest.raises(ValueError, match="none of the 1 images has a tag"):
        sharding.run(folder_config(root, tmp_path / "skip", **options))


def test_every_edge_file_is_a_row_or_rejected_with_its_reason(
    shared: Path, tmp_path: Path, local_ray: Resources
) -> None:
    with (tmp_path / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "tags"])
        writer.writerows([name, "sheep;person"] for name in EDGE)
    config = folder_config(
        shared / "data/edge", tmp_path / "out", tags=str(tmp_path / "tags.csv"), tags_for_all=(), shard_mb=3
    )
    summary = sharding.run(config)
    assert summary.images == summary.rows + summary.rejected == 92
    rows = {row["source"]: row for row in all_rows(tmp_path / "out")}
    reasons = {row["source"]: row["reason"] for row in rejected_rows(tmp_path / "out")}
    for name, expected in EDGE.items():
        if expected["status"] == "ok":
            assert [rows[name]["height"], rows[name]["width"]] == expected["size"], name
            assert rows[name]["image"] == (shared / "data/edge" / name).read_bytes()
        else:
            assert reasons[name].startswith(expected["reason"]), name
    assert len({row["image_id"] for row in rows.values()}) == len(rows)


def test_real_voc_photos(shared: Path, tmp_path: Path, local_ray: Resources) -> None:
    voc = shared / "data/voc/VOCdevkit/VOC2012"
    ids = (voc / "ImageSets/Segmentation/train.txt").read_text().split()[:10]
    (tmp_path / "ten.txt").write_text("\n".join(ids))
    config = ShardConfig(
        input=str(voc.parent),
        output=str(tmp_path / "out"),
        source="voc",
        split=str(tmp_path / "ten.txt"),
        tags=str(shared / "data/voc/cls_labels.npy"),
        voc_truth="SegmentationClass",
    )
    summary = sharding.run(config)
    assert (summary.rows, summary.truth) == (10, 10)
    shard_set = read_shard_set(Storage(config.output))
    assert shard_set.has_truth
    assert {unit.exif for unit in shard_set.units} == {"ignore"}
    for row in all_rows(config.output):
        assert row["image"] == (voc / f"JPEGImages/{row['image_id']}.jpg").read_bytes()
        label = np.asarray(Image.open(voc / f"SegmentationClass/{row['image_id']}.png"))
        np.testing.assert_array_equal(decode_label(row["truth"]), label)
        assert (row["height"], row["width"]) == label.shape

    from_masks = ShardConfig(
        input=config.input,
        output=str(tmp_path / "masks"),
        source="voc",
        split=config.split,
        voc_tags="masks",
        voc_truth="SegmentationClass",
    )
    sharding.run(from_masks)
    by_mask = {row["image_id"]: row["tags"] for row in all_rows(from_masks.output)}
    by_list = {row["image_id"]: row["tags"] for row in all_rows(config.output)}
    assert sum(by_mask[voc_id] == by_list[voc_id] for voc_id in ids) >= 8


def test_real_coco_photos_in_both_orders(shared: Path, tmp_path: Path, local_ray: Resources) -> None:
    """Twelve photos with one more annotation each: a rectangle over the whole picture, listed last."""
    coco = shared / "data/coco"
    content = json.loads((coco / "annotations/instances_val2017.json").read_text(encoding="utf-8"))
    images = content["images"][:12]
    kept = {image["id"] for image in images}
    records = [record for record in content["annotations"] if record["image_id"] in kept]
    frames = [
        {
            "image_id": image["id"],
            "category_id": 67,
            "segmentation": [[0, 0, image["width"], 0, image["width"], image["height"], 0, image["height"]]],
        }
        for image in images
    ]
    (tmp_path / "instances.json").write_text(
        json.dumps({**content, "images": images, "annotations": [*records, *frames]})
    )
    table = ClassSet.load("coco").by_name["dining table"].id
    labels: dict[str, dict[str, np.ndarray]] = {}
    for order in ("area", "json"):
        config = ShardConfig(
            input=str(coco / "images/val2017"),
            output=str(tmp_path / order),
            source="coco",
            annotations=str(tmp_path / "instances.json"),
            order=order,  # type: ignore[arg-type]
        )
        summary = sharding.run(config)
        assert (summary.rows, summary.truth, summary.tags["dining table"]) == (12, 12, 12), "COCO's own class set"
        labels[order] = {row["image_id"]: decode_label(row["truth"]) for row in all_rows(config.output)}
    assert all((label == table).all() for label in labels["json"].values())
    with_objects = [label for label in labels["area"].values() if len(np.unique(label)) > 1]
    assert len(with_objects) >= 10


def test_on_a_failing_s3(failing_s3: FaultyS3, tmp_path: Path, local_ray: Resources) -> None:
    root = write_photos(tmp_path / "in", 6, broken=(2,))
    source = Storage(failing_s3.uri("sharding/in"), failing_s3.config)
    for path in root.iterdir():
        source.write(f"sub/{path.name}", path.read_bytes())
    lines = [json.dumps({"file": f"sub/{number:03d}.png", "tags": ["dog"]}) for number in range(7)]
    source.write("tags.jsonl", "\n".join(lines).encode())
    config = ShardConfig(
        input=failing_s3.uri("sharding/in"),
        output=failing_s3.uri("sharding/out"),
        tags=failing_s3.uri("sharding/in/tags.jsonl"),
        storage=failing_s3.config,
    )
    summary = sharding.run(config)
    assert (summary.images, summary.rows, summary.rejected) == (7, 5, 2)
    assert summary.reasons == {"decode: not an image": 1, "read: absent": 1}
    rows = all_rows(config.output, config)
    assert [row["image_id"] for row in rows] == [f"sub.2F{number:03d}" for number in (0, 1, 3, 4, 5)]
    assert sharding.run(config) == summary
    identity = Storage(config.output, failing_s3.config).read("shards.json").decode()
    assert "testing" not in identity, "no credentials"


def test_an_image_that_kills_its_process_is_rejected(
    tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It kills the child process of a small job, then tasks of Ray's, and no other image is lost."""
    ray.cloudpickle.register_pickle_by_value(deadly_rows)  # the tasks have no path to this folder
    monkeypatch.setattr(sharding, "RowMaker", deadly_rows.DeadlyRowMaker)
    monkeypatch.setattr(sharding, "connect_for", lambda *_: nullcontext(None))
    root = write_photos(tmp_path / "in", 8)
    summary = sharding.run(folder_config(root, tmp_path / "out"))
    assert summary.rows == 7
    assert [(row["source"], row["stage"]) for row in rejected_rows(tmp_path / "out")] == [("004.png", "crash")]
    assert "shard-00000-of-00001.parquet: the process that writes it died" in capsys.readouterr().out


def test_a_small_job_gives_the_same_shards_without_ray(
    tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_photos(tmp_path / "in", 90, broken=(3,))
    with_ray = sharding.run(folder_config(root, tmp_path / "ray", shard_mb=1))
    monkeypatch.setattr(sharding, "connect_for", lambda *_: nullcontext(None))
    monkeypatch.setattr(sharding, "connect", None)
    assert sharding.run(folder_config(root, tmp_path / "near", shard_mb=1)) == with_ray
    files = sorted(path.relative_to(tmp_path / "ray") for path in (tmp_path / "ray").rglob("*.parquet"))
    assert len(files) == 4
    assert all((tmp_path / "near" / file).read_bytes() == (tmp_path / "ray" / file).read_bytes() for file in files)


def test_an_error_in_the_child_process_names_the_shard(
    tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "connect_for", lambda *_: nullcontext(None))
    root = write_photos(tmp_path / "in", 2)
    listing = FolderSource().list_images(folder_config(root, "unused"), ClassSet.load("voc"))
    (root / "001.png").unlink()
    monkeypatch.setattr(FolderSource, "list_images", lambda *_: listing)
    with pytest.raises(JobError, match=r"^shard-00000-of-00001.parquet: StorageError: .*001.png was listed when"):
        sharding.run(folder_config(root, tmp_path / "out"))


def test_the_command(tmp_path: Path, local_ray: Resources) -> None:
    root = write_photos(tmp_path / "in", 2)
    command = [sys.executable, str(REPOSITORY / "jobs/shard.py"), "--input", str(root), "--output", f"{tmp_path}/out"]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run(
        [*command, "--tags-for-all", "dog", "cat"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rows" in done.stdout
    assert [row["tags"] for row in all_rows(tmp_path / "out")] == [["cat", "dog"]] * 2
    failed = subprocess.run(
        [*command, "--tags-for-all", "dgo"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert failed.returncode == 1
    assert "Near: dog." in failed.stderr
    assert "Traceback" not in failed.stderr
