"""The training loop of both scripts: a cosine schedule, a log, validation, and a checkpoint to resume from."""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

Losses = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length and learning rate of a training."""

    steps: int
    """Largest number of optimizer steps."""
    learning_rate: float
    minutes: float | None = None
    """Largest number of wall-clock minutes, over all resumed runs; the limit that ends first drives the cosine. None:
    no limit, only the steps drive the cosine, so that the result does not depend on the speed of the machine."""
    warmup_steps: int = 100
    clip_norm: float = 0.5
    log_every: int = 25
    validate_every: int = 500

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the training that is done, 1 or more at its end."""
        return max(step / self.steps, 0.0 if self.minutes is None else seconds / (60 * self.minutes))

    def rate(self, step: int, seconds: float) -> float:
        """Return the learning rate: linear warm-up, then a cosine down to 1 %."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step, seconds))))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * (0.01 + 0.99 * cosine)


def training_parser(description: str, *, steps: int, batch: int, learning_rate: float) -> argparse.ArgumentParser:
    """Return a parser of the flags that both training scripts have, with a script's own defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="directory for the drawn scenes")
    parser.add_argument("--work", type=Path, required=True, help="directory for the log and the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint directory to write")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--minutes", type=float, help="wall-clock limit that shortens the schedule; default: none")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--scene-count", type=int, default=24_000)
    parser.add_argument("--validation-count", type=int, default=100)
    return parser


def training_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of both training functions from the flags of `training_parser`."""
    names = ("scenes", "work", "output", "batch", "scene_count", "validation_count")
    schedule = Schedule(steps=options.steps, minutes=options.minutes, learning_rate=options.learning_rate)
    return {**{name: getattr(options, name) for name in names}, "schedule": schedule}


def train(
    model: nn.Module,
    groups: list[dict[str, Any]],
    *,
    schedule: Schedule,
    directory: Path,
    loss_of_step: Callable[[int], tuple[torch.Tensor, Losses]],
    validate: Callable[[], Losses],
) -> dict[str, float]:
    """Train `model` and return the last record of the log.

    `groups` are AdamW parameter groups, each with a "factor" on the learning rate. `loss_of_step(step)` draws
    its batch from the step alone, so that a resumed run sees the same batches. `directory` holds `checkpoint.pt`
    (model, optimizer, step, time spent) and `log.jsonl`; training continues from an existing checkpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, weight_decay=1e-4)
    checkpoint, step, before = directory / "checkpoint.pt", 0, {"seconds": 0.0, "cpu_seconds": 0.0}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, before = state["step"], state["spent"]
    started, started_cpu = time.monotonic(), time.process_time()

    def spent() -> dict[str, float]:
        return {
            "seconds": before["seconds"] + time.monotonic() - started,
            "cpu_seconds": before["cpu_seconds"] + time.process_time() - started_cpu,
        }

    def save() -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent()}
        torch.save(state, partial)
        partial.replace(checkpoint)

    sums: dict[str, float] = {}
    record: dict[str, float] = {}
    model.train()
    while schedule.progress(step, spent()["seconds"]) < 1:
        rate = schedule.rate(step, spent()["seconds"])
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        loss, parts = loss_of_step(step)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            optimizer.step()
        step += 1
        measured = {"loss": float(loss.detach()), **parts} if finite else {}
        for name, value in {**measured, "skipped": float(not finite)}.items():
            sums[name] = sums.get(name, 0.0) + value / schedule.log_every
        if step % schedule.log_every == 0:
            record = {"step": step, **spent(), "learning_rate": rate, "gradient_norm": float(norm), **sums}
            sums = {}
            _log(directory, record)
        if step % schedule.validate_every == 0:
            _log(directory, {"step": step, **spent(), **_validated(model, validate)})
            save()
    record = {"step": step, **spent(), **_validated(model, validate)}
    _log(directory, record)
    save()
    model.eval()
    return record


def _validated(model: nn.Module, validate: Callable[[], Losses]) -> dict[str, float]:
    """Return the figures of the validation, measured in evaluation mode without gradients."""
    model.eval()
    with torch.no_grad():
        figures = {f"validation_{name}": value for name, value in validate().items()}
    model.train()
    return figures


def _log(directory: Path, record: Mapping[str, float]) -> None:
    """Append a record to the log and print it."""
    rounded = {name: round(value, 5) for name, value in record.items()}
    with (directory / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")
    print(json.dumps(rounded), flush=True)
