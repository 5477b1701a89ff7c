"""The benchmark for a GPU, in small on the CPU, as a machine without Ray runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

WITHOUT_RAY = """
import runpy, sys
sys.modules["ray"] = None
sys.path[:0] = ["benchmarks", "."]
sys.argv = ["gpu.py", "--small", "--json", sys.argv[1]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.mark.processes
def test_all_parts_run_in_small_without_ray(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    command = [sys.executable, "-c", WITHOUT_RAY, str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(path.read_text())
    assert list(results) == ["environment", "correctness", "attention", "encoder", "detector", "label_stage", "limits"]
    exact = results["correctness"]["labels"]["float32"]
    assert (exact["images_with_equal_boxes"], exact["mask_iou_least"], exact["equal_pixels"]) == (2, 1.0, 1.0)
    assert results["correctness"]["labels"]["bfloat16"]["mask_iou_mean"] > 0.97
    assert results["correctness"]["student"]["resumed_losses_differ_by"] == 0.0
    assert results["correctness"]["crf"] == 0.0
    assert results["label_stage"]["images"] == 8
    assert results["limits"]["masks"] == 20


@pytest.mark.processes
def test_a_part_that_fails_leaves_its_error_and_the_others_run(tmp_path: Path) -> None:
    code = WITHOUT_RAY.replace('"--small", ', '"--small", "--parts", "encoder", "limits", ').replace(
        "runpy.run_path", "import random_weights; random_weights.write_sam = None\nrunpy.run_path"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "gpu.json")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("failed: encoder")
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert "'NoneType' object is not callable" in results["encoder"]["error"]
    assert results["limits"]["masks"] == 20
