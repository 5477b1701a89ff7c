"""The export job: what is left out is told, reruns change nothing, other exports are refused; on Ray and on S3."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from disks import make_room, small_disk
from export_cases import CAT, EXPORTED, HEIGHT, MADE, WIDTH, Run, export_here, photo, write_made
from faulty_s3 import FaultyS3, away_once
from local_s3 import S3Server
from made_runs import Made, instance, label_row

from wsss_ray.classes import ClassSet
from wsss_ray.config import ExportConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.export.job import Export
from wsss_ray.export.job import run as run_job
from wsss_ray.export.summary import ExportSummary
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.label_files import encode_labels
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage

FORMATS = ["voc", "coco-instances", "coco-panoptic", "coco-semantic", "yolo-seg", "huggingface", "voc-test"]


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def label_again(run: Run, unit_index: int, made: list[Made]) -> Unit:
    """Replace a unit's label file, as a labelling run with --retry-failed does."""
    labels = Storage(str(run.root / "labels"))
    unit = read_shard_set(Storage(str(run.root / "images"))).units[unit_index]
    rows = [label_row(image, ClassSet.load("voc"), None) for image in made]
    labels.write(unit.label_path, encode_labels(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), unit, {}))
    return unit


def test_lists_of_ids_choose_the_images(run: Run) -> None:
    chosen = run.root / "chosen.txt"
    chosen.write_text("ring\ngone\n")
    ids = {made.image_id for made in EXPORTED}
    for option, expected in (("only", {"ring"}), ("exclude", ids - {"ring"})):
        output, summary = run.export("voc", output=str(run.root / option), **{option: str(chosen)})
        assert {path.stem for path in (output / "SegmentationClass").iterdir()} == expected
        assert summary.images == len(expected)
    chosen.write_text("stone\n" + "\n".join(sorted(ids)))
    with pytest.raises(ValueError, match=r"holds another export|another configuration"):
        run.export("voc", output=str(run.root / "only"), only=str(chosen))
    chosen.write_text("nothing\n")
    with pytest.raises(ValueError, match="none of the 1 ids of --only is in the image shards"):
        run.export("voc", output=str(run.root / "none"), only=str(chosen))
    assert not (run.root / "none").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_call_gives_the_same_bytes(run: Run, name: str) -> None:
    output, summary = run.export(name)
    before = digests(output)
    assert run.export(name)[1] == summary
    assert digests(output) == before
    other, _ = run.export(name, output=str(run.root / "again"))
    # The notes of two formats name the output itself.
    assert {path: digest for path, digest in digests(other).items() if path != "export-summary.json"} == {
        path: digest for path, digest in before.items() if path != "export-summary.json"
    }


def test_a_second_call_has_nothing_to_do(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, summary = run.export("voc")
    times = {path: path.stat().st_mtime_ns for path in (run.root / "voc").rglob("*")}
    assert run_job(run.config("voc")) == summary
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (run.root / "voc").rglob("*")} == times


def test_a_broken_export_goes_on_and_ends_as_an_unbroken_one(run: Run) -> None:
    whole, _ = run.export("coco-instances", output=str(run.root / "whole"))
    config = run.config("coco-instances")
    export = Export.prepare(config)
    export.writer(export.todo[1].unit)
    with pytest.raises(JobError, match="2 units were written, but"):
        export.finish()
    assert not (Path(config.output) / "export-summary.json").exists()
    assert [slot.unit for slot in Export.prepare(config).todo] == [export.todo[0].unit, export.todo[2].unit]
    export_here(config)
    assert digests(Path(config.output)) == digests(whole)


def test_labels_that_were_made_again_are_exported_again(run: Run) -> None:
    output, before = run.export("voc")
    again = dataclasses.replace(MADE[4], label=np.full((HEIGHT, WIDTH), 12, np.uint8), error=None)
    unit = label_again(run, 1, [MADE[3], again, MADE[5]])
    assert [slot.unit for slot in Export.prepare(run.config("voc")).todo] == [unit]
    _, after = run.export("voc")
    assert (before.images, after.images) == (len(EXPORTED), len(MADE))
    assert after.left_out == ()
    listed = (output / "ImageSets" / "Segmentation" / "train.txt").read_text().splitlines()
    assert listed == [made.image_id for made in MADE]


def test_a_summary_of_older_labels_is_not_taken_for_this_one(run: Run) -> None:
    """The job was killed after the last unit and before the summary."""
    _, before = run.export("voc")
    again = dataclasses.replace(MADE[4], label=np.full((HEIGHT, WIDTH), 12, np.uint8), error=None)
    label_again(run, 1, [MADE[3], again, MADE[5]])
    export = Export.prepare(run.config("voc"))
    export.writer(export.todo[0].unit)
    export = Export.prepare(run.config("voc"))
    assert export.todo == ()
    assert export.earlier_summary() is None
    assert export.finish().images == before.images + 1


def test_a_unit_with_a_file_that_could_not_be_written_is_not_done(run: Run) -> None:
    config = run.config("voc")
    export = Export.prepare(config)
    (Path(config.output) / "SegmentationClass" / f"{MADE[0].image_id}.png").mkdir(parents=True)
    with pytest.raises(StorageError, match=rf"{MADE[0].image_id}\.png"):
        export.writer(export.todo[0].unit)
    assert len(Export.prepare(config).todo) == 3


def test_a_full_disk_ends_the_job_which_then_goes_on(run: Run) -> None:
    whole, _ = run.export("voc", output=str(run.root / "whole"))
    config = run.config("voc")
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    with small_disk(Path(config.output), kilobytes=needed // 2000):
        with pytest.raises((JobError, StorageError), match="the disk is full"):
            export_here(config)
        assert not (Path(config.output) / "export-summary.json").exists()
        make_room(Path(config.output))
        export_here(config)
        assert digests(Path(config.output)) == digests(whole)


def test_units_without_labels_are_told(run: Run) -> None:
    units = read_shard_set(Storage(str(run.root / "images"))).units
    (run.root / "labels" / units[1].label_path).unlink()
    _, summary = run.export("coco-semantic")
    assert summary.images == len(EXPORTED) - 2
    assert summary.unlabelled_images == 3
    assert summary.unlabelled_units == (units[1].name,)
    assert "3 images in 1 units have no label yet" in str(summary)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"format": "coco-semantic"}, 'format: "voc" -> "coco-semantic"'),
        ({"split": "val"}, 'split: "train" -> "val"'),
        ({"copy_images": False}, "copy_images: true -> false"),
        ({"classes": "voc-raw"}, 'classes.name: "voc" -> "voc-raw"'),
    ],
)
def test_another_exports_output_is_refused(run: Run, options: dict[str, object], text: str) -> None:
    output, _ = run.export("voc")
    before = digests(output)
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        run.export("voc", **options)
    assert text in str(caught.value)
    assert digests(output) == before


def test_the_export_of_another_run_is_refused(run: Run, tmp_path: Path) -> None:
    output, _ = run.export("voc")
    run_file = run.root / "labels" / "run.json"
    run_file.write_text(json.dumps({**json.loads(run_file.read_text()), "detector": {"box_threshold": 0.5}}))
    with pytest.raises(ValueError, match="labels: they are of another run"):
        run.export("voc")
    other = write_made(tmp_path / "other", MADE[:3])
    with pytest.raises(ValueError, match="shards: its images are other ones"):
        other.export("voc", output=str(output))


def test_a_folder_of_other_things_is_refused(run: Run) -> None:
    (run.root / "voc" / "JPEGImages").mkdir(parents=True)
    (run.root / "voc" / "JPEGImages" / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"holds files, but no export\.json"):
        run.export("voc")
    with pytest.raises(ValueError, match="is what --labels reads"):
        run.export("voc", output=str(run.root / "labels"))


@pytest.mark.parametrize("name", FORMATS)
def test_predictions_have_no_objects(tmp_path: Path, name: str) -> None:
    failed = Made(image_id="failed", label=None, size=(HEIGHT, WIDTH), instances=None, image=photo(0))
    made = Made(image_id="a", label=np.full((HEIGHT, WIDTH), CAT, np.uint8), tags=["cat"], instances=None)
    run = write_made(tmp_path, [failed, made], images_per_unit=1)
    if name in {"coco-instances", "coco-panoptic", "yolo-seg"}:
        with pytest.raises(
            ValueError, match=r"holds predictions.*Use one of voc, coco-semantic, huggingface, voc-test"
        ):
            run.export(name)
        assert not (tmp_path / name).exists()
    else:
        output, summary = run.export(name)
        assert summary.images == 1
        assert not (output / "SegmentationObject").exists()


def damaged_rows() -> list[tuple[Made, str]]:
    good = np.zeros((HEIGHT, WIDTH), np.uint8)
    short = instance(CAT, np.ones((HEIGHT, WIDTH - 1), np.bool_))
    cut = instance(CAT, np.ones((HEIGHT, WIDTH), np.bool_))
    cut["mask"]["counts"] = cut["mask"]["counts"] + b"\x7f"
    unscored = instance(CAT, np.ones((HEIGHT, WIDTH), np.bool_), score=float("nan"))
    return [
        (Made(image_id="id", label=np.full((HEIGHT, WIDTH), 77, np.uint8)), "label: no class has the id 77"),
        (Made(image_id="size", label=good, instances=[short]), "instance 0: its mask is 89 x 60, the image 90 x 60"),
        (Made(image_id="counts", label=good, instances=[cut]), "instance 0: its mask: RLE counts hold a character"),
        (Made(image_id="class", label=good, instances=[instance(99, good > 0)]), "instance 0: no class has the id 99"),
        (Made(image_id="nan", label=good, instances=[unscored]), "instance 0: its score or box is not a number"),
        (Made(image_id="image", label=good, image=b"BM not a bitmap"), "image: "),
    ]


def test_damaged_rows_are_left_out_with_the_reason(tmp_path: Path) -> None:
    cases = damaged_rows()
    fine = Made(image_id="fine", label=np.zeros((HEIGHT, WIDTH), np.uint8), instances=[])
    made = [fine, *(case for case, _ in cases)]
    _, summary = write_made(tmp_path, made, images_per_unit=100).export("coco-instances")
    assert summary.images == 1
    reasons = {entry.image_id: entry.reason for entry in summary.left_out}
    for case, reason in cases:
        assert reason in reasons[case.image_id]


def test_ids_that_are_no_file_names_are_refused(tmp_path: Path) -> None:
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    made = [Made(image_id="fine", label=label), Made(image_id="../../escape", label=label)]
    with pytest.raises((JobError, ValueError), match=r"'\.\./\.\./escape' is no image id"):
        write_made(tmp_path, made, images_per_unit=100).export("coco-instances")
    assert not list(tmp_path.parent.rglob("escape*"))


def test_an_export_of_nothing_fails_and_says_why(tmp_path: Path) -> None:
    made = Made(image_id="a", label=None, size=(HEIGHT, WIDTH), error="detect: out of memory")
    run = write_made(tmp_path, [made])
    with pytest.raises(JobError, match=r"no image could be exported[\s\S]*a: detect: out of memory"):
        run.export("voc")


@pytest.mark.parametrize("options", [{"split": "../x"}, {"split": ""}, {"polygon_tolerance": -1.0}])
def test_options_out_of_range_are_refused(run: Run, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"ExportConfig.{next(iter(options))}"):
        run.config("voc", **options)


def test_a_damaged_summary_is_made_again(run: Run) -> None:
    output, summary = run.export("voc")
    (output / "export-summary.json").write_text("{}")
    assert Export.prepare(run.config("voc")).earlier_summary() is None
    assert run.export("voc")[1] == summary


def test_an_export_whose_parts_are_gone_is_made_again(run: Run) -> None:
    output, summary = run.export("voc")
    before = digests(output)
    shutil.rmtree(output / "export-parts")
    assert Export.prepare(run.config("voc")).earlier_summary() is None
    assert run.export("voc")[1] == summary
    assert digests(output) == before


def test_it_runs_on_ray(run: Run, local_ray: Resources, capsys: pytest.CaptureFixture[str]) -> None:
    expected, _ = run.export("coco-panoptic", output=str(run.root / "here"))
    summary = run_job(run.config("coco-panoptic"))
    assert digests(run.root / "coco-panoptic") == digests(expected)
    assert summary.images == len(EXPORTED)
    output = capsys.readouterr().out
    assert f"{len(MADE)} / {len(MADE)} images (100.0%)" in output
    assert "1 failed" in output


@pytest.mark.parametrize("damage", ["bytes", "other unit"])
def test_a_damaged_label_file_fails_its_images_alone(
    run: Run, local_ray: Resources, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    units = [slot.unit for slot in Export.prepare(run.config("voc-test")).todo]
    path = run.root / "labels" / units[1].label_path
    whole = path.read_bytes()
    path.write_bytes(b"no Parquet" if damage == "bytes" else (run.root / "labels" / units[0].label_path).read_bytes())
    for _ in range(2):  # the second call finds the export finished
        with pytest.raises(JobError, match=rf"1 label files cannot be used[\s\S]*{units[1].name}"):
            run_job(run.config("voc-test"))
        assert f"{len(MADE) - 3 - sum(made.label is None for made in MADE[6:])} images" in capsys.readouterr().out
    path.write_bytes(whole)
    assert run_job(run.config("voc-test")).images == len(EXPORTED)


def test_it_runs_from_and_to_a_failing_s3(run: Run, failing_s3: FaultyS3, s3: S3Server) -> None:
    expected, _ = run.export("yolo-seg", output=str(run.root / "here"))
    bucket = Storage(s3.uri("export"), s3.config)
    for path in Storage(str(run.root)).walk():
        if path.startswith(("images/", "labels/")):
            bucket.write(path, (run.root / path).read_bytes())
    configs = [
        ExportConfig(
            labels=failing_s3.uri("export/labels"),
            images=failing_s3.uri("export/images"),
            output=failing_s3.uri(f"export/{name}"),
            format=name,
            storage=failing_s3.config,
        )
        for name in ("yolo-seg", "voc-test")
    ]
    puts = failing_s3.requests["PUT"]
    with away_once(failing_s3, lambda: failing_s3.requests["PUT"] > puts + 2):
        summaries = [export_here(config) for config in configs]
    for config, summary in zip(configs, summaries, strict=True):
        assert isinstance(summary, ExportSummary)
        assert Export.prepare(config).earlier_summary() == summary
    files = Storage(failing_s3.uri("export/yolo-seg"), failing_s3.config)
    for path in digests(expected):
        if not path.startswith("export"):
            assert files.read(path) == (expected / path).read_bytes()
    assert Storage(failing_s3.uri("export/voc-test"), failing_s3.config).exists("results.tar.gz")
    with pytest.raises(ValueError, match="holds a run with another configuration"):
        export_here(dataclasses.replace(configs[1], split="val"))
