"""rayjob.yaml, field by field: what KubeRay's ray.io/v1 knows, and what the run relies on."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml
from repository import REPOSITORY

from wsss_ray import config

JOB: dict[str, Any] = yaml.safe_load((REPOSITORY / "rayjob.yaml").read_text())
SPEC = JOB["spec"]
CLUSTER = SPEC["rayClusterSpec"]
HEAD = CLUSTER["headGroupSpec"]
(WORKERS,) = CLUSTER["workerGroupSpecs"]
PODS = {"head": HEAD["template"]["spec"], "workers": WORKERS["template"]["spec"]}

FIELDS = {
    "spec": (
        SPEC,
        "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector "
        "submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode entrypointResources "
        "entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend",
    ),
    "rayClusterSpec": (
        CLUSTER,
        "suspend managedBy authOptions autoscalerOptions headServiceAnnotations enableInTreeAutoscaling "
        "gcsFaultToleranceOptions headGroupSpec rayVersion workerGroupSpecs",
    ),
    "authOptions": (CLUSTER["authOptions"], "mode secretName enableK8sTokenAuth"),
    "autoscalerOptions": (
        CLUSTER["autoscalerOptions"],
        "resources image imagePullPolicy securityContext idleTimeoutSeconds upscalingMode version env envFrom "
        "volumeMounts",
    ),
    "headGroupSpec": (HEAD, "template headService enableIngress resources labels rayStartParams serviceType"),
    "workerGroupSpecs": (
        WORKERS,
        "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds resources labels rayStartParams "
        "template scaleStrategy numOfHosts",
    ),
    "submitterConfig": (SPEC["submitterConfig"], "backoffLimit"),
}
"""Fields of KubeRay's API reference, by where they stand: a misspelt one is dropped in silence by the API server."""


def pinned_ray() -> str:
    constraints = (REPOSITORY / "constraints.txt").read_text()
    return re.search(r"^ray==(.+)$", constraints, re.MULTILINE)[1]  # type: ignore[index]


@pytest.mark.parametrize("name", FIELDS)
def test_kuberay_knows_every_field(name: str) -> None:
    there, known = FIELDS[name]
    assert set(there) <= set(known.split())


def test_kind() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", JOB["metadata"]["name"])
    assert len(JOB["metadata"]["name"]) <= 47  # KubeRay appends to it


def test_it_retries_and_cleans_up() -> None:
    assert SPEC["backoffLimit"] == 3
    assert SPEC["shutdownAfterJobFinishes"] is True
    assert SPEC["ttlSecondsAfterFinished"] > 0
    assert SPEC["submissionMode"] == "K8sJobMode"
    assert "entrypointNumGpus" not in SPEC  # the driver needs none


def test_ray_is_the_tested_one_and_asks_for_the_token() -> None:
    assert CLUSTER["rayVersion"] == pinned_ray()
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert HEAD["serviceType"] == "ClusterIP"
    assert "enableIngress" not in HEAD


def test_workers_come_from_none_and_go() -> None:
    assert CLUSTER["enableInTreeAutoscaling"] is True
    assert CLUSTER["autoscalerOptions"]["version"] == "v2"
    assert CLUSTER["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    assert (WORKERS["replicas"], WORKERS["minReplicas"]) == (0, 0)
    assert WORKERS["maxReplicas"] == 8
    assert all(pod["restartPolicy"] == "Never" for pod in PODS.values())  # asked for by the autoscaler's version 2


def test_start_parameters_are_text() -> None:
    for group in (HEAD, WORKERS):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("name", PODS)
def test_pods_have_shared_memory_limits_and_no_privileges(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    shm = {volume["name"]: volume for volume in pod["volumes"]}["shm"]["emptyDir"]
    assert shm["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    assert _gib(shm["sizeLimit"]) < _gib(limits["memory"]) / 2
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container["image"] == PODS["head"]["containers"][0]["image"]


def test_only_workers_hold_gpus() -> None:
    assert PODS["workers"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in PODS["head"]["containers"][0]["resources"]["limits"]
    assert PODS["workers"]["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_no_secret_is_in_the_file() -> None:
    for pod in PODS.values():
        assert all("value" not in entry for entry in pod["containers"][0].get("env", []))
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "wsss-ray-aws", "optional": True}}]


def test_the_entrypoint_is_a_command_that_the_job_understands() -> None:
    words = shlex.split(SPEC["entrypoint"])
    assert words[:2] == ["wsss-ray", "label"], "the image installs the command"
    parsed = config.parse(config.LabelConfig, words[2:])
    assert parsed.ray.wait_for_nodes
    assert parsed.ray.actors == WORKERS["maxReplicas"]
    assert parsed.ray.gpus_per_actor == 1
    assert parsed.classes == "coco"
    assert parsed.input.startswith("s3://")
    assert parsed.segmenter.checkpoint == "/home/ray/weights/sam_vit_h_4b8939.pth"


def _gib(text: str) -> int:
    assert text.endswith("Gi")
    return int(text.removesuffix("Gi"))
