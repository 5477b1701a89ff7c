"""The Parquet folder, opened by `datasets`."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from export_cases import EXPORTED, HEIGHT, WIDTH, Run, photo, write_made
from made_runs import Made
from PIL import Image
from pycocotools import mask as coco_mask

from wsss_ray.classes import ClassSet
from wsss_ray.images.decoding import decode_image
from wsss_ray.images.rle import decode_mask


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` reads these when it is first imported; its cache goes beside the test's files."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def test_load_dataset_gives_images_and_labels(run: Run, tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415 - after the environment is set

    output, summary = run.export("huggingface", split="train_aug")
    dataset = datasets.load_dataset(str(output), split="train_aug", cache_dir=str(tmp_path / "cache"))
    assert isinstance(dataset.features["image"], datasets.Image)
    assert isinstance(dataset.features["label"], datasets.Image)
    assert dataset.column_names == ["image_id", "image", "label", "tags", "status", "objects"]
    assert len(dataset) == len(EXPORTED)
    for row, made in zip(dataset, EXPORTED, strict=True):
        assert row["image_id"] == made.image_id
        assert row["tags"] == list(made.tags)
        assert row["label"].mode == "P"
        np.testing.assert_array_equal(np.asarray(row["label"]), made.label)
        np.testing.assert_array_equal(np.asarray(row["image"]), decode_image(made.image, exif="ignore"))
        for found, entry in zip(row["objects"], made.instances, strict=True):
            mask = coco_mask.decode(found["mask"])
            np.testing.assert_array_equal(mask, decode_mask(entry["mask"]["counts"], HEIGHT, WIDTH))
            assert found["bbox"] == entry["box"]
            assert (found["class_id"], found["phrase"]) == (entry["class_id"], entry["phrase"])
            assert found["class"] == ClassSet.load("voc").by_id[entry["class_id"]].name
            assert found["score"] == np.float32(entry["score"])
            assert found["mask_score"] == np.float32(entry["mask_score"])
    assert [row["status"] for row in dataset].count("no_detections") == 1
    assert 'split="train_aug"' in str(summary)


def test_parquet_and_card_say_the_same(run: Run) -> None:
    import datasets  # noqa: PLC0415 - after the environment is set

    output, _ = run.export("huggingface")
    files = sorted((output / "data").iterdir())
    assert len(files) == 3
    from_parquet = datasets.Features.from_arrow_schema(pq.read_schema(files[0]))
    card = yaml.safe_load((output / "README.md").read_text().split("---\n")[1])
    from_card = datasets.Features._from_yaml_list(card["dataset_info"]["features"])
    assert from_parquet == from_card
    table = pq.read_table(files[0])
    assert table["image"][0].as_py() == {"bytes": EXPORTED[0].image, "path": "ring.jpg"}


def test_predictions_have_no_objects_column(tmp_path: Path) -> None:
    made = Made(image_id="a", label=np.zeros((HEIGHT, WIDTH), np.uint8), instances=None)
    output, _ = write_made(tmp_path, [made]).export("huggingface")
    assert pq.read_schema(next((output / "data").iterdir())).names == ["image_id", "image", "label", "tags", "status"]
    assert "objects" not in (output / "README.md").read_text()


def test_16_bit_labels_come_back(tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415 - after the environment is set

    names = "\n".join(f"  thing {number}:" for number in range(300))
    classes = tmp_path / "many.yaml"
    classes.write_text(f"name: many\nclasses:\n{names}\n")
    label = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) % 301
    label[0, 0] = 65535
    made = Made(image_id="a", label=label, tags=["thing 7"])
    run = write_made(tmp_path, [made], classes=str(classes))
    output, _ = run.export("huggingface", classes=str(classes))
    dataset = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(np.asarray(dataset[0]["label"]), label)
    output, _ = run.export("voc", classes=str(classes))
    np.testing.assert_array_equal(np.asarray(Image.open(output / "SegmentationClass" / "a.png")), label)


def test_an_upright_image_is_turned_no_further(tmp_path: Path) -> None:
    """`datasets` obeys EXIF; the exported image asks for no turn."""
    import datasets  # noqa: PLC0415 - after the environment is set

    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo(0))).save(stream, "JPEG", exif=exif)
    label = np.zeros((WIDTH, HEIGHT), np.uint8)
    run = write_made(tmp_path, [Made(image_id="a", label=label, image=stream.getvalue())])
    output, _ = run.export("huggingface")
    dataset = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset[0]["image"].size == dataset[0]["label"].size == (HEIGHT, WIDTH)


def test_labels_alone(run: Run, tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415 - after the environment is set

    output, _ = run.export("huggingface", copy_images=False)
    dataset = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.column_names == ["image_id", "label", "tags", "status", "objects"]


@pytest.mark.parametrize(("split", "hint"), [("train-aug", "train_aug"), ("a..b", "a_b")])
def test_names_that_are_no_split_are_refused(run: Run, split: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"--split {hint}"):
        run.export("huggingface", split=split)
