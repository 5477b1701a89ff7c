"""YOLO-seg files, read and filled as ultralytics does: shares times size, cut to whole pixels, cv2.fillPoly."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from export_cases import EXPORTED, HEIGHT, NOTHING, PIECES, RING, WIDTH, Run, box, write_made
from made_runs import Made, instance, instances_of
from PIL import Image
from scipy import ndimage

from wsss_ray.classes import ClassSet
from wsss_ray.images.rle import decode_mask

CLASSES = ClassSet.load("voc")


def read_lines(path: Path) -> list[tuple[int, np.ndarray]]:
    """Class and (N, 2) float32 shares of each line, by the checks of ultralytics' own reader."""
    rows = [line.split() for line in path.read_text().splitlines()]
    for row in rows:
        assert len(row) > 6, "a line of 5 numbers would be taken for a box"
        assert len(row) % 2 == 1
    found = [(int(row[0]), np.array(row[1:], np.float32).reshape(-1, 2)) for row in rows]
    for _, points in found:
        assert points.min() >= 0
        assert points.max() <= 1
    return found


def fill(points: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = (points * np.array([width, height], np.float32)).astype(np.int32)
    return cv2.fillPoly(np.zeros((height, width), np.uint8), [pixels], 1).astype(bool)


def test_polygons_fill_the_masks(run: Run) -> None:
    output, summary = run.export("yolo-seg", split="val")
    names = list(CLASSES.names)
    for made in EXPORTED:
        assert (output / "images" / "val" / f"{made.image_id}.jpg").read_bytes() == made.image
        lines = read_lines(output / "labels" / "val" / f"{made.image_id}.txt")
        entries = [
            (entry["class_id"], mask)
            for entry in made.instances
            if (mask := decode_mask(entry["mask"]["counts"], HEIGHT, WIDTH)).any()
        ]
        for (index, points), (class_id, mask) in zip(lines, entries, strict=True):
            assert names[index] == CLASSES.by_id[class_id].name
            filled = fill(points, HEIGHT, WIDTH)
            if mask.sum() == RING.sum() and (mask == RING).all():
                np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))
            elif ndimage.label(mask)[1] > 1:
                assert (filled & mask).sum() == mask.sum()
                assert 0 < (filled & ~mask).sum() < 100
            else:
                np.testing.assert_array_equal(filled, mask)
    assert summary.counts["pixels of filled holes"] == 100
    assert summary.counts["polygons over holes"] == 1
    assert summary.counts["polygons in pieces"] == 2
    assert summary.counts["empty masks left out"] == 1
    assert summary.counts["pixels lost"] == 0
    masks, bridges = summary.counts["pixels of masks"], summary.counts["pixels of bridges and outlines"]
    assert f"IoU {masks / (masks + 100 + bridges):.4f}" in str(summary)


def test_the_yaml_names_folders_and_classes(run: Run) -> None:
    output, _ = run.export("yolo-seg", split="val2017")
    content = yaml.safe_load((output / "data.yaml").read_text())
    assert content == {
        "train": None,
        "val": "images/val2017",
        "test": None,
        "names": dict(enumerate(CLASSES.names)),
    }


def test_only_labels_are_written_without_images(run: Run) -> None:
    output, _ = run.export("yolo-seg", copy_images=False)
    assert not (output / "images").exists()
    assert len(list((output / "labels" / "train").iterdir())) == len(EXPORTED)
    assert (output / "labels" / "train" / "found-nothing.txt").read_bytes() == b""


def test_nothing_but_empty_masks(tmp_path: Path) -> None:
    made = Made(
        image_id="a", label=np.zeros((HEIGHT, WIDTH), np.uint8), tags=["dog"], instances=[instance(12, NOTHING)]
    )
    _, summary = write_made(tmp_path, [made]).export("yolo-seg")
    assert "there is no mask" in str(summary)


def test_images_that_ultralytics_does_not_read_are_told(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT)).save(stream, "GIF")
    made = Made(image_id="a", label=np.zeros((HEIGHT, WIDTH), np.uint8), image=stream.getvalue())
    output, summary = write_made(tmp_path, [made]).export("yolo-seg")
    assert (output / "images" / "train" / "a.gif").read_bytes() == stream.getvalue()
    assert "1 images are GIF" in str(summary)


def test_wide_images_lose_no_pixel_to_the_digits(tmp_path: Path) -> None:
    """Shares have six digits, read as float32: the very pixels must come back even at thousands of columns."""
    mask = np.zeros((7, 9001), np.bool_)
    mask[1:6, ::3] = True
    mask[3] = True
    made = Made(image_id="a", label=mask.astype(np.uint8), tags=["aeroplane"], instances=[instance(1, mask)])
    output, summary = write_made(tmp_path, [made]).export("yolo-seg")
    ((_, points),) = read_lines(output / "labels" / "train" / "a.txt")
    np.testing.assert_array_equal(fill(points, 7, 9001), mask)
    assert summary.counts["pixels lost"] == 0


def test_real_masks(shared: Path, tmp_path: Path) -> None:
    """Connected parts of VOC's own masks: what the summary says is lost is what filling the files again shows."""
    root = shared / "data" / "voc" / "VOCdevkit" / "VOC2012"
    made = []
    for path in sorted((root / "SegmentationClass").glob("*.png"))[:12]:
        label = np.asarray(Image.open(path))
        instances = instances_of(label, CLASSES, np.random.default_rng(0))
        tags = sorted({CLASSES.by_id[entry["class_id"]].name for entry in instances})
        image = (root / "JPEGImages" / f"{path.stem}.jpg").read_bytes()
        made.append(Made(image_id=path.stem, label=label, tags=tags, instances=instances, image=image))
    run = write_made(tmp_path, made, images_per_unit=5)
    for tolerance in (0.0, 1.0):
        output, summary = run.export("yolo-seg", polygon_tolerance=tolerance, output=str(tmp_path / f"{tolerance}"))
        both = union = astray = 0
        for image in made:
            height, width = image.shape
            lines = read_lines(output / "labels" / "train" / f"{image.image_id}.txt")
            for (_, points), entry in zip(lines, image.instances, strict=True):
                mask = decode_mask(entry["mask"]["counts"], height, width)
                filled = fill(points, height, width)
                both += int((mask & filled).sum())
                union += int((mask | filled).sum())
                # VOC's objects have holes: things before them, and the ignored borders of those.
                solid = ndimage.binary_fill_holes(mask)
                astray += int((filled ^ solid).sum())
        assert f"IoU {both / union:.4f}" in str(summary)
        assert astray / union < (0.02 if tolerance else 1e-9)


def test_one_of_two_equal_lines_is_not_lost(tmp_path: Path) -> None:
    """Two masks of the same pixels are two lines."""
    mask = box(0, 0, 9, 9)
    made = Made(image_id="a", label=mask * np.uint8(12), tags=["dog"], instances=[instance(12, mask)] * 2)
    output, _ = write_made(tmp_path, [made]).export("yolo-seg")
    assert len(read_lines(output / "labels" / "train" / "a.txt")) == 2


def test_opencv_is_asked_for_before_anything_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'wsss-ray\[export\]'"):
        run.export("yolo-seg")
    assert not (run.root / "yolo-seg").exists()


def test_pieces_stay_one_object(run: Run) -> None:
    output, _ = run.export("yolo-seg")
    ((_, points),) = read_lines(output / "labels" / "train" / "pieces.txt")
    filled = fill(points, HEIGHT, WIDTH)
    assert ndimage.label(filled, structure=np.ones((3, 3)))[1] == 1
    assert (filled & PIECES).sum() == PIECES.sum()
