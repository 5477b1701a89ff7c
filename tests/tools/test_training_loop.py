"""The training loop: its schedule, and a resumed run that equals an undisturbed one."""

import json
from pathlib import Path

import pytest
import torch

from tools.demo_models.training_loop import Schedule, train


class KilledError(Exception):
    """Raised in place of the death of the process."""


def run(directory: Path, *, die_at: int | None = None) -> torch.nn.Linear:
    """Fit a line, with validations every 4 of 12 steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)

    def loss_of_step(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        if step == die_at:
            raise KilledError
        generator = torch.Generator().manual_seed(step)
        x = torch.rand(8, 2, generator=generator)
        loss = (model(x)[:, 0] - x.sum(dim=1)).square().mean()
        return loss, {"twice": 2 * float(loss.detach())}

    train(
        model,
        [{"params": list(model.parameters()), "factor": 1.0}],
        schedule=Schedule(steps=12, learning_rate=0.1, warmup_steps=2, log_every=2, validate_every=4),
        directory=directory,
        loss_of_step=loss_of_step,
        validate=lambda: {"weight": float(model.weight[0, 0].detach())},
    )
    return model


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", die_at=6)
    resumed = run(tmp_path / "killed")
    assert torch.allclose(resumed.weight, whole.weight, atol=1e-6)
    assert not torch.allclose(whole.weight, torch.nn.Linear(2, 1).weight, atol=1e-2)


def test_the_log_has_losses_and_validation(tmp_path: Path) -> None:
    run(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record for record in records if "loss" in record]
    assert [record["step"] for record in losses] == [2, 4, 6, 8, 10, 12]
    assert losses[0]["twice"] == pytest.approx(2 * losses[0]["loss"], abs=1e-4)
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert [record["step"] for record in records if "validation_weight" in record] == [4, 8, 12, 12]


def test_rate_warms_up_and_falls_with_steps_or_time() -> None:
    schedule = Schedule(steps=1000, minutes=10, learning_rate=1.0, warmup_steps=10)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1, rel=1e-3)
    assert schedule.rate(500, 0.0) == pytest.approx(0.01 + 0.99 * 0.5)
    assert schedule.rate(500, 0.0) == pytest.approx(schedule.rate(10, 300.0))
    assert schedule.rate(1000, 0.0) == pytest.approx(0.01)
    assert schedule.progress(100, 300.0) == 0.5


def test_time_changes_nothing_without_a_limit() -> None:
    schedule = Schedule(steps=1000, learning_rate=1.0, warmup_steps=10)
    assert schedule.progress(100, 1e9) == 0.1
    assert schedule.rate(500, 1e9) == schedule.rate(500, 0.0) == pytest.approx(0.01 + 0.99 * 0.5)


def test_steps_without_finite_gradients_are_skipped(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    before = model.weight.detach().clone()
    train(
        model,
        [{"params": list(model.parameters()), "factor": 1.0}],
        schedule=Schedule(steps=1, learning_rate=0.1, log_every=1),
        directory=tmp_path,
        loss_of_step=lambda step: (model.weight.sum() * float("nan"), {}),
        validate=dict,
    )
    assert torch.equal(model.weight, before)
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first["skipped"] == 1
    assert "loss" not in first
