"""The wheel that users install: it holds the class sets and both models, labels scenes, and has no training code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

from repository import REPOSITORY

SCRIPT = """
import json
import wsss_ray
from wsss_ray.demo.components import detect, measure_chain
from wsss_ray.demo.scenes import draw_scene, split_seeds
from wsss_ray.labeller import Labeller

scenes = [draw_scene(seed) for seed in split_seeds("validation", 6)]
labeller = Labeller("demo")
chain = measure_chain(scenes, detect(scenes, labeller), labeller)
print(json.dumps({"package": wsss_ray.__file__, "miou": chain["miou"]}))
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_wheel_labels_scenes(tmp_path: Path) -> None:
    """The new environment has the dependencies of this one, but another wsss_ray."""
    source = tmp_path / "source"  # a copy: the build leaves files in its source tree
    for folder in ("wsss_ray", "tools", "jobs"):
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / file, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source), cwd=tmp_path)
    (wheel,) = tmp_path.glob("wsss_ray-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"wsss_ray"}
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = Path(run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    result = json.loads(run(str(python), "-I", "-c", SCRIPT, cwd=tmp_path).splitlines()[-1])
    assert Path(result["package"]).is_relative_to(environment)
    assert result["miou"] > 0.7
