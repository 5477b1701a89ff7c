"""A column of the label rows: the three files that ARCHITECTURE.md names, changed in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from repository import REPOSITORY

EDITS = {
    "shards/schemas.py": [
        ('        pa.field("error", pa.string()),\n', '        pa.field("largest", pa.string()),\n'),
    ],
    "shards/label_row.py": [
        ("    error: str | None = None\n", "    largest: str | None = None\n"),
        ('            error=row.get("error"),\n', '            largest=row.get("largest"),\n'),
        ('            "error": self.error,\n', '            "largest": self.largest,\n'),
    ],
    "labelling/fusing.py": [
        (
            '                status="no_tags" if not row["tags"] else "ok" if self._instances else "no_detections",\n',
            "                largest=max(self._instances, key=lambda found: found.mask().sum()).phrase,\n",
        ),
    ],
}
"""In each file, lines after which a line is added: the phrase of the largest instance of an image."""

SCRIPT = """
import sys, numpy as np, pyarrow as pa
from wsss_ray import Labeller
from wsss_ray.demo.scenes import draw_scene, split_seeds
from wsss_ray.shards.label_files import encode_labels, read_labels
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

scene = draw_scene(next(iter(split_seeds("validation", 1))))
(result,) = Labeller("demo").label([scene.image], [scene.tags])
assert result.row.largest in scene.tags or result.row.largest in ("bowl", "plate"), result.row.largest
unit = Unit(shard="shard-00000-of-00001.parquet", row_group=0, rows=1, digest="0" * 64, exif="ignore")
storage = Storage(sys.argv[1])
storage.write(unit.label_path, encode_labels(pa.Table.from_pylist([result.row.to_row()], LABEL_SCHEMA), unit, {}))
(row,) = read_labels(storage, unit).to_pylist()
assert LabelRow.from_row(row).largest == result.row.largest
print("column:", row["largest"])
"""


def test_a_column_touches_the_files_that_are_named(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "wsss_ray", copy / "wsss_ray", ignore=shutil.ignore_patterns("__pycache__"))
    for name, lines in EDITS.items():
        file = copy / "wsss_ray" / name
        text = file.read_text()
        for line, added in lines:
            assert text.count(line) == 1, f"{name}: {line}"
            text = text.replace(line, line + added)
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("column: ")


def test_architecture_names_these_files() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| column")]
    for name in EDITS:
        assert f"`wsss_ray/{name}`" in line
