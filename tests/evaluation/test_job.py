"""The job on a real Ray: conventions, images that cannot be judged, subsets, and inputs that do not fit together."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import evaluation_cases as cases
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.evaluation.image import ImageEvaluator
from wsss_ray.evaluation.job import run
from wsss_ray.evaluation.result import Evaluation
from wsss_ray.evaluation.unit import UnitEvaluator
from wsss_ray.labels.inputs import RunLabels
from wsss_ray.labels.scores import ClassIndex
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.storage.storage import Storage


def grid(text: str) -> np.ndarray:
    """A small map: one row per word, "." is background, digits are ids, "x" is ignore."""
    return np.array(
        [[{".": 0, "x": 255}.get(c) or int(c.replace(".", "0")) for c in word] for word in text.split()], "u1"
    )


TRUTHS = {
    "a": grid("..11 ..11 xx11"),
    "b": grid("2222 2222 ...."),
    "c": grid("33.. 33.. ...."),
    "d": grid("11.. .... ...."),
    "e": grid("4..5 4..5 4..."),
}
TAGS = {
    "a": ["aeroplane"],
    "b": ["bicycle"],
    "c": ["bird"],
    "d": ["aeroplane", "bus"],
    "e": ["boat", "bottle"],
}


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    return cases.write_shards(Storage(str(tmp_path / "shards")), dict(TRUTHS), tags=TAGS)


def write_pngs(folder: Path, labels: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    for image_id, label in labels.items():
        (folder / f"{image_id}.png").write_bytes(cases.png(label))


def configure(folder: Path, **options: object) -> EvaluateConfig:
    given = {
        "labels": str(folder / "labels"),
        "images": str(folder / "shards"),
        "output": str(folder / "out"),
        "split": "train",
        "bootstrap": 20,
    }
    return EvaluateConfig(**{**given, **options})  # type: ignore[arg-type]


def written(folder: Path) -> dict[str, object]:
    return json.loads((folder / "out" / "evaluation.json").read_text())


def iou(evaluation: Evaluation) -> dict[str, float]:
    return {entry.name: entry.iou for entry in evaluation.classes if entry.pixels}


def test_labels_that_are_the_truth_score_one(
    tmp_path: Path, shards: ShardSet, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pngs(tmp_path / "labels", TRUTHS)
    evaluation = run(configure(tmp_path))
    assert evaluation.headline == "mIoU 100.0 (95 % 100.0-100.0), split train, 5 images"
    assert set(iou(evaluation).values()) == {1.0}
    for name in ("miou", "dropped_miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "boundary_iou"):
        assert getattr(evaluation, name) == 1.0, name
    assert evaluation.coverage == 1.0
    printed = capsys.readouterr().out
    assert "5 / 5 images (100.0%)" in printed
    assert printed.rstrip().splitlines()[-2] == evaluation.headline
    assert (tmp_path / "out" / "evaluation.txt").read_text().rstrip().splitlines()[-1] == evaluation.headline
    assert Image.open(tmp_path / "out" / "confusion.png").width > 500


def test_numbers_by_hand(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    labels = {
        **TRUTHS,
        "a": grid("..11 ..1. 1111"),  # one pixel of class 1 lost; what lies on ignored truth does not count
        "b": grid("2222 xxxx ...."),  # half of class 2 said to be ignore
        "e": grid("5..5 5..5 5..."),  # boat taken for bottle
    }
    write_pngs(tmp_path / "labels", labels)
    evaluation = run(configure(tmp_path))
    background = 4 + 4 + 8 + 10 + 7
    assert iou(evaluation) == pytest.approx(
        {
            "background": background / (background + 1 + 4),
            "aeroplane": 7 / 8,
            "bicycle": 4 / 8,
            "bird": 1,
            "boat": 0,
            "bottle": 2 / 5,
        }
    )
    assert evaluation.miou == pytest.approx(np.mean(list(iou(evaluation).values())))
    assert evaluation.pixel_accuracy == (58 - 1 - 4 - 3) / 58
    assert evaluation.coverage == (58 - 4) / 58
    assert evaluation.dropped_miou == pytest.approx(np.mean([background / (background + 1), 7 / 8, 1, 1, 0, 2 / 5]))
    counts = {entry.name: (entry.found, entry.tagged, entry.images) for entry in evaluation.classes if entry.pixels}
    assert counts["aeroplane"] == (2, 2, 2)
    assert counts["bicycle"] == (1, 1, 1)  # an IoU of exactly one half is found
    assert counts["boat"] == (0, 1, 1)
    assert counts["bottle"] == (0, 1, 1)  # 2 / 5
    assert evaluation.tagged_class_recall == 4 / 6
    assert {entry.name: entry.tagged_without_truth for entry in evaluation.classes}["bus"] == 1
    assert evaluation.matrix[2].tolist()[:3] == [0, 0, 4]
    assert evaluation.matrix[2, -1] == 4
    rows = {row["image_id"]: row for row in pq.read_table(tmp_path / "out" / "images.parquet").to_pylist()}
    assert list(rows) == list(TRUTHS)
    assert rows["e"]["class_ids"] == [0, 4, 5]
    assert rows["e"]["truth"] == [7, 3, 2]
    assert rows["e"]["predicted"] == [7, 0, 5]
    assert rows["e"]["both"] == [7, 0, 2]
    assert rows["e"]["miou"] == pytest.approx((1 + 0 + 2 / 5) / 3)


def test_images_without_a_usable_label_are_judged_as_background_and_listed(
    tmp_path: Path, shards: ShardSet, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pngs(tmp_path / "labels", {**TRUTHS, "b": grid("22 22"), "c": np.full((3, 4), 77, "u1")})
    (tmp_path / "labels" / "d.png").write_bytes(b"no PNG at all")
    (tmp_path / "labels" / "a.png").unlink()
    evaluation = run(configure(tmp_path))
    assert evaluation.images == 5
    assert evaluation.missing == ("a",)
    assert evaluation.failed["b"] == "wrong size: 2 x 2, its image is 4 x 3 (width x height)"
    assert evaluation.failed["c"] == "unknown ids: 77 at row 0, column 0 is no class, and ignore is 255"
    assert evaluation.failed["d"].startswith("not an image")
    assert iou(evaluation)["bird"] == iou(evaluation)["bicycle"] == iou(evaluation)["aeroplane"] == 0
    assert iou(evaluation)["boat"] == 1
    assert evaluation.coverage == 12 / 58
    assert evaluation.dropped_miou == 1
    content = written(tmp_path)
    assert content["missing"] == ["a"]
    assert set(content["failed"]) == {"b", "c", "d"}  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "1 image without a label, counted as no class: a" in printed
    assert "  b: wrong size: 2 x 2" in printed
    assert "4 failed" in printed


def test_files_above_the_limit_are_not_read(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    for folder, image_id in (("labels", "b"), ("truth", "c")):
        write_pngs(tmp_path / folder, TRUTHS)
        with (tmp_path / folder / f"{image_id}.png").open("r+b") as file:
            file.truncate(8 * 2**30)  # zeros after IEND: without the limit it would be read, and be good
    evaluation = run(configure(tmp_path, truth=str(tmp_path / "truth")))
    told = "has 8589934592 bytes, the limit is 200000000"
    assert evaluation.failed == {"b": f"too large: {tmp_path}/labels/b.png {told}"}
    assert evaluation.bad_truth == {"c": f"too large: {tmp_path}/truth/c.png {told}"}
    assert evaluation.images == 4


def test_a_pipe_is_no_label(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    write_pngs(tmp_path / "labels", {name: TRUTHS[name] for name in "abcd"})
    os.mkfifo(tmp_path / "labels" / "e.png")
    assert run(configure(tmp_path)).missing == ("e",)


def test_missing_labels_are_an_error_by_choice(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    write_pngs(tmp_path / "labels", {name: TRUTHS[name] for name in "abcd"})
    with pytest.raises(JobError, match=r"1 images have no usable label.*evaluation.json"):
        run(configure(tmp_path, missing="error"))
    assert written(tmp_path)["missing"] == ["e"]
    (tmp_path / "labels" / "e.png").write_bytes(cases.png(TRUTHS["e"]))
    assert run(configure(tmp_path, missing="error")).miou == 1


def test_label_files_of_a_run(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    images, labels = Storage(str(tmp_path / "shards")), Storage(str(tmp_path / "labels"))
    cases.write_run(labels, images, shards, lambda _, truth: truth, errors={"b": "decode: truncated: the data ends"})
    assert run(configure(tmp_path)).failed == {"b": "labelling: decode: truncated: the data ends"}
    (tmp_path / "labels" / shards.units[1].label_path).unlink()  # a run that is not finished
    evaluation = run(configure(tmp_path))
    assert evaluation.missing == ("c", "d")
    (tmp_path / "labels" / shards.units[2].label_path).write_bytes(b"cut short")
    with pytest.raises(JobError, match=rf"1 label files cannot be used.*{shards.units[2].name}.parquet is truncated"):
        run(configure(tmp_path))
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["images"] == 5
    assert list(written["failed"]) == ["b", "e"]
    assert "is truncated or no Parquet file" in written["failed"]["e"]


def test_a_label_file_of_other_images_fails_them(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    images, labels = Storage(str(tmp_path / "shards")), Storage(str(tmp_path / "labels"))
    cases.write_run(labels, images, shards, lambda _, truth: truth)
    labels.write(shards.units[0].label_path, labels.read(shards.units[1].label_path))
    with pytest.raises(JobError, match=rf"{shards.units[0].name}.parquet holds the labels of '{shards.units[1].name}'"):
        run(configure(tmp_path))
    assert list(json.loads((tmp_path / "out" / "evaluation.json").read_text())["failed"]) == ["a", "b"]


def test_images_without_a_usable_truth_are_not_judged(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    write_pngs(tmp_path / "labels", TRUTHS)
    write_pngs(tmp_path / "truth", {**TRUTHS, "c": grid("33 33")})
    (tmp_path / "truth" / "d.png").unlink()
    evaluation = run(configure(tmp_path, truth=str(tmp_path / "truth")))
    assert evaluation.images == 3
    assert evaluation.no_truth == ("d",)
    assert evaluation.bad_truth == {"c": "wrong size: 2 x 2, its image is 4 x 3 (width x height)"}
    assert "bird" not in iou(evaluation)
    assert evaluation.miou == 1


def test_truth_of_no_class_is_left_out_and_counted(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    write_pngs(tmp_path / "labels", TRUTHS)
    write_pngs(tmp_path / "truth", {**TRUTHS, "c": grid("33.. 33.. ....") + np.uint8(90)})
    evaluation = run(configure(tmp_path, truth=str(tmp_path / "truth")))
    assert evaluation.unknown_truth_pixels == 12
    assert evaluation.images == 5
    assert "bird" not in iou(evaluation)


def test_truth_in_colours_is_read_by_the_palette(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    write_pngs(tmp_path / "labels", TRUTHS)
    (tmp_path / "truth").mkdir()
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128)}
    for image_id, truth in TRUTHS.items():
        rgb = np.array([[voc.get(int(value), (224, 224, 192)) for value in row] for row in truth], "u1")
        Image.fromarray(rgb).save(tmp_path / "truth" / f"{image_id}.png")
    evaluation = run(configure(tmp_path, truth=str(tmp_path / "truth")))
    assert evaluation.images == 5
    assert evaluation.miou == 1


def test_truth_beside_turned_images_turns_with_them(tmp_path: Path, local_ray: Resources) -> None:
    stored = grid("1122 .... ....")
    upright = np.rot90(stored, -1)  # orientation 6: shown a quarter clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (4, 3)).save(stream, "JPEG", exif=exif)
    storage = Storage(str(tmp_path / "shards"))
    cases.write_shards(storage, {"a": None}, image=stream.getvalue(), exif="apply", size=(4, 3))
    write_pngs(tmp_path / "labels", {"a": upright})
    write_pngs(tmp_path / "truth", {"a": stored})
    evaluation = run(configure(tmp_path, truth=str(tmp_path / "truth")))
    assert evaluation.bad_truth == {}
    assert evaluation.miou == 1


@pytest.mark.parametrize(
    "text", ["b\ne\nnot-there\n", "b 1\ne 3\nnot-there 0\n", "/x/b.jpg\n/x/e.jpg\n/x/not-there.jpg\n"]
)
def test_a_subset(tmp_path: Path, shards: ShardSet, local_ray: Resources, text: str) -> None:
    write_pngs(tmp_path / "labels", {"b": TRUTHS["b"], "e": TRUTHS["e"]})
    (tmp_path / "ids.txt").write_text(text)
    evaluation = run(configure(tmp_path, subset=str(tmp_path / "ids.txt")))
    assert evaluation.images == 2
    assert evaluation.miou == 1
    assert evaluation.missing == ()
    assert evaluation.not_in_shards == ("not-there",)
    assert set(iou(evaluation)) == {"background", "bicycle", "boat", "bottle"}


def test_skipped_images_do_not_count(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    """A run with --limit has label files of its first units only."""
    images, labels = Storage(str(tmp_path / "shards")), Storage(str(tmp_path / "labels"))
    cases.write_run(labels, images, shards, lambda _, truth: truth)
    for unit in shards.units[1:]:
        (tmp_path / "labels" / unit.label_path).unlink()
    counted, skipped = (run(configure(tmp_path, missing=missing)) for missing in ("count", "skip"))
    rows = shards.units[0].rows
    assert len(counted.missing) == shards.rows - rows
    assert counted.miou < 1
    assert (skipped.images, skipped.miou, skipped.missing) == (rows, 1, ())
    assert set(skipped.skipped) == set(counted.missing)
    assert f"{shards.rows - rows} images without a label, skipped" in (tmp_path / "out/evaluation.txt").read_text()


def test_units_outside_the_subset_are_passed_over(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    images, labels = Storage(str(tmp_path / "shards")), Storage(str(tmp_path / "labels"))
    cases.write_run(labels, images, shards, lambda _, truth: truth)
    (tmp_path / "ids.txt").write_text("b\n")
    evaluation = run(configure(tmp_path, subset=str(tmp_path / "ids.txt")))
    assert (evaluation.images, evaluation.miou, evaluation.missing, evaluation.failed) == (1, 1, (), {})
    evaluator = UnitEvaluator(
        images=images,
        labels=RunLabels(storage=labels, files=frozenset(unit.label_path for unit in shards.units)),
        truths=None,
        evaluator=ImageEvaluator(
            index=ClassIndex.of(ClassSet.load("voc")), ignore_id=255, boundary_ratio=None, smallest_object=None
        ),
        palette=None,
        subset=frozenset("b"),
        skip_missing=False,
    )
    for unit in shards.units[1:]:
        (tmp_path / "labels" / unit.label_path).unlink()  # RunLabels raises when a listed file it reads is not there
    results = [evaluator(unit) for unit in shards.units]
    assert [result.images["image_id"].to_pylist() for result in results] == [["b"], [], []]
    assert [int(result.tally.matrix.sum()) for result in results] == [12, 0, 0]


def test_units_and_their_order_change_nothing(tmp_path: Path, local_ray: Resources) -> None:
    labels = {name: np.roll(truth, 1, axis=0) for name, truth in TRUTHS.items()}
    results = []
    for images_per_unit in (1, 5):
        folder = tmp_path / str(images_per_unit)
        cases.write_shards(Storage(str(folder / "shards")), dict(TRUTHS), tags=TAGS, images_per_unit=images_per_unit)
        write_pngs(folder / "labels", labels)
        results.append(run(configure(folder)))
    first, second = (evaluation.to_json() for evaluation in results)
    assert first == second
    assert 0 < results[0].miou < 1
    assert results[0].interval is not None


def test_rejected_images_are_told(
    tmp_path: Path, shards: ShardSet, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected = {"source": ["x.jpg"], "stage": ["decode"], "reason": ["truncated"]}
    pq.write_table(pa.table(rejected), tmp_path / "shards" / "rejected.parquet")
    write_pngs(tmp_path / "labels", TRUTHS)
    assert run(configure(tmp_path)).rejected == 1
    assert "1 image rejected by wsss-ray shard" in capsys.readouterr().out


def test_boundaries_and_interval_can_be_left_out(tmp_path: Path, shards: ShardSet, local_ray: Resources) -> None:
    write_pngs(tmp_path / "labels", TRUTHS)
    evaluation = run(configure(tmp_path, boundary=False, bootstrap=0, split=None))
    assert np.isnan(evaluation.boundary_iou)
    assert evaluation.interval is None
    assert evaluation.headline == "mIoU 100.0, split not stated, 5 images"
    assert written(tmp_path)["boundary_iou"] is None


def test_names_that_match_nothing_are_refused_before_ray_starts(tmp_path: Path, shards: ShardSet) -> None:
    write_pngs(tmp_path / "labels", {"other": TRUTHS["a"]})
    with pytest.raises(ValueError, match=r"an id is 'a', a file 'other'.*<image id>.png.$"):
        run(configure(tmp_path))
    Storage(str(tmp_path / "labels")).write("mine/run.json", b"{}")
    with pytest.raises(ValueError, match=r"an id is 'a', a file 'other'.*Did you mean .*/labels/mine\?"):
        run(configure(tmp_path))
    Storage(str(tmp_path / "above")).write("mine/run.json", b"{}")
    with pytest.raises(ValueError, match=r"neither label files.*Did you mean .*/above/mine\?"):
        run(configure(tmp_path, labels=str(tmp_path / "above")))
    with pytest.raises(ValueError, match=r"Name the truth <image id>.png"):
        run(configure(tmp_path, truth=str(tmp_path / "labels")))
    (tmp_path / "ids.txt").write_text("z\ny\n")
    with pytest.raises(ValueError, match="none of the 2 ids of --subset is in the image shards; the first is 'y'"):
        run(configure(tmp_path, subset=str(tmp_path / "ids.txt")))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_refused_before_ray_starts(tmp_path: Path, shards: ShardSet) -> None:
    with pytest.raises(ValueError, match=r"neither label files of a run nor PNGs.*empty or does not exist"):
        run(configure(tmp_path))
    write_pngs(tmp_path / "labels", TRUTHS)
    with pytest.raises(ValueError, match=r"made with class set 'voc'.*Give --classes voc"):
        run(configure(tmp_path, classes="coco"))
    with pytest.raises(ValueError, match="there is no list of image ids at"):
        run(configure(tmp_path, subset=str(tmp_path / "ids.txt")))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"has no truth PNGs named by image id; it holds notes.txt"):
        run(configure(tmp_path, truth=str(tmp_path / "other")))


def test_shards_without_truth_need_a_folder(tmp_path: Path) -> None:
    cases.write_shards(Storage(str(tmp_path / "shards")), {"a": None})
    write_pngs(tmp_path / "labels", {"a": TRUTHS["a"]})
    with pytest.raises(ValueError, match="hold no truth: give --truth"):
        run(configure(tmp_path))


def test_labels_of_other_shards_are_refused(tmp_path: Path, shards: ShardSet) -> None:
    labels = Storage(str(tmp_path / "labels"))
    cases.write_run(labels, Storage(str(tmp_path / "shards")), shards, lambda _, truth: truth)
    with pytest.raises(ValueError, match="give the directory above `labels`"):
        run(configure(tmp_path, labels=str(tmp_path / "labels" / "labels")))
    cases.write_shards(Storage(str(tmp_path / "shards")), {"new": TRUTHS["a"]})
    with pytest.raises(ValueError, match=r"none of the 3 label files in .* belongs to these image shards"):
        run(configure(tmp_path))
