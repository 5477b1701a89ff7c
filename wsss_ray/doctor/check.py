"""Check all nodes of the cluster at once, and compare their clocks and weights."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
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
    states = [result.state for group in groups for result in group.results]
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
        output=config.output or None,
        token=token,
        input=config.input or None,
        storage=config.storage,
    )
    if output is not None:
        output.write(token, b"")
    try:
        return _compare(_ask(nodes, checks, _tiers(config), timeout))
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


@dataclass(kw_only=True)
class _NodeAnswer:
    """The answer of a node."""

    answer: Answer | str
    """The results of its checks, or why there are none."""
    gpus: list[CheckResult]
    skew: float = 0.0
    """Seconds by which its clock differs at least from the driver's."""


def _ask(
    nodes: list[dict[str, Any]], checks: NodeChecks, tiers: tuple[str, ...], timeout: float
) -> dict[str, _NodeAnswer]:
    """Return what each node answers, by address. GPUs have a task of their own, which waits where a job uses them."""
    started = time.time()
    asked: dict[ray.ObjectRef[Any], tuple[str, bool]] = {}
    found = {}
    for node in nodes:
        address, resources = node["NodeManagerAddress"], node["Resources"]
        gpus = int(resources.get("GPU", 0))
        placed = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": placed}
        task = ray.remote(_run).options(**options, num_gpus=0)
        asked[task.remote(checks, float(resources.get("object_store_memory", 0)))] = (address, False)
        used = bool(gpus and tiers)
        if used:
            asked[ray.remote(_run_on_gpus).options(**options, num_gpus=gpus).remote(tiers)] = (address, True)
        in_use = f"not checked: in use for the {timeout:g} s of the check"
        unused = CheckResult(
            check="GPU", found=f"{gpus} that this job does not use" if gpus else "none that Ray counts"
        )
        advice = "another job holds the node's GPUs (`ray status`): check again when it has ended."
        busy = CheckResult(check="GPU", found=in_use, state="warning", advice=advice)
        found[address] = _NodeAnswer(answer=f"no answer within {timeout:g} s", gpus=[busy if used else unused])
    left = list(asked)
    deadline = time.monotonic() + timeout
    while left:
        ready, left = ray.wait(left, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for done in ready:
            address, is_gpus = asked[done]
            _keep(found[address], done, is_gpus=is_gpus, started=started)
    for unanswered in left:
        ray.cancel(unanswered, force=True)
    return found


def _keep(node: _NodeAnswer, done: ray.ObjectRef[Any], *, is_gpus: bool, started: float) -> None:
    """Keep an answer, or the reason of its failure."""
    try:
        answer = ray.get(done)
    except RayError as error:
        if is_gpus:
            advice = "see the lines of Ray above, and nvidia-smi on the node."
            node.gpus = [CheckResult(check="GPU", found=explain(error), state="error", advice=advice)]
        else:
            node.answer = explain(error)
        return
    if is_gpus:
        node.gpus = answer
    else:
        node.answer = answer
        node.skew = max(0.0, started - answer[0], answer[0] - time.time())


def _run(checks: NodeChecks, object_store: float) -> Answer:
    return checks.run(object_store)


def _run_on_gpus(tiers: tuple[str, ...]) -> list[CheckResult]:
    from wsss_ray.doctor.gpu import check_gpus  # noqa: PLC0415 - torch, which the driver does not need

    return list(check_gpus(tiers))


def _compare(nodes: Mapping[str, _NodeAnswer]) -> list[NodeResults]:
    """Return the results of all nodes, with those that need more than one node."""
    common: dict[str, list[str]] = {}
    found = []
    for address, node in sorted(nodes.items()):
        if isinstance(node.answer, str):
            advice = "the node may be lost, or too busy to start a process: see `ray status`."
            found.append((address, [CheckResult(check="answer", found=node.answer, state="error", advice=advice)]))
            continue
        _, digests, results = node.answer
        for model, digest in digests.items():
            if digest != common.setdefault(model, digest):
                advice = "the nodes would label with different weights: copy the same files to all of them."
                found_digest = ", ".join(one[:12] for one in digest)
                results.append(CheckResult(check=f"{model} weights", found=found_digest, state="error", advice=advice))
        found.append((address, [*results, *node.gpus, clock(node.skew)]))
    return merge(found)


def clock(skew: float) -> CheckResult:
    """Return the result of a clock that differs from the driver's by at least `skew` seconds."""
    if skew < SKEW_WARNING:
        return CheckResult(check="clock", found=f"within {SKEW_WARNING} s of the driver's")
    state: State = "error" if skew >= SKEW_ERROR else "warning"
    advice = "set the node's clock (NTP): S3 refuses requests whose time differs by 15 minutes."
    return CheckResult(check="clock", found=f"{skew:,.0f} s off the driver's", state=state, advice=advice)
