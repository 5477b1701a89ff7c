"""The tiny detector's vocabulary and its directory."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from tools.demo_models.tiny_detector import build_detector, build_processor, vocabulary
from wsss_ray.demo.scenes import PHRASES


def write(directory: Path, *, seed: int) -> Path:
    """Return an untrained detector."""
    build_detector(seed=seed).save_pretrained(directory)
    build_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("detector"), seed=3)


def test_special_ids_are_bert_s() -> None:
    pieces = vocabulary()
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    assert {index: pieces[index] for index in special} == special
    assert len(set(pieces)) == len(pieces)


@pytest.mark.parametrize(
    ("phrase", "pieces"),
    [
        ("potted plant", ["pot", "##ted", "plant"]),
        ("Dining Table", ["din", "##ing", "table"]),
        ("hot air balloon", ["hot", "air", "ball", "##oon"]),
        ("umbrella", ["um", "##bre", "##lla"]),
        ("mushroom", ["mush", "##room"]),
        ("zebra 7", ["z", "##e", "##b", "##r", "##a", "7"]),
    ],
)
def test_names_split_into_pieces(directory: Path, phrase: str, pieces: list[str]) -> None:
    assert AutoProcessor.from_pretrained(directory).tokenizer.tokenize(phrase) == pieces


def test_no_phrase_is_unknown(directory: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(directory).tokenizer
    for phrase in PHRASES:
        assert tokenizer.unk_token_id not in tokenizer(phrase).input_ids


def test_directory_loads_and_detects(directory: Path) -> None:
    model = AutoModelForZeroShotObjectDetection.from_pretrained(directory).eval()
    processor = AutoProcessor.from_pretrained(directory)
    image = torch.randint(0, 256, (3, 240, 320), dtype=torch.uint8)
    inputs = processor(images=image, text="cat. bowl.", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 192, 256)
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.pred_boxes.shape == (1, 32, 4)
    assert outputs.pred_boxes.isfinite().all()
    assert outputs.logits[0, :, :4].isfinite().all()


def test_a_seed_gives_the_same_weights(directory: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "again", seed=3)
    other = write(tmp_path / "other", seed=4)
    weights = (directory / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == weights
    assert (other / "model.safetensors").read_bytes() != weights
