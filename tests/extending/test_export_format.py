"""An export format from outside of the package: registered in the process, and by an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from export_cases import EXPORTED, MADE, write_made
from repository import REPOSITORY

from wsss_ray.config import ExportConfig
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import Record
from wsss_ray.export.unit_output import UnitOutput


class TagFiles(ExportFormat):
    """One file of tags per image."""

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        for record in records:
            output.write(f"tags/{record.image_id}.txt", ",".join(record.tags).encode())


PACKAGE = """
from wsss_ray.export.format import ExportFormat

class BoxList(ExportFormat):
    needs_instances = True
    has_parts = True

    def write(self, records, output):
        for record in records:
            output.add_line({"image": record.image_id, "boxes": [list(found.box) for found in record.instances]})

    def finish(self, exported):
        exported.output.write("boxes.jsonl", b"".join(exported.parts()))
        return [f"{exported.counts['images']} lines"]
"""
METADATA = "Metadata-Version: 2.1\nName: box-list\nVersion: 1.0\n"
ENTRY_POINTS = "[wsss_ray.export_formats]\nbox-list = box_list:BoxList\n"


def test_a_registered_class_is_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EXPORT_FORMATS, "_entries", dict(EXPORT_FORMATS._entries))
    EXPORT_FORMATS.register("tag-files")(TagFiles)
    output, summary = write_made(tmp_path, MADE).export("tag-files")
    files = {path.stem: path.read_text() for path in (output / "tags").iterdir()}
    assert files == {made.image_id: ",".join(made.tags) for made in EXPORTED}
    assert summary.images == len(EXPORTED)


def test_an_installed_package_adds_a_format(tmp_path: Path) -> None:
    """Found by its entry point in the driver, and imported in Ray's workers."""
    run = write_made(tmp_path, MADE)
    site = tmp_path / "site"
    (site / "box_list-1.0.dist-info").mkdir(parents=True)
    (site / "box_list.py").write_text(PACKAGE)
    (site / "box_list-1.0.dist-info/METADATA").write_text(METADATA)
    (site / "box_list-1.0.dist-info/entry_points.txt").write_text(ENTRY_POINTS)
    done = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "jobs/export.py"), "--format", "box-list"),
            *("--labels", str(run.root / "labels"), "--images", str(run.root / "images")),
            *("--output", str(tmp_path / "out")),
        ],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{site}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out/boxes.jsonl").read_text().splitlines()
    assert len(lines) == len(EXPORTED)
    assert lines[0] == '{"image":"ring","boxes":[[10.0,10.0,40.0,30.0]]}'
    assert f"{len(EXPORTED)} lines" in done.stdout


def test_an_unknown_format_is_an_error_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"unknown export format `vok`. Did you mean `voc`\? Valid: voc, coco-inst"):
        ExportConfig(labels="a", images="b", output="c", format="vok")
