"""The training job on a real Ray: equal curves for any number of workers, and after any death."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from disks import make_room, small_disk
from faulty_s3 import Faults, away_once, faulty
from local_s3 import S3Server
from processes import check_loopback, listened, training_workers
from repository import REPOSITORY
from soak import SOAK
from training_cases import CLASSES, configure, draw, losses_of_a_loop, write_set

from wsss_ray.config import RayConfig, StudentConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.ownership import Ownership
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.models.student.files import decode_student
from wsss_ray.storage.json_files import read_json
from wsss_ray.storage.storage import Storage
from wsss_ray.training import session
from wsss_ray.training.checkpoint_files import FOLDER, checkpoint_path, list_checkpoints
from wsss_ray.training.job import run
from wsss_ray.training.metrics import IterationMetrics, read_metrics
from wsss_ray.training.worker import Assignment

ITERATIONS = 42


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 24 images, two of which failed in labelling."""
    folder = tmp_path_factory.mktemp("training")
    write_set(folder, [draw(index, failed=index in (3, 17)) for index in range(24)])
    return folder


@pytest.fixture(scope="session")
def common(images: Path) -> Callable[..., TrainConfig]:
    """Return `common(output, **fields)`: the training that several tests run."""

    def make(output: Path, **fields: object) -> TrainConfig:
        return configure(
            images,
            output,
            **{
                "iterations": ITERATIONS,
                "learning_rate": 1e-3,
                "checkpoint_every": 5,
                "validation": f"{images}/images",
                "validation_every": 20,
                "validation_limit": 8,
                **fields,
            },
        )

    return make


@dataclass(frozen=True, kw_only=True)
class Straight:
    """The output of a training by one worker."""

    output: Path
    rows: list[IterationMetrics]
    summary: dict[str, Any]
    happened: Counter[str]
    """Faults of the store during the training."""


@pytest.fixture(scope="session")
def straight(
    images: Path,
    common: Callable[..., TrainConfig],
    local_ray: Resources,
    s3: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Straight:
    """Train from and to a store that refuses a fifth of the requests, breaks connections and is away for some time.

    Its output was then copied to a folder.
    """
    for path in Storage(str(images)).walk():
        Storage(s3.uri("train"), s3.config).write(path, (images / path).read_bytes())
    folder = tmp_path_factory.mktemp("straight")
    written = Storage(s3.uri("trained"), s3.config)
    with faulty(s3) as proxy:
        proxy.faults = Faults(refuse=0.2, drop=0.03, lose=0.03, cut=0.03)
        places = {name: proxy.uri(f"train/{path}") for name, path in (("images", "images"), ("labels", "labels"))}
        places |= {"validation": places["images"], "output": proxy.uri("trained")}
        with away_once(proxy, lambda: list_checkpoints(written)):
            summary = run(replace(common(folder), **places, storage=proxy.config))
        happened = proxy.happened
    for path in written.walk():
        Storage(str(folder)).write(path, written.read(path))
    return Straight(output=folder, rows=read_metrics(written), summary=summary, happened=happened)


def check_same_curve(output: Path, straight: list[IterationMetrics], *, tolerance: float) -> None:
    rows = read_metrics(Storage(str(output)))
    assert [row.iteration for row in rows] == list(range(1, ITERATIONS + 1))
    assert [row.learning_rate for row in rows] == [row.learning_rate for row in straight]
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in straight], rel=tolerance)
    for row, other in zip(rows, straight, strict=True):
        assert (row.miou is None) == (other.miou is None)
        assert row.miou == (None if other.miou is None else pytest.approx(other.miou, abs=0.01))


def test_a_run_leaves_all_that_it_should(straight: Straight) -> None:
    output, rows, summary = straight.output, straight.rows, straight.summary
    assert [row.iteration for row in rows] == list(range(1, ITERATIONS + 1))
    assert [row.iteration for row in rows if row.miou is not None] == [20, 40, 42]
    assert rows[-1].loss < 0.7 * rows[0].loss
    assert rows[9].learning_rate == pytest.approx(1e-3 * (1 - 9 / ITERATIONS) ** 0.9)
    assert summary == read_json(Storage(str(output)), "summary.json")
    assert (summary["iterations"], summary["images"], summary["left_out"]) == (ITERATIONS, 22, {"failed": 2})
    assert list_checkpoints(Storage(str(output))) == [40, 42]
    student = decode_student((output / "student.safetensors").read_bytes())
    assert student.spec.class_names == ("background", *CLASSES.names)
    assert list((output / "tensorboard").glob("events.*"))


def test_one_worker_does_what_a_bare_loop_does(straight: Straight, common: Callable[..., TrainConfig]) -> None:
    expected = losses_of_a_loop(common(straight.output))
    assert [row.loss for row in straight.rows] == pytest.approx(expected, rel=1e-5)


def test_a_finished_run_has_nothing_to_do(
    straight: Straight, common: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    again = run(common(straight.output, checkpoint_every=7, ray=RayConfig(actors=2)))
    assert again["session"] == straight.summary["session"]
    assert (again["loss"], again["iterations"]) == (straight.rows[-1].loss, ITERATIONS)
    assert "nothing to do" in capsys.readouterr().out


def test_a_run_that_lacks_its_student_alone_is_finished_from_the_last_checkpoint(
    common: Callable[..., TrainConfig], straight: Straight, in_this_process: None, tmp_path: Path
) -> None:
    """The run ends within a stretch, which has five iterations."""
    shutil.copytree(straight.output, tmp_path, dirs_exist_ok=True)
    (tmp_path / "student.safetensors").unlink()
    run(common(tmp_path))
    assert (tmp_path / "student.safetensors").read_bytes() == (straight.output / "student.safetensors").read_bytes()
    assert read_metrics(Storage(str(tmp_path))) == straight.rows


def test_another_configuration_is_refused(straight: Straight, common: Callable[..., TrainConfig]) -> None:
    config = common(straight.output)
    for changed, name in ((replace(config, seed=5), "seed: 0 -> 5"), (replace(config, crop=66), "crop: 65 -> 66")):
        with pytest.raises(ValueError, match=f"another configuration(.|\n)*{name}"):
            run(changed)


def wait_for_checkpoint(output: Path, *, after: int) -> int:
    end = time.monotonic() + 400
    while not (later := [one for one in list_checkpoints(Storage(str(output))) if one > after]):
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.02)
    return later[-1]


def test_a_killed_driver_changes_nothing_and_nobody_outside_was_listened_to(
    common: Callable[..., TrainConfig],
    straight: Straight,
    in_this_process: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two workers, each with two micro-batches an update, which is the same network too.

    In `make soak` one of them is killed first; then their driver; one worker continues from there.
    """
    config = common(tmp_path)
    command = [sys.executable, "jobs/train.py", "--images", config.images, "--labels", str(config.labels)]
    command += ["--output", config.output, "--classes", "demo", "--preset", "demo", "--optimizer", "sgd"]
    command += ["--iterations", str(ITERATIONS), "--batch-size", "4", "--crop", "65", "--learning-rate", "1e-3"]
    command += ["--validation", str(config.validation), "--validation-every", "20", "--validation-limit", "8"]
    command += ["--student.architecture", "deeplabv2-tiny", "--student.init", "none", "--checkpoint-every", "5"]
    command += ["--accumulation", "2", "--ray.actors", "2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    listening: set[str] = set()
    try:
        begun = wait_for_checkpoint(tmp_path, after=0)
        workers = first = training_workers(driver.pid)
        if SOAK:
            os.kill(first[-1], signal.SIGKILL)
            begun = wait_for_checkpoint(tmp_path, after=list_checkpoints(Storage(str(tmp_path)))[-1])
            workers = training_workers(driver.pid)
            assert not set(first) & set(workers), "after a death all workers are new"
        listening = listened(psutil.Process(driver.pid))
    finally:
        family = [one for one in psutil.Process(driver.pid).children(recursive=True) if one.pid in workers]
        driver.kill()
        printed, _ = driver.communicate()
    assert "iterations" in printed
    for unwanted in ("Progress bars disabled", "execution finished"):
        assert unwanted not in printed, "Ray Data's own lines"
    assert len(first) == len(workers) == 2
    check_loopback(listening)
    assert not psutil.wait_procs(family, timeout=60)[1], "the workers go with their driver"
    assert not (tmp_path / "student.safetensors").exists()
    begun = list_checkpoints(Storage(str(tmp_path)))[-1]
    run(config)
    assert begun < ITERATIONS - 10, "the kill came too late to test anything"
    assert f"continuing after iteration {begun}" in capsys.readouterr().out
    check_same_curve(tmp_path, straight.rows, tolerance=1e-3)  # sums in another order


def test_a_loss_that_is_no_number_stops_the_run(
    common: Callable[..., TrainConfig], in_this_process: None, tmp_path: Path
) -> None:
    config = replace(common(tmp_path), learning_rate=1e30, validation=None)
    with pytest.raises(JobError, match=r"the loss of iteration \d+ is (nan|inf).*learning rate.*samples image-\d"):
        run(config)
    assert not (tmp_path / "student.safetensors").exists()
    assert not math.isfinite(read_metrics(Storage(str(tmp_path)))[-1].loss)


def test_a_checkpoint_that_cannot_be_written_ends_the_run(images: Path, in_this_process: None, tmp_path: Path) -> None:
    """The error names the file; the checkpoint before it is kept."""
    in_the_way = tmp_path / FOLDER / "iteration-00000004.safetensors"
    (in_the_way / "a").mkdir(parents=True)
    with pytest.raises(JobError, match=r"training stopped: .*iteration-00000004\.safetensors: .*[Dd]irectory"):
        run(configure(images, tmp_path))
    assert list_checkpoints(Storage(str(tmp_path))) == [2]
    assert not (tmp_path / "student.safetensors").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_does_not_start_ends_the_run_before_an_update(
    images: Path, in_this_process: None, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"stopped: CUDA does not start on .* is for CUDA .*device: cpu"):
        run(replace(configure(images, tmp_path), device="cuda"))
    assert not list_checkpoints(Storage(str(tmp_path)))


def test_a_full_disk_ends_the_run_which_then_goes_on(
    images: Path, straight: Straight, in_this_process: None, tmp_path: Path
) -> None:
    """The disk has room for a checkpoint and a half."""
    size = (straight.output / checkpoint_path(ITERATIONS)).stat().st_size
    config = configure(images, tmp_path / "out")
    with small_disk(tmp_path / "out", kilobytes=int(1.5 * size / 1000) + 50):
        with pytest.raises(JobError, match=r"training stopped: .*iteration-00000004\.safetensors: the disk is full"):
            run(config)
        assert list_checkpoints(Storage(config.output)) == [2]
        make_room(tmp_path / "out")
        run(config)
        losses = [row.loss for row in read_metrics(Storage(config.output))]
    assert losses == pytest.approx(losses_of_a_loop(config), rel=1e-5)


def test_a_driver_writes_nothing_more_once_another_has_taken_over(
    images: Path, in_this_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TakenOver(Ownership):
        @classmethod
        def take(cls, output: Storage, file: str, **content: Any) -> Ownership:
            earlier = Ownership.take(output, file, **content)
            Ownership.take(output, file, **content)
            return earlier

    monkeypatch.setattr(session, "Ownership", TakenOver)
    with pytest.raises(JobError, match=r"training stopped: another driver has taken over .*last checkpoint"):
        run(configure(images, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["driver.json", "run.json", "tensorboard"]


@dataclass(frozen=True)
class StandIn:
    """A trainer of Ray Train that misbehaves."""

    assignment: Assignment
    how: str

    def fit(self) -> None:
        """Do no work."""
        if self.how == "raises":
            raise KeyError("a defect")
        if self.how == "loses the monitor":
            ray.get(self.assignment.monitor.state.remote())
            ray.kill(self.assignment.monitor)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raises", "KeyError: 'a defect'"),
        ("loses the monitor", "[Aa]ctor"),
        ("ends early", r"it ended without .*student\.safetensors"),
    ],
)
def test_no_training_that_broke_off_looks_like_a_success(
    images: Path, local_ray: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    monkeypatch.setattr(session, "make_trainer", lambda assignment, _layout, **_options: StandIn(assignment, how))
    with pytest.raises(JobError, match=rf"training was interrupted: .*{told}.*\n.*last checkpoint is kept"):
        run(configure(images, tmp_path))
    assert not (tmp_path / "summary.json").exists()


def test_a_validation_without_truth_stops_the_run(
    common: Callable[..., TrainConfig], in_this_process: None, tmp_path: Path
) -> None:
    """The shards hold ground truth, but not for the images within the limit. Unfinished files are removed."""
    write_set(tmp_path, [draw(index, truth=index > 7) for index in range(12)])
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    left = tmp_path / "out" / FOLDER / f".iteration-00000005.safetensors.{'0' * 32}.tmp"
    left.touch()
    config = common(tmp_path / "out", validation=f"{tmp_path}/images", validation_limit=4, validation_every=1)
    with pytest.raises(JobError, match=r"none of the validation images in .* has ground truth"):
        run(config)
    assert not left.exists()


def test_weights_that_are_not_there_are_refused(common: Callable[..., TrainConfig], tmp_path: Path) -> None:
    student = StudentConfig(
        architecture="deeplabv2-tiny", init="checkpoint", weights=str(tmp_path / "gone.safetensors")
    )
    with pytest.raises(ValueError, match=r"student\.weights: there is no .*gone\.safetensors"):
        run(replace(common(tmp_path / "out"), student=student))
    assert not (tmp_path / "out").exists()


def test_every_request_that_was_made_again_is_counted(straight: Straight) -> None:
    counts, happened = straight.summary["session"]["storage_retries"], straight.happened
    refused = counts["SlowDown"] + counts.get("HTTP 503", 0)  # an answer to HEAD has no body
    assert counts["EndpointConnectionError"] >= 1
    assert happened["refuse"] - 4 <= refused <= happened["refuse"], "only those of the summary itself come after it"


def test_from_the_truth(in_this_process: None, tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index) for index in range(8)])
    config = configure(tmp_path, tmp_path / "out", labels=None, label_column="truth")
    summary = run(config)
    assert (summary["iterations"], summary["images"]) == (6, 8)
    rows = read_metrics(Storage(config.output))
    assert [row.loss for row in rows] == pytest.approx(losses_of_a_loop(config), rel=1e-5)
