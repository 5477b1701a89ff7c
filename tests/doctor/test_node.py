"""The checks of a node, on this machine's own limits and on real stores."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest
from local_s3 import S3Server

from wsss_ray.config.shared import StorageConfig
from wsss_ray.doctor.node import NodeChecks, check_input, check_limits, check_output, installed
from wsss_ray.doctor.results import CheckResult
from wsss_ray.models.protocols import Weights
from wsss_ray.models.sam.weights import DEMO_WEIGHTS
from wsss_ray.storage.storage import Storage

STORAGE = StorageConfig()


def checks(folder: Path, **changes: object) -> NodeChecks:
    values: dict[str, object] = {
        "versions": installed(),
        "weights": {},
        "token": "token",
        "storage": STORAGE,
    }
    return NodeChecks(**{**values, "output": str(folder), "input": None, **changes})  # type: ignore[arg-type]


def states(results: list[CheckResult]) -> dict[str, str]:
    return {result.check: result.state for result in results}


def test_a_node_like_its_driver_passes(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    (tmp_path / "a.parquet").write_bytes(b"0123456789")
    weights = {"segmenter": Weights(files=(DEMO_WEIGHTS / "model.safetensors",))}
    _, digests, results = checks(tmp_path, weights=weights, input=str(tmp_path)).run(0.0)
    assert len(digests["segmenter"][0]) == 64
    found = states(results)
    del found["open files"]  # that of this machine
    assert found == dict.fromkeys(["versions", "shared memory", "output", "input", "segmenter weights"], "ok")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "token"]


def test_other_versions_and_missing_weights_are_errors(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    versions = {**installed(), "torch": "1.0"}
    weights = {"detector": Weights(files=(tmp_path / "gone",))}
    _, digests, results = checks(tmp_path, versions=versions, weights=weights).run(0.0)
    wrong = {result.check: result.found for result in results if result.state == "error"}
    assert set(wrong) == {"versions", "detector weights"}
    assert "(driver: 1.0)" in wrong["versions"]
    assert not digests


def test_low_limits_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    found = list(check_limits(float(shutil.disk_usage("/dev/shm").total + 1)))
    assert [(one.check, one.state) for one in found] == [("open files", "warning"), ("shared memory", "warning")]
    assert "ulimit -n 65536" in found[0].advice


def test_an_output_that_the_driver_does_not_share_is_an_error(tmp_path: Path) -> None:
    (found,) = check_output(Storage(str(tmp_path)), "token")
    assert (found.check, found.state) == ("output", "error")
    assert "storage that all nodes share" in found.advice


def test_a_store_with_conditional_writes_passes_and_is_left_as_it_was(s3: S3Server) -> None:
    storage = Storage(s3.uri("doctor/run"), s3.config)
    storage.write("token", b"")
    (found,) = check_output(storage, "token")
    assert found.state == "ok"
    assert list(storage.list()) == ["token"]
    (missing,) = check_input(storage)
    assert (missing.check, missing.state) == ("input", "error")


def test_a_store_that_overwrites_is_an_error(tmp_path: Path) -> None:
    class Overwriting(Storage):
        def create(self, path: str, data: bytes) -> bool:
            self.write(path, data if data else self.read(path))
            return True

    storage = Overwriting(str(tmp_path))
    storage.write("token", b"")
    (found,) = check_output(storage, "token")
    assert "overwrites files" in found.found


def test_an_address_that_cannot_be_reached_is_an_error() -> None:
    storage = Storage("s3://bucket/run", StorageConfig(endpoint_url="http://127.0.0.1:9", retries=0))
    (found,) = check_output(storage, "token")
    assert (found.check, found.state) == ("output", "error")
