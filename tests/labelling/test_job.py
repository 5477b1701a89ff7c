"""The labelling job on real photos with a real Ray."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
import yaml
from label_runs import image_rows, label_rows, labels_by_id, write_shards
from PIL import Image
from repository import REPOSITORY

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, RayConfig, SegmenterConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.images.label_png import decode_label
from wsss_ray.labelling import job as labelling
from wsss_ray.labels import job
from wsss_ray.labels.gpus import GPU_FILE
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.label_files import encode_labels, read_labels
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

Configure = Callable[..., LabelConfig]


def test_every_photo_has_its_row_its_label_and_its_png(finished: LabelConfig, photo_rows: pa.Table) -> None:
    rows = label_rows(finished)
    assert [row["image_id"] for row in rows] == photo_rows["image_id"].to_pylist()
    palette = ClassSet.load("voc").palette()
    painted = 0
    for row, tags in zip(rows, photo_rows["tags"].to_pylist(), strict=True):
        label = decode_label(row["label"])
        assert label.shape == (row["height"], row["width"])
        assert row["tags"] == tags
        ids = {ClassSet.load("voc").by_name[tag].id for tag in tags}
        assert set(np.unique(label)) <= {0, *ids}
        assert {instance["class_id"] for instance in row["instances"]} <= ids
        painted += label.any()
        with Image.open(Path(finished.output) / "png" / f"{row['image_id']}.png") as png:
            assert png.mode == "P"
            assert bytes(png.getpalette()) == palette
            assert np.array_equal(np.array(png), label)
    assert painted >= 6, "random models that paint nothing test nothing"


def test_the_summary_counts_what_the_rows_say(finished: LabelConfig) -> None:
    summary = json.loads((Path(finished.output) / "summary.json").read_text())
    rows = label_rows(finished)
    assert summary["images"] == 9
    assert summary["boxes"] == sum(len(row["instances"]) for row in rows)
    dogs = [row for row in rows if "dog" in row["tags"]]
    dog = ClassSet.load("voc").by_name["dog"].id
    assert summary["classes"]["dog"] == {
        "tagged": len(dogs),
        "detected": sum("dog" not in row["undetected_tags"] for row in dogs),
        "pixels": sum(int((decode_label(row["label"]) == dog).sum()) for row in rows),
    }


def test_a_rerun_does_no_work(finished: LabelConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(finished.output, "labels").iterdir()}
    labelling.run(finished)
    assert "nothing to do: all 9 images are labelled" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path(finished.output, "labels").iterdir()} == before


def test_damaged_and_swapped_label_files_are_replaced(
    finished: LabelConfig, tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.output, run)
    truncated, swapped, flipped = (run / unit.label_path for unit in read_shard_set(Storage(finished.input)).units)
    truncated.write_bytes(truncated.read_bytes()[:500])
    swapped.write_bytes(flipped.read_bytes())
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    config = replace(finished, output=str(run))
    summary = labelling.run(config)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("counts as missing: ")]
    assert [path.name in line for path, line in zip((truncated, swapped, flipped), told, strict=True)] == [True] * 3
    assert "holds the labels of" in told[1]
    assert label_rows(config) == label_rows(finished)
    assert (summary["images"], summary["statuses"].get("failed")) == (9, None)


def test_a_configuration_that_would_change_labels_is_refused_by_name(finished: LabelConfig) -> None:
    changed = replace(finished, detector=replace(finished.detector, box_threshold=0.35, batch_size=3))
    with pytest.raises(ValueError, match=r"detector\.box_threshold: 0\.3 -> 0\.35") as caught:
        labelling.run(changed)
    assert "batch_size" not in str(caught.value)


def test_awkward_images_keep_their_rows(
    photo_rows: pa.Table, configure: Configure, local_ray: Resources, tmp_path: Path
) -> None:
    rows = photo_rows.slice(0, 3).to_pylist()
    rows[0]["image"] = rows[0]["image"][: len(rows[0]["image"]) // 2]
    rows[1]["tags"] = []
    rows[2]["height"] += 1
    with Image.open(io.BytesIO(photo_rows["image"][0].as_py())) as photo:
        extreme = {"wide": photo.resize((8000, 200)), "dot": photo.crop((0, 0, 1, 1))}
    encoded = {}
    for name, picture in extreme.items():
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        encoded[name] = (stream.getvalue(), ["dog"])
    table = pa.concat_tables([pa.Table.from_pylist(rows, schema=photo_rows.schema), image_rows(encoded)])
    write_shards(Storage(str(tmp_path / "in")), table, images_per_unit=5)
    config = configure(tmp_path / "in", tmp_path / "out")
    summary = labelling.run(config)
    truncated, untagged, resized, wide, dot = label_rows(config)
    assert truncated["status"] == "failed"
    assert truncated["error"].startswith("decode: truncated")
    assert truncated["label"] is None
    assert untagged["status"] == "no_tags"
    assert not decode_label(untagged["label"]).any()
    assert resized["status"] == "failed"
    assert resized["error"].startswith("decode: wrong size: the image is")
    assert decode_label(wide["label"]).shape == (200, 8000)
    assert decode_label(dot["label"]).shape == (1, 1)
    assert {wide["status"], dot["status"]} <= {"ok", "no_detections"}
    assert {name: summary["statuses"][name] for name in ("no_tags", "failed")} == {"no_tags": 1, "failed": 2}


def test_retry_failed_replaces_just_those_rows(finished: LabelConfig, local_ray: Resources, tmp_path: Path) -> None:
    config = replace(finished, output=str(tmp_path), png=False, retry_failed=True)
    source, target = Storage(finished.output), Storage(str(tmp_path))
    target.write("run.json", source.read("run.json"))
    units = read_shard_set(Storage(finished.input)).units
    for index, unit in enumerate(units):
        rows = read_labels(source, unit)
        if index == 1:
            broken = rows.to_pylist()
            broken[2].update(label=None, instances=None, undetected_tags=None, status="failed", error="segment: lost")
            rows = pa.Table.from_pylist(broken, schema=rows.schema)
        statuses = {"ok": 2, "failed": 1} if index == 1 else {"ok": 3}
        counts = {"images": 3, "boxes": 0, "statuses": statuses, "errors": {}, "classes": {}}
        target.write(unit.label_path, encode_labels(rows, unit, counts))
    untouched = (tmp_path / units[0].label_path).stat().st_mtime_ns
    summary = labelling.run(config)
    assert "failed" not in summary["statuses"]
    assert labels_by_id(config) == labels_by_id(finished)
    assert (tmp_path / units[0].label_path).stat().st_mtime_ns == untouched


def test_pngs_can_be_written_later(finished: LabelConfig, tmp_path: Path, local_ray: Resources) -> None:
    source, target = Storage(finished.output), Storage(str(tmp_path))
    target.write("run.json", source.read("run.json"))
    for name in source.list("labels"):
        target.write(f"labels/{name}", source.read(f"labels/{name}"))
    labelling.run(replace(finished, output=str(tmp_path)))
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == sorted(
        path.name for path in Path(finished.output, "png").iterdir()
    )


def test_lost_and_torn_pngs_are_rewritten_and_forms_do_not_mix(
    finished: LabelConfig, tmp_path: Path, local_ray: Resources
) -> None:
    shutil.copytree(finished.output, tmp_path / "run")
    config = replace(finished, output=str(tmp_path / "run"))
    lost, torn, *_ = sorted((tmp_path / "run" / "png").iterdir())
    whole = torn.read_bytes()
    lost.unlink()
    torn.write_bytes(b"")
    (tmp_path / "run" / "png" / "foreign.png").write_bytes(b"x")
    summary = labelling.run(replace(config, limit=1))
    assert lost.exists()
    assert torn.read_bytes() == whole
    assert summary["images"] == 9, "the summary is of the whole run, whatever the limit of a session"
    with pytest.raises(ValueError, match="holds PNGs in the form 'palette', not 'grey'"):
        labelling.run(replace(config, png_palette="grey"))


def test_a_dry_run_plans_and_writes_nothing(
    photos: Path, configure: Configure, local_ray: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelling.run(configure(photos, tmp_path / "out", dry_run=True, limit=4))
    text = capsys.readouterr().out
    assert "6 images in 2 units" in text
    assert "dog ." in text
    assert "s per image and actor" in text
    assert not (tmp_path / "out").exists()


def test_a_pool_that_can_never_be_placed_is_refused_at_once(
    photos: Path, configure: Configure, local_ray: Resources, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="the pools need 4 GPUs, but the cluster has 0"):
        labelling.run(configure(photos, tmp_path, ray=RayConfig(actors=4, gpus_per_actor=1, cpus_per_actor=0.01)))
    assert not list(tmp_path.iterdir()), "a refused plan leaves the output as it was"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_an_actor_whose_cuda_does_not_start_ends_the_job_instead_of_using_its_cpu(
    photos: Path, configure: Configure, local_ray: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Ray counts a GPU whose driver is too old for PyTorch: here there is none."""
    monkeypatch.setattr(job, "hardware", lambda *_: {"has_gpus": True, "has_bfloat16": True})
    (tmp_path / GPU_FILE).write_bytes(encode_json({"gpu": "of a run that labelled nothing"}))
    config = configure(photos, tmp_path)
    assert (config.detector.device, config.segmenter.precision) == ("auto", "auto")
    with pytest.raises(JobError) as caught:
        labelling.run(config)
    text = r"the run broke off: label: GpuError: CUDA does not start on .* for CUDA .*, or give device: cpu\. Finished "
    assert re.match(text, str(caught.value)), caught.value
    claimed = read_json(Storage(str(tmp_path)), "run.json")
    assert (claimed["segmenter"]["device"], claimed["segmenter"]["precision"]) == ("cuda", "bfloat16")
    assert not (tmp_path / "labels").exists(), "nothing was labelled"
    assert not (tmp_path / GPU_FILE).exists(), "so the next run may have another GPU"


def test_plain_images_are_answered_with_the_command_to_run(shared: Path, configure: Configure, tmp_path: Path) -> None:
    folder = shared / "data" / "coco" / "images" / "val2017"
    with pytest.raises(ValueError, match=r"wsss-ray shard --source folder --input .*val2017"):
        labelling.run(configure(folder, tmp_path))


def test_a_missing_checkpoint_names_the_official_file(photos: Path, configure: Configure, tmp_path: Path) -> None:
    config = configure(photos, tmp_path, segmenter=SegmenterConfig(model="vit_h"))
    with pytest.raises(ValueError, match=r"sam_vit_h_4b8939\.pth"):
        labelling.run(config)
    assert not (tmp_path / "run.json").exists()


def test_shards_of_other_classes_are_refused(photos: Path, configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Give --classes voc"):
        labelling.run(configure(photos, tmp_path, classes="coco"))


def test_killed_drivers_lose_nothing(finished: LabelConfig, photos: Path, local_ray: Resources, tmp_path: Path) -> None:
    """kill -9 of the driver after its first finished unit; another with the same configuration continues, in a cluster
    that was left without it."""
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "detector": {"model": finished.detector.model},
                "segmenter": {"model": "tiny", "checkpoint": finished.segmenter.checkpoint},
                "ray": {"actors": 1, "address": ray.get_runtime_context().gcs_address},
            }
        )
    )
    out = tmp_path / "out"
    command = [
        sys.executable,
        str(REPOSITORY / "jobs" / "label.py"),
        *("--config", str(tmp_path / "config.yaml"), "--input", str(photos), "--output", str(out)),
    ]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    labels = out / "labels"
    deadline = time.monotonic() + 200
    while not (labels.is_dir() and any(path.suffix == ".parquet" for path in labels.iterdir())):
        assert driver.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    done = {path.name: path.stat().st_mtime_ns for path in labels.glob("*.parquet")}
    config = replace(finished, output=str(out))
    labelling.run(config)
    assert labels_by_id(config) == labels_by_id(finished)
    for name, modified in done.items():
        assert (labels / name).stat().st_mtime_ns == modified, "a finished unit was computed again"


def test_a_cluster_without_gpus_is_named(
    photos: Path, base_config: LabelConfig, local_ray: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(base_config, input=str(photos), output=str(tmp_path), dry_run=True)
    for gpus_per_actor, expected in ((None, True), (0.0, False)):
        labelling.run(replace(config, ray=replace(config.ray, gpus_per_actor=gpus_per_actor)))
        assert ("note: there are no GPUs here, so the work is done on CPUs" in capsys.readouterr().out) is expected
