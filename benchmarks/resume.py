"""Measure the restart of a finished and a half-finished run of 82,081 images: `wsss-ray label`, from call to exit.

    python benchmarks/resume.py [--images 82081] [--repeats 3] [--json FILE]

Shards and label files are real, with few bytes per image; this script writes the label files without networks. The
half-finished run continues for four units with the demo's tiny models until `--limit`. The figures are the time from
the call to the first new label file, most of which is the start of Ray and of the actors, and the part of it that finds
the units to do, measured in this process without the start of the interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import simplejpeg
from measuring import machine, print_table, write_json

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, parse
from wsss_ray.engine.run_directory import RunDirectory, units_to_do
from wsss_ray.labelling.plan import decided, identity
from wsss_ray.labels.sink import count_rows
from wsss_ray.labels.summary import summarise
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import ShardSet, read_shard_set
from wsss_ray.shards.label_files import encode_labels
from wsss_ray.shards.schemas import IMAGE_SCHEMA, LABEL_SCHEMA
from wsss_ray.storage.storage import Storage

ROOT = Path(__file__).resolve().parent.parent
UNIT, UNITS_PER_SHARD = 32, 100
SIDE = 64
MORE_UNITS = 4
FORMATS = {"what": "", "images": ",d", "units": ",d", "seconds": ".2f"}


def write_shards(folder: Path, images: int) -> None:
    """Write shards in which every image is the same small JPEG."""
    classes = ClassSet.load("demo")
    image = simplejpeg.encode_jpeg(np.full((SIDE, SIDE, 3), 128, np.uint8), quality=50)
    folder.mkdir()
    starts = list(range(0, images, UNIT))
    shards = [starts[index : index + UNITS_PER_SHARD] for index in range(0, len(starts), UNITS_PER_SHARD)]
    for number, firsts in enumerate(shards):
        groups = [
            pa.table(
                {
                    "image_id": [f"{index:012d}" for index in range(first, min(first + UNIT, images))],
                    "source": [f"{index}.jpg" for index in range(first, min(first + UNIT, images))],
                    "image": [image] * min(UNIT, images - first),
                    "height": [SIDE] * min(UNIT, images - first),
                    "width": [SIDE] * min(UNIT, images - first),
                    "tags": [["cat"]] * min(UNIT, images - first),
                    "truth": [None] * min(UNIT, images - first),
                },
                schema=IMAGE_SCHEMA,
            )
            for first in firsts
        ]
        data = encode_image_shard(groups, exif="ignore", label_space=classes.label_space_digest, classes="demo")
        (folder / shard_name(number, len(shards))).write_bytes(data)


def write_run(folder: Path, shards: ShardSet, config: LabelConfig, *, share: float) -> None:
    """Write a run directory in which a share of the units is labelled."""
    classes = ClassSet.load("demo")
    output = Storage(str(folder))
    RunDirectory(storage=output).claim(identity(decided(config, has_gpus=False), classes, shards))
    (folder / "labels").mkdir()
    tagged = next(entry.name for entry in classes.classes)
    for index, unit in enumerate(shards.units[: int(share * len(shards.units))]):
        rows = pa.Table.from_pylist(
            [
                {
                    "image_id": f"{index * UNIT + place:012d}",
                    "height": SIDE,
                    "width": SIDE,
                    "label": bytes(4000),
                    "instances": [],
                    "tags": [tagged],
                    "undetected_tags": [tagged],
                    "status": "no_detections",
                }
                for place in range(unit.rows)
            ],
            schema=LABEL_SCHEMA,
        )
        counts = count_rows(rows, classes, [{0: SIDE * SIDE}] * unit.rows)
        (folder / unit.label_path).write_bytes(encode_labels(rows, unit, counts))


def restart(config_flags: list[str]) -> float:
    """Return the seconds of the job as a user calls it."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "jobs/label.py", *config_flags], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "nothing to do" in done.stdout, done.stdout
    return time.monotonic() - start


def continue_run(config_flags: list[str], labels: Path) -> float:
    """Return the seconds from the call of the job to its first label file."""
    before = len(list(labels.iterdir()))
    command = [sys.executable, "jobs/label.py", *config_flags, "--limit", str((before + MORE_UNITS) * UNIT)]
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while len(list(labels.glob("*.parquet"))) == before:
            assert job.poll() is None, "the job ended without a label file"
            time.sleep(0.02)
        seconds = time.monotonic() - start
    assert job.returncode == 0
    assert len(list(labels.iterdir())) == before + MORE_UNITS
    return seconds


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=82_081)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    head = machine(1)
    print(head)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shards(root / "shards", options.images)
        shards = read_shard_set(Storage(str(root / "shards")))
        flags = ["--config", "demo", "--no-png", "--input", str(root / "shards")]
        config = parse(LabelConfig, [*flags, "--output", str(root / "finished")])
        write_run(root / "finished", shards, config, share=1)
        write_run(root / "half", shards, config, share=0.5)
        rows = []

        def add(what: str, seconds: list[float]) -> None:
            median = statistics.median(seconds)
            rows.append({"what": what, "images": options.images, "units": len(shards.units), "seconds": median})

        job = [*flags, "--output", str(root / "finished")]
        add("finished run: the whole job", [restart(job) for _ in range(options.repeats)])
        add("of it: the interpreter and the imports", [
            _timed(lambda: subprocess.run([sys.executable, "jobs/label.py", "--no-such-flag"], cwd=ROOT,
                                          check=False, capture_output=True))
            for _ in range(options.repeats)
        ])  # fmt: skip
        add("of it: footers of the shards", _times(lambda: read_shard_set(Storage(str(root / "shards"))), options))
        finished = Storage(str(root / "finished"))
        add("of it: listing the labels", _times(lambda: units_to_do(shards, finished, limit=None), options))
        add("of it: the summary of all footers", _times(lambda: summarise(finished, shards.units, None), options))
        half = Storage(str(root / "half"))
        go = [*flags, "--output", str(root / "half")]
        add(
            "half-finished run: until its next label file",
            [continue_run(go, root / "half" / "labels") for _ in range(options.repeats)],
        )
        add("of it: what is to be done", _times(lambda: units_to_do(shards, half, limit=None), options))
        _, missing = units_to_do(shards, half, limit=None)
        assert len(missing) == len(shards.units) - len(shards.units) // 2 - MORE_UNITS * options.repeats
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head)


def _times(call: Callable[[], object], options: argparse.Namespace) -> list[float]:
    return [_timed(call) for _ in range(options.repeats)]


def _timed(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
