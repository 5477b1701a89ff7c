"""The pipeline job: its steps in one Ray session, each done once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from wsss_ray import prediction, sharding, training
from wsss_ray.config import EvaluateConfig, ReportConfig
from wsss_ray.config.pipeline import PipelineConfig
from wsss_ray.datasets.manifest import read_text
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.evaluation import job as evaluation
from wsss_ray.evaluation.job import RESULT_FILE
from wsss_ray.labelling import job as labelling
from wsss_ray.pipeline.plan import Judged, Plan, make_plan
from wsss_ray.report import job as report
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.local_files import FileInfo
from wsss_ray.storage.storage import Storage
from wsss_ray.training.initial_weights import student_weights_digest
from wsss_ray.training.plan import check_batch, lay_out

SUMMARY_FILE = "summary.json"
STATE_FILE = "pipeline-state.json"
"""Beside an evaluation: what it was made of."""


def run(config: PipelineConfig) -> dict[str, Any]:
    """Run every step that is not done yet.

    Returns:
        What `summary.json` in the output holds: label_miou and student_miou (0 to 1, null without ground truth), where
        things lie, and the seconds of this call's steps.

    Raises:
        ValueError: a section cannot be used; what earlier steps made stands.
        JobError: a step broke off. The same command goes on from there.
        StorageError: a file or store that a step needs cannot be used.
        The text of each begins with the step's name.
    """
    plan = make_plan(config)
    _check_trainings(plan, None)
    seconds: dict[str, float] = {}
    with connect(config.ray) as resources:
        _check_trainings(plan, resources)
        results = _run_steps(plan, seconds, gallery=config.gallery)
    summary: dict[str, Any] = {
        "label_miou": results["evaluate labels"],
        "student_miou": results["evaluate predictions"],
        "judged_on": plan.predict.input,
        "shards": plan.shard.output,
        "labels": plan.label.output,
        "student": plan.train.output,
        "predictions": plan.predict.output,
        "evaluations": [judged.evaluate.output for judged in (plan.labels, plan.predictions)],
        "galleries": [f"{judged.report.output}/index.html" for judged in (plan.labels, plan.predictions)]
        if config.gallery
        else [],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    output = Storage(config.output, config.storage)
    output.sweep()
    output.write(SUMMARY_FILE, (json.dumps(summary, indent=2) + "\n").encode())
    print(format_summary(summary), flush=True)
    return summary


def _check_trainings(plan: Plan, resources: Resources | None) -> None:
    """Refuse what a training would, but hours earlier.

    Initial weights that are missing, workers that cannot share the batch and, once the cluster is known, those that
    find no place on it.
    """
    initial = plan.pretraining or plan.train
    student_weights_digest(initial.student, initial.storage)
    for step, config in (("pretraining", plan.pretraining), ("train", plan.train)):
        try:
            if config is not None and resources is not None:
                lay_out(config, resources)
            elif config is not None and config.ray.actors is not None:
                check_batch(config, config.ray.actors)
        except ValueError as error:
            raise ValueError(f"step {step}: {error}") from error


def _run_steps(plan: Plan, seconds: dict[str, float], *, gallery: bool) -> dict[str, float | None]:
    """All steps in order; the mIoU of those that judge."""
    results: dict[str, float | None] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        print(f"\n== {name}", flush=True)
        begun = time.monotonic()
        try:
            return work()
        except JobError as error:
            raise JobError(f"step {name}: {error}") from error
        except ValueError as error:
            raise ValueError(f"step {name}: {error}") from error
        except StorageError as error:
            raise StorageError(f"step {name}: {error}") from error
        finally:
            seconds[name] = time.monotonic() - begun

    step("shard", lambda: sharding.run(plan.shard))
    step("label", lambda: labelling.run(plan.label))
    results["evaluate labels"] = step("evaluate labels", lambda: evaluate_once(plan.labels.evaluate))
    if (test := plan.test) is not None:
        step("shard test images", lambda: sharding.run(test))
    if (first_shard := plan.pretraining_shard) is not None:
        step("shard pretraining images", lambda: sharding.run(first_shard))
    if (first := plan.pretraining) is not None:
        step("pretraining", lambda: training.run(first))
    step("train", lambda: training.run(plan.train))
    step("predict", lambda: prediction.run(plan.predict))
    results["evaluate predictions"] = step("evaluate predictions", lambda: evaluate_once(plan.predictions.evaluate))
    if gallery:
        step("report labels", lambda: report.run(_gallery(plan.labels, results["evaluate labels"])))
        step("report predictions", lambda: report.run(_gallery(plan.predictions, results["evaluate predictions"])))
    return results


def _gallery(judged: Judged, miou: float | None) -> ReportConfig:
    """Return the configuration of the gallery, which shows the evaluation if there is one."""
    return judged.report if miou is None else dataclasses.replace(judged.report, evaluation=judged.evaluate.output)


def evaluate_once(config: EvaluateConfig) -> float | None:
    """mIoU of an evaluation, which is made unless the output holds one of the same labels, truth and configuration.

    None where there is no ground truth to judge by.
    """
    shards = read_shard_set(Storage(config.images, config.storage))
    if not (shards.has_truth or config.truth or config.coco_annotations):
        print("the image shards hold no ground truth: not judged", flush=True)
        return None
    output = Storage(config.output, config.storage)
    labels = Storage(config.labels, config.storage).list("labels")
    told = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("storage", "ray")}
    content: list[Any] = [told, shards.digest, [(name, info.version) for name, info in labels.items()]]
    if truth := truth_files(config):  # the shards' own is in their digest
        content.append([(name, info.size, info.version) for name, info in truth.items()])
    if config.subset is not None:
        content.append(read_text(config.subset, config.storage, what="list of image ids"))
    state = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if output.exists(STATE_FILE) and json.loads(output.read(STATE_FILE)) == {"state": state}:
        print(f"nothing to do: {output.describe(RESULT_FILE)} judges these labels", flush=True)
        return _miou(json.loads(output.read(RESULT_FILE))["miou"])
    found = evaluation.run(config)
    output.write(STATE_FILE, json.dumps({"state": state}).encode())
    return _miou(found.to_json()["miou"])


def truth_files(config: EvaluateConfig) -> dict[str, FileInfo]:
    """What lies beside the shards to judge by, as it is now; nothing where only the shards hold it."""
    if config.truth is not None:
        return Storage(config.truth, config.storage).list()
    if config.coco_annotations is None:
        return {}
    folder, slash, name = config.coco_annotations.rpartition("/")
    info = Storage(folder or slash or ".", config.storage).info(name)
    return {} if info is None else {name: info}  # the evaluation says that it is missing


def _miou(value: Any) -> float | None:
    return None if value is None else float(value)


def format_summary(summary: dict[str, Any]) -> str:
    """The table that ends a pipeline."""
    width = max(map(len, summary))

    def show(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        if isinstance(value, dict):
            return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in value.items())
        return ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)

    return "\n".join(["", *(f"{name:<{width}}  {show(value)}" for name, value in summary.items())])
