"""Checkpoints of the segmenter: every form that loads, and the advice in every error."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import random_models
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from torch import Tensor

from wsss_ray.config import SegmenterConfig
from wsss_ray.errors import CheckpointError
from wsss_ray.models.sam import weights as sam_weights
from wsss_ray.models.sam.boxes import SamBoxes
from wsss_ray.models.sam.loading import load_sam
from wsss_ray.models.sam.weights import OFFICIAL_FILES, checkpoint_path
from wsss_ray.models.state_files import read_state


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return random_models.write_sam(tmp_path / "tiny", seed=1)


def large_state(model: str) -> dict[str, Tensor]:
    """A state dict of a full-size model that takes no room: every tensor is one number, repeated."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in sam_model_registry[model]().state_dict().items()}
    return {name: torch.tensor(0.5).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("model", ["vit_b", "vit_l", "vit_h"])
def test_full_size_models_load(tmp_path: Path, model: str) -> None:
    torch.save(large_state(model), tmp_path / "sam.pth")
    sam = load_sam(model, tmp_path / "sam.pth")
    assert not sam.training
    assert all(not parameter.requires_grad for parameter in sam.parameters())
    assert all(not tensor.is_meta for tensor in sam.state_dict().values())
    assert sam.image_encoder.blocks[0].attn.qkv.weight[0, 0] == 0.5
    assert sam.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


@pytest.mark.parametrize("legacy", [False, True])
def test_both_forms_of_pth_and_safetensors_load_the_same(tiny: Path, tmp_path: Path, legacy: bool) -> None:
    expected = load_file(tiny / "model.safetensors")
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    torch.save(expected, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    for path in (tiny, tiny / "model.safetensors", tmp_path / "weights.pth"):
        state = load_sam("tiny", path).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_half_precision_weights_become_float32(tiny: Path) -> None:
    state = {name: tensor.half() for name, tensor in load_file(tiny / "model.safetensors").items()}
    save_file(state, tiny / "model.safetensors")
    assert {tensor.dtype for tensor in load_sam("tiny", tiny).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("model", ["vit_h", "vit_l", "vit_b"])
@pytest.mark.parametrize("checkpoint", [None, "missing/sam.pth", "."])
def test_a_missing_checkpoint_names_the_official_file(tmp_path: Path, model: str, checkpoint: str | None) -> None:
    path = None if checkpoint is None else str(tmp_path / checkpoint)
    with pytest.raises(CheckpointError) as caught:
        SamBoxes(SegmenterConfig(model=model, checkpoint=path))
    official = OFFICIAL_FILES[model]
    assert f"https://dl.fbaipublicfiles.com/segment_anything/{official.name}" in str(caught.value)
    assert official.sha256 in str(caught.value)
    if path is not None:
        assert str(Path(path)) in str(caught.value)


def test_a_checkpoint_handed_over_is_looked_for_too(tmp_path: Path) -> None:
    config = SegmenterConfig(model="vit_b", checkpoint="s3://bucket/sam.pth")
    with pytest.raises(CheckpointError, match=r"no segmenter checkpoint at .*sam_vit_b_01ec64\.pth"):
        SamBoxes(config, checkpoint=tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"s3://bucket/sam\.pth is not on this machine"):
        SamBoxes(config)


def test_a_missing_tiny_checkpoint_says_what_it_needs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam_weights, "DEMO_WEIGHTS", tmp_path / "demo")
    with pytest.raises(CheckpointError, match=r"at .*demo\. The model tiny needs .* config.json and model.safetensors"):
        checkpoint_path(SegmenterConfig(model="tiny"))
    (tiny / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks .*config\.json"):
        load_sam("tiny", checkpoint_path(SegmenterConfig(model="tiny", checkpoint=str(tiny))))


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_tiny_checkpoint_is_its_directory(tiny: Path, name: str) -> None:
    """So that a digest of it covers the configuration."""
    assert checkpoint_path(SegmenterConfig(model="tiny", checkpoint=f"file://{tiny / name}")) == tiny


def test_a_checkpoint_of_another_size_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(large_state("vit_b"), path)
    with pytest.raises(CheckpointError) as caught:
        load_sam("vit_h", path)
    text = str(caught.value)
    assert str(path) in text
    assert "does not fit the segmenter vit_h" in text
    assert "It looks like vit_b: set segmenter.model: vit_b, or use" in text
    assert OFFICIAL_FILES["vit_h"].name in text


@pytest.mark.parametrize(
    ("state", "looks_like"),
    [
        ({"vision_encoder.pos_embed": torch.zeros(1)}, "a SAM in the format of the transformers library"),
        ({"backbone.weight": torch.zeros(1)}, "a model other than SAM of segment-anything"),
        ({"image_encoder.pos_embed": torch.zeros(1, 16, 16, 32)}, "width 32 and 0 blocks"),
    ],
)
def test_other_models_are_told_apart(tmp_path: Path, state: dict[str, Tensor], looks_like: str) -> None:
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=looks_like):
        load_sam("vit_b", tmp_path / "other.pth")


def test_hq_sam_is_told_apart(tmp_path: Path) -> None:
    torch.save(large_state("vit_b") | {"mask_decoder.hf_token.weight": torch.zeros(1, 256)}, tmp_path / "hq.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected \(mask_decoder.hf_token.weight\).*HQ-SAM of size vit_b"):
        load_sam("vit_b", tmp_path / "hq.pth")


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    state = {f"weight{index}": torch.rand(100) for index in range(9)}
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "text": b"<html>Not found</html>", "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=str(path)):
        load_sam("vit_b", path)


class Payload:
    """What a hostile checkpoint would hold."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("opened"),)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, tmp_path / "sam.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("sam.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match=f"{name} is damaged or holds other objects than tensors"):
            load_sam("vit_b", tmp_path / name)
    assert not (tmp_path / "opened").exists()


def test_an_old_torch_reads_pickles_only_by_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sam.pth"
    torch.save(large_state("vit_b"), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(CheckpointError, match=r"sam\.pth is refused: in torch 2\.9\.1\+cu128 .*CVE-2026-24747"):
        SamBoxes(SegmenterConfig(model="vit_b", checkpoint=str(path), device="cpu"))
    SamBoxes(SegmenterConfig(model="vit_b", sha256=digest, device="cpu"), checkpoint=path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "sam.safetensors")
    assert set(read_state(tmp_path / "sam.safetensors")) == {"weight"}
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    assert len(read_state(path)) > 100


def test_a_training_checkpoint_is_told_apart(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}, "epoch": 3}, tmp_path / "training.pth")
    with pytest.raises(CheckpointError, match=r"is not a state dict .* it holds: model, epoch"):
        load_sam("vit_b", tmp_path / "training.pth")


def test_a_configuration_must_be_one(tiny: Path) -> None:
    (tiny / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        load_sam("tiny", tiny)
    (tiny / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="must hold a JSON object"):
        load_sam("tiny", tiny)
    (tiny / "config.json").write_text(json.dumps(random_models.SAM_CONFIG | {"prompt_embed_dim": 64}))
    with pytest.raises(CheckpointError, match="of another shape"):
        load_sam("tiny", tiny)


def test_a_digest_is_not_ignored(tiny: Path) -> None:
    config = SegmenterConfig(model="tiny", checkpoint=str(tiny), sha256="0" * 64, device="cpu")
    with pytest.raises(CheckpointError, match=r"segmenter\.sha256 is set: check the file"):
        SamBoxes(config)
