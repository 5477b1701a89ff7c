"""The pipeline job: runs its steps in one Ray session, and each step only if it is not done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from wsss_ray.config import EvaluateConfig, ReportConfig
from wsss_ray.config.pipeline import PipelineConfig
from wsss_ray.datasets.manifest import read_text
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.outputs import check_claim
from wsss_ray.evaluation import job as evaluation
from wsss_ray.evaluation.job import RESULT_FILE
from wsss_ray.labelling import job as labelling
from wsss_ray.pipeline.checks import check_resources, check_steps, in_step
from wsss_ray.pipeline.plan import Evaluated, Plan, Step, make_plan
from wsss_ray.prediction import job as prediction
from wsss_ray.report import job as report
from wsss_ray.sharding import job as sharding
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.local_files import FileInfo
from wsss_ray.storage.storage import Storage
from wsss_ray.training import job as training

SUMMARY_FILE = "summary.json"
PIPELINE_FILE = "pipeline.json"
"""Marks a folder as the output of a pipeline."""
STATE_FILE = "pipeline-state.json"
"""Digest of the inputs of an evaluation, beside it."""


def run(config: PipelineConfig) -> dict[str, Any]:
    """Run every step that is not done yet.

    Returns:
        What `summary.json` in the output holds: label_miou and student_miou (0 to 1, null without ground truth), the
        outputs of the steps, and the seconds that each step took. Empty for a dry run.

    Raises:
        ValueError: a section cannot be used. Most mistakes are found before the first step.
        JobError: a step was interrupted. The same command continues from there.
        StorageError: a file or store that a step needs cannot be used.
        The text of each begins with the step's name.
    """
    plan = make_plan(config)
    steps = plan.steps(gallery=config.gallery)
    output = Storage(config.output, config.storage)
    check_claim(output, job="pipeline")
    print(f"checking the {len(steps)} steps of the pipeline", flush=True)
    listings = check_steps(plan, steps)
    with connect(config.ray) as resources:
        check_resources(plan, resources)
        if config.dry_run:
            from wsss_ray.pipeline.estimate import describe_steps  # noqa: PLC0415 - Ray Data: a second or more

            print("\n".join(describe_steps(plan, steps, listings, resources)), flush=True)
            return {}
        output.create(PIPELINE_FILE, encode_json({"made_by": "wsss_ray pipeline"}))
        results, seconds = _run_steps(plan, steps)
    summary: dict[str, Any] = {
        "label_miou": results["evaluate labels"],
        "student_miou": results["evaluate predictions"],
        "judged_on": plan.predict.input,
        "shards": plan.shard.output,
        "labels": plan.label.output,
        "student": plan.train.output,
        "predictions": plan.predict.output,
        "evaluations": [step.config.output for step in steps if step.job == "evaluate"],
        "galleries": [f"{step.config.output}/index.html" for step in steps if step.job == "report"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    output.sweep()
    output.write(SUMMARY_FILE, encode_json(summary))
    print(format_summary(summary), flush=True)
    return summary


def _run_steps(plan: Plan, steps: list[Step]) -> tuple[dict[str, float | None], dict[str, float]]:
    """Run all steps in order; return the mIoU of each evaluation and the seconds of each step."""
    results: dict[str, float | None] = {}
    seconds: dict[str, float] = {}
    jobs: dict[str, Callable[[Any], Any]] = {
        "shard": sharding.run,
        "label": labelling.run,
        "train": training.run,
        "predict": prediction.run,
        "evaluate": evaluate_once,
        "report": report.run,
    }
    for step in steps:
        print(f"\n== {step.name}", flush=True)
        started = time.monotonic()
        config = step.config
        if step.job == "report":
            judged, evaluated = _evaluation_of(plan, step)
            config = _gallery(judged, results[evaluated])
        result = in_step(step.name, partial(jobs[step.job], config))
        seconds[step.name] = time.monotonic() - started
        if step.job == "evaluate":
            results[step.name] = result
    return results, seconds


def _evaluation_of(plan: Plan, step: Step) -> tuple[Evaluated, str]:
    """Return what a gallery shows, and the name of the step that evaluates it."""
    is_labels = step.config is plan.labels.report
    return (plan.labels, "evaluate labels") if is_labels else (plan.predictions, "evaluate predictions")


def _gallery(judged: Evaluated, miou: float | None) -> ReportConfig:
    """Return the configuration of the gallery, which shows the evaluation if there is one."""
    return judged.report if miou is None else dataclasses.replace(judged.report, evaluation=judged.evaluate.output)


def evaluate_once(config: EvaluateConfig) -> float | None:
    """Evaluate, unless the output has an evaluation of the same labels, truth and configuration; return the mIoU.

    None without ground truth.
    """
    shards = read_shard_set(Storage(config.images, config.storage))
    if not (shards.has_truth or config.truth or config.coco_annotations):
        print("the image shards hold no ground truth: nothing to evaluate", flush=True)
        return None
    output = Storage(config.output, config.storage)
    labels = Storage(config.labels, config.storage).list("labels")
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("storage", "ray")}
    content: list[Any] = [settings, shards.digest, [(name, info.version) for name, info in labels.items()]]
    if truth := truth_files(config):  # the shards' own is in their digest
        content.append([(name, info.size, info.version) for name, info in truth.items()])
    if config.subset is not None:
        content.append(read_text(config.subset, config.storage, what="list of image ids"))
    state = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    try:
        if read_json(output, STATE_FILE) == {"state": state}:
            miou = _miou(read_json(output, RESULT_FILE)["miou"])
            print(f"nothing to do: {output.describe(RESULT_FILE)} is of these labels", flush=True)
            return miou
    except FileNotFoundError:
        pass  # no evaluation, or not a complete one
    except (ValueError, KeyError, TypeError) as error:
        print(f"evaluating again, because {error}", flush=True)
    found = evaluation.run(config)
    output.write(STATE_FILE, encode_json({"state": state}))
    return _miou(found.to_json()["miou"])


def truth_files(config: EvaluateConfig) -> dict[str, FileInfo]:
    """Return the files of a ground truth that is not in the shards."""
    if config.truth is not None:
        return Storage(config.truth, config.storage).list()
    if config.coco_annotations is None:
        return {}
    folder, slash, name = config.coco_annotations.rpartition("/")
    info = Storage(folder or slash or ".", config.storage).info(name)
    return {} if info is None else {name: info}  # the evaluation reports that it is missing


def _miou(value: Any) -> float | None:
    return None if value is None else float(value)


def format_summary(summary: dict[str, Any]) -> str:
    """Return the table that is printed at the end of a pipeline."""
    width = max(map(len, summary))

    def show(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        if isinstance(value, dict):
            return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in value.items())
        return ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)

    return "\n".join(["", *(f"{name:<{width}}  {show(value)}" for name, value in summary.items())])
