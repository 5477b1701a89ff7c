"""The job `doctor`: check every node of a cluster for a labelling job, and print a table."""

from __future__ import annotations

from dataclasses import replace

from wsss_ray.config import DoctorConfig
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.resources import hardware
from wsss_ray.models.precision import decide


def run(config: DoctorConfig) -> None:
    """Check all nodes and print what was found.

    Raises:
        ValueError: the configuration cannot be used.
        JobError: a labelling job would fail on a node.
    """
    from wsss_ray.doctor.check import report_nodes  # noqa: PLC0415 - Ray Data, which --help need not wait for

    with connect(config.ray) as resources:
        print(f"cluster   {resources}", flush=True)
        known = hardware(config.ray, resources)
        detector, segmenter = decide(config.detector, **known), decide(config.segmenter, **known)
        report_nodes(replace(config, detector=detector, segmenter=segmenter), timeout=config.timeout_seconds)
