"""The initial weights of a student: how they are fetched, and what identifies them in the run's identity."""

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants
from local_s3 import S3Server

from wsss_ray.config import StorageConfig, StudentConfig
from wsss_ray.storage.storage import Storage
from wsss_ray.storage.weights import fetch_file
from wsss_ray.training.initial_weights import fetch_student_weights, student_weights_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = StudentConfig(architecture="transformers:someone/student", revision=COMMIT, init="pretrained")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use empty caches and no network."""
    monkeypatch.setenv("WSSS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_student_from_nothing_fetches_nothing() -> None:
    config = StudentConfig(architecture="deeplabv2-tiny", init="none")
    assert fetch_student_weights(config, StorageConfig()) is None
    assert student_weights_digest(config, StorageConfig()) is None


def test_a_remote_file_is_fetched_and_its_digest_checked(s3: S3Server) -> None:
    Storage(s3.uri("students"), s3.config).write("coco.pth", b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    config = StudentConfig(init="caffe", weights=s3.uri("students/coco.pth"), sha256=digest)
    path = fetch_student_weights(config, s3.config)
    assert path is not None
    assert (path.name, path.read_bytes()) == ("coco.pth", b"weights")
    assert student_weights_digest(config, s3.config) == digest
    wrong = StudentConfig(init="caffe", weights=s3.uri("students/coco.pth"), sha256="0" * 64)
    with pytest.raises(ValueError, match=f"has SHA-256 {digest}, not {'0' * 64}"):
        fetch_student_weights(wrong, s3.config)


def test_the_first_digits_of_a_digest_suffice(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert fetch_file(str(path), sha256=digest[:8], config=StorageConfig()) == path
    for digits in (digest[:7], "", "0" * 8):
        with pytest.raises(ValueError, match="has SHA-256"):
            fetch_file(str(path), sha256=digits, config=StorageConfig())


def test_torchvisions_weights_are_known_by_their_file_name() -> None:
    assert student_weights_digest(StudentConfig(), StorageConfig()) == "63fe2227"


def test_a_cached_commit_of_the_hub_needs_no_network(cache: Path) -> None:
    snapshot = cache / "models--someone--student" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"")
    assert fetch_student_weights(HUB, StorageConfig()) == snapshot
    assert student_weights_digest(HUB, StorageConfig()) == COMMIT


def test_a_hub_out_of_reach_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=f"hf download someone/student --revision {COMMIT}"):
        fetch_student_weights(HUB, StorageConfig())
