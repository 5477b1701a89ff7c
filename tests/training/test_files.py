"""Checkpoints and metrics in a run directory."""

import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsss_ray.storage.storage import Storage
from wsss_ray.training.checkpoint import Snapshot, read_checkpoint, write_checkpoint
from wsss_ray.training.history import History, Row, read_metrics
from wsss_ray.training.saved import FOLDER, list_checkpoints


def snapshot(iteration: int) -> Snapshot:
    return Snapshot(iteration=iteration, tensors={"weight/a": torch.full((2,), float(iteration))})


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    for iteration in (5, 10, 100):
        write_checkpoint(output, snapshot(iteration), keep=2)
    assert list_checkpoints(output) == [10, 100]
    assert read_checkpoint(output, 100).tensors["weight/a"].tolist() == [100.0, 100.0]
    assert read_checkpoint(output, 10).iteration == 10


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    write_checkpoint(output, snapshot(3), keep=1)
    path = next((tmp_path / FOLDER).iterdir())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"is damaged.*Remove it"):
        read_checkpoint(output, 3)


def row(iteration: int, loss: float, miou: float | None = None) -> Row:
    return Row(iteration=iteration, loss=loss, learning_rate=0.1 / iteration, miou=miou)


def test_rows_after_the_checkpoint_are_forgotten_on_resume(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    first = History(output, start=0)
    for iteration in (1, 2, 3):
        first.add(row(iteration, 1 / 3, 0.25 if iteration == 2 else None))
    first.close()
    time.sleep(1.1)  # TensorBoard orders a session's files by the second in which they began
    again = History(output, start=2)
    for iteration in (3, 4):
        again.add(row(iteration, 0.5))
    again.close()
    assert read_metrics(output) == [row(1, 1 / 3), row(2, 1 / 3, 0.25), row(3, 0.5), row(4, 0.5)]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, round(event.value, 3)) for event in events.Scalars("loss")] == [
        (1, 0.333),
        (2, 0.333),
        (3, 0.5),
        (4, 0.5),
    ]
    assert [event.step for event in events.Scalars("miou")] == [2]


def test_tensorboard_forgets_a_session_that_died_before_its_first_checkpoint(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    for loss in (1.0, 0.5):
        history = History(output, start=0)
        for iteration in (1, 2):
            history.add(row(iteration, loss))
        history.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.5)]
