"""Small jobs without models run in their own process, and give the files that they give on Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_cases import MADE
from made_runs import write_run

from wsss_ray.audit.job import run as audit
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig, EvaluateConfig, ExportConfig, RayConfig, ReportConfig
from wsss_ray.engine import cluster
from wsss_ray.engine.resources import Resources
from wsss_ray.evaluation.job import run as evaluate
from wsss_ray.export.job import run as export
from wsss_ray.report.job import run as report
from wsss_ray.storage.storage import Storage

ON_RAY = RayConfig(actors=1)
MEASURED = ("images_per_second", "config", "labels", "sha256")
"""Values of a result that are measured, that say where it lies, or that are a digest of these."""

JOBS: dict[str, Callable[..., object]] = {
    "audit": lambda **options: audit(AuditConfig(**options)),
    "evaluate": lambda **options: evaluate(EvaluateConfig(**options)),
    "report": lambda **options: report(ReportConfig(**options)),
    "export": lambda **options: export(ExportConfig(format="coco-instances", **options)),
}


def content(folder: Path) -> dict[str, Any]:
    """Files by path; of JSON objects the values that are not measured, of tables in text nothing."""
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            files[name] = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in MEASURED}
        elif path.is_file() and name != "evaluation.txt":
            files[name] = path.read_bytes()
    return files


@pytest.mark.parametrize("name", JOBS)
def test_a_small_job_gives_the_same_files_without_ray(
    name: str, tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    made = [MADE] if name != "evaluate" else [[one for one in MADE if one.truth is not None or one.label is not None]]
    if name == "evaluate":
        made = [[type(one)(**{**vars(one), "truth": one.label}) for one in made[0]]]
    write_run(Storage(str(images)), Storage(str(labels)), made, classes=ClassSet.load("voc"))
    options = {"images": str(images), "labels": str(labels), "classes": "voc"}
    JOBS[name](**options, output=str(tmp_path / "ray"), ray=ON_RAY)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "uses_cluster", lambda _: False)  # as if the session's Ray were not there
        patch.setattr(cluster, "connect", None)
        JOBS[name](**options, output=str(tmp_path / "here"))
    on_ray, here = content(tmp_path / "ray"), content(tmp_path / "here")
    assert on_ray.keys() == here.keys()
    assert [path for path in here if here[path] != on_ray[path]] == []
