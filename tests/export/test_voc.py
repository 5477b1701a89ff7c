"""The VOC tree and the test server's archive, read by torchvision, Pillow and tar."""

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from export_cases import CAT, EXPORTED, FRONT, HEIGHT, IGNORE, MADE, PERSON, WIDTH, Run, box, export_here, write_made
from made_runs import Made, instance
from PIL import Image
from torchvision.datasets import VOCSegmentation

from wsss_ray.classes import ClassSet, voc_color


def objects_of(output: Path, image_id: str) -> np.ndarray:
    return np.asarray(Image.open(output / "SegmentationObject" / f"{image_id}.png"))


def test_torchvision_reads_the_tree(run: Run, tmp_path: Path) -> None:
    export_here(run.config("voc", output=str(tmp_path / "VOCdevkit" / "VOC2012")))
    dataset = VOCSegmentation(str(tmp_path), year="2012", image_set="train")
    assert len(dataset) == len(EXPORTED)
    for (image, mask), made in zip(dataset, EXPORTED, strict=True):
        np.testing.assert_array_equal(np.asarray(mask), made.label)
        assert mask.mode == "P"
        assert mask.getpalette()[:768] == list(ClassSet.load("voc").palette())
        assert image.size == (WIDTH, HEIGHT)


def test_images_keep_their_bytes_and_failed_ones_are_left_out(run: Run) -> None:
    output, summary = run.export("voc")
    names = {f"{made.image_id}.jpg": made.image for made in EXPORTED}
    assert {path.name: path.read_bytes() for path in (output / "JPEGImages").iterdir()} == names
    listed = (output / "ImageSets" / "Segmentation" / "train.txt").read_text().splitlines()
    assert listed == [made.image_id for made in EXPORTED]
    assert [(entry.image_id, entry.reason) for entry in summary.left_out] == [("failed", "segment: it broke")]
    assert "failed: segment: it broke" in str(summary)
    assert summary.images == len(EXPORTED) == len(MADE) - 1
    assert summary.counts["status no_detections"] == summary.counts["status no_tags"] == 1
    assert not (output / "SegmentationClass" / "failed.png").exists()


def test_objects_are_numbered_as_they_were_painted(run: Run) -> None:
    output, summary = run.export("voc")
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[box(10, 10, 40, 40)] = 2  # the dog behind; the hidden one before it gets no number
    expected[box(0, 0, 30, 30)] = 3
    expected[FRONT] = 1
    np.testing.assert_array_equal(objects_of(output, "overlap.2Fx.20y"), expected)
    small = objects_of(output, "small-things_1")
    assert (small == 1).sum() == 1
    assert (small == 2).sum() == 2
    np.testing.assert_array_equal(small == 255, MADE[2].label == IGNORE)
    changed = objects_of(output, "changed")  # what no mask covers is an object of its own
    np.testing.assert_array_equal(np.unique(changed, return_counts=True)[1], [HEIGHT * WIDTH - 825, 450, 375])
    for made in EXPORTED:
        np.testing.assert_array_equal(objects_of(output, made.image_id) > 0, made.label > 0)
    assert summary.counts["masks hidden by others"] == 2


@pytest.mark.parametrize(
    ("paint", "pixels"), [("detection", 25 * 25), ("score", 30 * 30), ("area", 10 * 10), ("prob", 30 * 30)]
)
def test_the_runs_own_rule_decides_between_masks(tmp_path: Path, paint: str, pixels: int) -> None:
    masks = [box(0, 0, 30, 30), box(10, 10, 20, 20), box(5, 5, 30, 30)]
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[masks[0]] = CAT
    instances = [instance(CAT, mask, score=score) for mask, score in zip(masks, [0.9, 0.5, 0.4], strict=True)]
    made = Made(image_id="a", label=label, tags=["cat"], instances=instances)
    run = write_made(tmp_path, [made], identity={"fusion": {"paint": paint}})
    output, _ = run.export("voc")
    objects = objects_of(output, "a")
    assert (objects == objects[15, 15]).sum() == pixels
    assert objects[0, 0] == 1


def test_equal_scores_go_to_the_later_query(tmp_path: Path) -> None:
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[box(0, 0, 30, 30)] = CAT
    instances = [instance(CAT, box(0, 0, 20, 30)), instance(CAT, box(10, 0, 30, 30))]
    output, _ = write_made(tmp_path, [Made(image_id="a", label=label, tags=["cat"], instances=instances)]).export("voc")
    objects = objects_of(output, "a")
    assert (objects[9, 0], objects[10, 0], objects[29, 0]) == (1, 2, 2)


def test_more_than_254_objects_are_16_bit(tmp_path: Path) -> None:
    spots = [box(2 * (i // 40), 2 * (i % 40), 2 * (i // 40) + 1, 2 * (i % 40) + 1) for i in range(300)]
    label = np.where(np.any(spots, axis=0), PERSON, 0).astype(np.uint8)
    label[-1] = IGNORE
    made = Made(image_id="a", label=label, tags=["person"], instances=[instance(PERSON, spot) for spot in spots])
    output, _ = write_made(tmp_path, [made]).export("voc")
    objects = objects_of(output, "a")
    assert objects.dtype == np.uint16
    assert set(np.unique(objects)) == {*range(301), 65535}
    palette = Image.open(output / "SegmentationClass" / "a.png").getpalette()
    assert tuple(palette[3 * PERSON : 3 * PERSON + 3]) == voc_color(PERSON)


def test_other_suffixes_are_kept_and_told(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(stream, "PNG")
    made = Made(image_id="a.jpg", label=np.zeros((HEIGHT, WIDTH), np.uint8), image=stream.getvalue())
    output, summary = write_made(tmp_path, [made]).export("voc")
    assert (output / "JPEGImages" / "a.jpg.png").read_bytes() == stream.getvalue()
    assert any("1 images are not JPEG" in note for note in summary.notes)


def test_the_label_follows_its_picture_whatever_the_reader(tmp_path: Path) -> None:
    """Shards that apply EXIF hold upright labels; the exported image must be upright for all readers."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:20, :20] = 255  # a white corner, top left when shown
    stored = np.rot90(pixels)  # shown by turning it clockwise: orientation 6
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(stream, "JPEG", exif=exif, quality=95)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:20, :20] = CAT
    made = Made(image_id="a", label=label, tags=["cat"], image=stream.getvalue(), instances=[instance(CAT, label > 0)])
    output, summary = write_made(tmp_path, [made]).export("voc")
    image = np.asarray(Image.open(output / "JPEGImages" / "a.jpg").convert("L"))
    np.testing.assert_array_equal(image > 127, label > 0)
    assert summary.counts["images turned upright"] == 1


def test_the_test_servers_archive(run: Run) -> None:
    output, summary = run.export("voc-test", split="test")
    folder = "results/VOC2012/Segmentation/comp6_test_cls"
    names = [f"{folder}/{made.image_id}.png" for made in EXPORTED]
    listed = subprocess.run(
        ["tar", "--list", "--gzip", "--file", str(output / "results.tar.gz")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.splitlines() == names
    assert listed.stderr == ""
    assert gzip.decompress((output / "results.tar.gz").read_bytes()).endswith(bytes(2 * tarfile.BLOCKSIZE))
    with tarfile.open(output / "results.tar.gz") as archive:
        for name, made in zip(names, EXPORTED, strict=True):
            image = Image.open(archive.extractfile(name))
            assert image.mode == "P"
            assert image.getpalette()[:768] == list(ClassSet.load("voc").palette())
            np.testing.assert_array_equal(np.asarray(image), np.where(made.label == IGNORE, 0, made.label))
    assert summary.counts["ignored pixels made background"] == 900
    assert not (output / "JPEGImages").exists()


def test_the_test_server_takes_vocs_classes_alone(tmp_path: Path) -> None:
    made = Made(image_id="a", label=np.zeros((HEIGHT, WIDTH), np.uint8))
    run = write_made(tmp_path, [made], classes="demo")
    with pytest.raises(ValueError, match="VOC's 20 classes"):
        run.export("voc-test", classes="demo")
    assert not (tmp_path / "voc-test").exists()
