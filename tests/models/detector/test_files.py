"""Files of detectors: directories, pinned hub commits, and errors that say what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from wsss_ray.config import DetectorConfig
from wsss_ray.models.detector.files import load_network, load_processor, load_tokenizer
from wsss_ray.models.detector.grounding_dino import pinned
from wsss_ray.models.hub import hub_commit, model_directory

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copy(detectors: dict[str, Path], tmp_path: Path) -> Path:
    """A detector's directory to spoil."""
    return Path(shutil.copytree(detectors["grounding-dino"], tmp_path / "copy"))


@pytest.mark.parametrize("family", ["grounding-dino", "mm-grounding-dino"])
def test_a_directory_loads_offline_in_float32(detectors: dict[str, Path], family: str) -> None:
    network = load_network(model_directory(DetectorConfig(model=str(detectors[family]))))
    assert network.config.model_type == family
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.model.text_backbone.config._attn_implementation == "sdpa"


def test_the_tokenizer_comes_without_the_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    tokenizer = load_tokenizer(DetectorConfig(model=str(copy)))
    assert tokenizer.model_max_length == 256
    with pytest.raises(ValueError, match=r"lacks model\.safetensors.*safetensors only"):
        model_directory(DetectorConfig(model=str(copy)))


def test_a_network_that_reads_less_text_shortens_prompts(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"max_text_len": 40}))
    assert load_tokenizer(DetectorConfig(model=str(copy))).model_max_length == 40


def test_eager_text_attention_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
    with pytest.raises(ValueError, match="'eager', which changes boxes"):
        load_network(copy)


def test_incomplete_weights_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors.pop("model.text_projection.weight")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 of the network's tensors \(model\.text_projection\.weight"):
        load_network(copy)


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        load_network(copy)


def test_another_kind_of_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "owlv2"}))
    with pytest.raises(ValueError, match="has a owlv2 model; the detector takes grounding-dino"):
        load_processor(copy)


def test_code_in_a_checkpoint_is_not_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    classes = {"AutoConfig": "evil.Config", "AutoModelForZeroShotObjectDetection": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": classes}))
    ran = copy / "ran"
    (copy / "evil.py").write_text(f"open({str(ran)!r}, 'w')")
    load_processor(copy)
    load_network(copy)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no/such/directory"}, "neither a directory on this machine, nor a hub id"),
        ({"model": "s3://bucket/detector"}, "is a URI: copy it"),
        ({"model": "someone/detector"}, r"needs detector\.revision.*huggingface\.co/someone/detector/commits/main"),
        ({"model": "someone/detector", "revision": "main"}, "'main' is not a full commit"),
    ],
)
def test_models_that_are_nowhere(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_directory(DetectorConfig(**settings))


def test_a_directory_has_no_revision(detectors: dict[str, Path]) -> None:
    config = DetectorConfig(model=str(detectors["grounding-dino"]), revision=COMMIT)
    with pytest.raises(ValueError, match="has no revisions"):
        model_directory(config)


def test_a_fetched_directory_stands_for_a_uri(detectors: dict[str, Path]) -> None:
    directory = detectors["grounding-dino"]
    assert model_directory(DetectorConfig(model="s3://bucket/detector"), str(directory)) == directory
    with pytest.raises(ValueError, match="does not exist"):
        model_directory(DetectorConfig(model="s3://bucket/detector"), str(directory / "none"))


def test_the_default_model_is_pinned() -> None:
    assert hub_commit(pinned(DetectorConfig())) == "a2bb814dd30d776dcf7e30523b00659f4f141c71"
    assert hub_commit(pinned(DetectorConfig(revision=COMMIT))) == COMMIT


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's files, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_cached_commit_needs_no_network(detectors: dict[str, Path], hub_cache: Path) -> None:
    snapshot = hub_cache / "models--someone--detector" / "snapshots" / COMMIT
    shutil.copytree(detectors["grounding-dino"], snapshot)
    config = DetectorConfig(model="someone/detector", revision=COMMIT)
    assert model_directory(config) == snapshot
    (snapshot / "model.safetensors").unlink()
    assert model_directory(config, weights=False) == snapshot
    with pytest.raises(ValueError, match=r"lacks model\.safetensors"):
        model_directory(config)


def test_an_unreachable_hub_says_what_to_download(hub_cache: Path) -> None:
    command = "hf download IDEA-Research/grounding-dino-tiny --revision a2bb814dd30d776dcf7e30523b00659f4f141c71"
    with pytest.raises(ValueError, match=command):
        model_directory(pinned(DetectorConfig()))
