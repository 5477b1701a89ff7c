"""Check all nodes of the cluster at once, and compare their clocks and weights."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wsss_ray.config.label import LabelConfig
from wsss_ray.doctor.node import NodeChecks, installed
from wsss_ray.doctor.results import CheckResult, NodeResults, State, format_results, merge
from wsss_ray.engine.ray_data import explain
from wsss_ray.errors import JobError
from wsss_ray.models.registries import DETECTORS, SEGMENTERS
from wsss_ray.storage.storage import Storage

SKEW_WARNING, SKEW_ERROR = 60, 900
"""Seconds by which a node's clock may differ from the driver's. S3 refuses requests from 900 s on."""


def report_nodes(config: LabelConfig, *, timeout: float) -> None:
    """Check all nodes and print what was found; arguments and errors as `check_nodes`.

    Raises:
        JobError: a labelling job would fail on a node.
    """
    groups = check_nodes(config, timeout=timeout)
    print(format_results(groups), flush=True)
    states = [finding.state for group in groups for finding in group.findings]
    if "error" in states:
        raise JobError(f"{states.count('error')} checks of nodes failed; the lines above say what to do.")
    verdict = "the job would run; the warnings above say what could be better" if "warning" in states else "all passed"
    print(f"nodes     {verdict}", flush=True)


def check_nodes(config: LabelConfig, *, timeout: float) -> list[NodeResults]:
    """Check every node of the cluster that Ray is connected to.

    Args:
        config: a labelling job's configuration without `auto`; an empty input or output is not checked.
        timeout: seconds after which a node counts as not answering.

    Raises:
        ValueError: the output cannot be used, or weights are not named.
        StorageError: the driver itself cannot write to the output.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    output = Storage(config.output, config.storage) if config.output else None
    is_new = output is not None and output.is_local and not Path(output.uri).exists()
    token = f"doctor-driver-{uuid.uuid4().hex}"
    checks = NodeChecks(
        versions=installed(),
        weights={
            "detector": DETECTORS.get(config.detector.type).weights(config.detector),
            "segmenter": SEGMENTERS.get(config.segmenter.type).weights(config.segmenter),
        },
        tiers=_tiers(config),
        output=config.output or None,
        token=token,
        input=config.input or None,
        storage=config.storage,
    )
    if output is not None:
        output.write(token, b"")
    try:
        return _compare(*_ask(nodes, checks, timeout))
    finally:
        if output is not None:
            output.remove(token)
            if is_new:
                with suppress(OSError):
                    Path(output.uri).rmdir()


def _tiers(config: LabelConfig) -> tuple[str, ...]:
    """Return the precisions of both models on a GPU, each once; none where both run on the CPU."""
    found = (config.detector, config.segmenter)
    return tuple(dict.fromkeys(one.precision for one in found if one.device == "cuda"))


Answer = tuple[float, dict[str, list[str]], list[CheckResult]]


def _ask(nodes: list[dict[str, Any]], checks: NodeChecks, timeout: float) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the answer or the failure of each node by address, and by how many seconds its clock differs at least."""
    task = ray.remote(max_retries=0)(_run)
    started = time.time()
    waiting = {}
    for node in nodes:
        resources = node["Resources"]
        gpus = int(resources.get("GPU", 0))
        placed = task.options(
            num_cpus=0, num_gpus=gpus, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        )
        store = float(resources.get("object_store_memory", 0))
        waiting[placed.remote(checks, gpus, store)] = node["NodeManagerAddress"]
    answers: dict[str, Any] = {}
    skews: dict[str, float] = {}
    left = list(waiting)
    deadline = time.monotonic() + timeout
    while left:
        ready, left = ray.wait(left, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for answered in ready:
            node = waiting[answered]
            try:
                answers[node] = ray.get(answered)
            except RayError as error:
                answers[node] = explain(error)
                continue
            clock, now = answers[node][0], time.time()
            skews[node] = max(0.0, started - clock, clock - now)
    for unanswered in left:
        ray.cancel(unanswered, force=True)
        answers[waiting[unanswered]] = f"no answer within {timeout:g} s"
    return answers, skews


def _run(checks: NodeChecks, gpus: int, object_store: float) -> Answer:
    return checks.run(gpus=gpus, object_store=object_store)


def _compare(answers: Mapping[str, Any], skews: Mapping[str, float]) -> list[NodeResults]:
    """Return the findings of all nodes, with those that need more than one node."""
    common: dict[str, list[str]] = {}
    found = []
    for node, answer in sorted(answers.items()):
        if isinstance(answer, str):
            advice = "its GPUs may be in use by another job (`ray status`), or the node is lost."
            found.append((node, [CheckResult(check="answer", found=answer, state="error", advice=advice)]))
            continue
        _, digests, findings = answer
        for model, digest in digests.items():
            if digest != common.setdefault(model, digest):
                advice = "the nodes would label with different weights: copy the same files to all of them."
                found_digest = ", ".join(one[:12] for one in digest)
                findings.append(CheckResult(check=f"{model} weights", found=found_digest, state="error", advice=advice))
        found.append((node, [*findings, clock(skews[node])]))
    return merge(found)


def clock(skew: float) -> CheckResult:
    """Return the finding of a clock that differs from the driver's by at least `skew` seconds."""
    if skew < SKEW_WARNING:
        return CheckResult(check="clock", found=f"within {SKEW_WARNING} s of the driver's")
    state: State = "error" if skew >= SKEW_ERROR else "warning"
    advice = "set the node's clock (NTP): S3 refuses requests whose time differs by 15 minutes."
    return CheckResult(check="clock", found=f"{skew:,.0f} s off the driver's", state=state, advice=advice)
