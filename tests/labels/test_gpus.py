"""The kind of GPU of a run: who claims it, who is refused, and what the label files say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pretended_cuda import pretended_cuda

from wsss_ray.classes import ClassSet
from wsss_ray.config import PredictConfig
from wsss_ray.engine.drivers import record_driver
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.resources import Pool
from wsss_ray.engine.stage import StageSpec
from wsss_ray.images.label_png import encode_label
from wsss_ray.labels.decoded_images import LABELLED_SCHEMA, nullable
from wsss_ray.labels.gpus import GPU_FILE, claim_gpu, describe_gpus, forget_gpu
from wsss_ray.labels.job import LabelJob
from wsss_ray.labels.observing import observed
from wsss_ray.labels.sink import LabelSink
from wsss_ray.labels.summary import format_summary, summarise
from wsss_ray.models.cuda import GpuError
from wsss_ray.shards.label_files import read_label_counts
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import read_json
from wsss_ray.storage.storage import Storage

A100 = {"name": "NVIDIA A100-SXM4-80GB", "capability": (8, 0)}
A100_40 = {"name": "NVIDIA A100-SXM4-40GB", "capability": (8, 0)}
L4 = {"name": "NVIDIA L4", "capability": (8, 9)}
UNIT = Unit(shard="shard-00000-of-00001.parquet", row_group=0, rows=2, digest="ab" * 32, exif="ignore")


def test_the_first_gpu_claims_the_run_for_its_kind(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    for gpu in (A100, A100_40):
        with pretended_cuda(**gpu):
            claim_gpu(output, mixed=False)
    assert read_json(output, GPU_FILE) == {"gpu": "NVIDIA A100-SXM4-80GB", "compute_capability": "8.0"}
    with pretended_cuda(**L4), pytest.raises(GpuError, match=r"on NVIDIA A100.*has NVIDIA L4 \(8\.9\).*--mixed-gpus"):
        claim_gpu(output, mixed=False)
    with pretended_cuda(**L4):
        claim_gpu(output, mixed=True)


def test_the_cpu_claims_nothing(tmp_path: Path) -> None:
    claim_gpu(Storage(str(tmp_path)), mixed=False)
    assert not list(tmp_path.iterdir())


def test_a_claim_is_forgotten_where_nothing_is_labelled_and_no_driver_works(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))

    def is_kept() -> bool:
        forget_gpu(output)
        return output.exists(GPU_FILE)

    with pretended_cuda(**A100):
        claim_gpu(output, mixed=False)
    output.write(UNIT.label_path, b"labels")
    assert is_kept()
    output.remove(UNIT.label_path)
    output.write("driver-elsewhere-1.json", b'{"host": "elsewhere", "process": 1, "started": "x"}')
    assert is_kept()
    output.remove("driver-elsewhere-1.json")
    with record_driver(output):  # this process's own driver
        assert not is_kept()


class Nothing:
    """A stage that does nothing."""

    output_schema = pa.schema([("image_id", pa.string())])

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        return rows


def test_an_actor_claims_before_its_first_image_and_a_dry_run_does_not(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    spec = StageSpec(name="label", make=Nothing, pool=Pool(actors=1, cpus=1, gpus=1))
    with pretended_cuda(**A100):
        observed(spec, None, profile=False, mixed_gpus=False).make()
        assert not output.exists(GPU_FILE)
        made = observed(spec, output, profile=False, mixed_gpus=False)
        made.make()
        assert output.exists(GPU_FILE)
        assert made.gpu is not None
        assert made.gpu() == "NVIDIA A100-SXM4-80GB"
    assert made.gpu() is None, "the CPU"
    with pretended_cuda(**L4), pytest.raises(GpuError, match="L4"):
        made.make()


@pytest.mark.parametrize(
    ("fields", "claims", "refuses"), [({}, 1, 1), ({"mixed_gpus": True}, 1, 0), ({"dry_run": True}, 0, 0)]
)
def test_the_configuration_of_a_job_decides_who_is_refused(
    fields: dict[str, bool], claims: int, refuses: int, tmp_path: Path
) -> None:
    config = PredictConfig(input="", output="", student="", **fields)
    run: Any = SimpleNamespace(config=config, output=Storage(str(tmp_path)))
    make = LabelJob._observed(run, StageSpec(name="predict", make=Nothing, pool=Pool(actors=1, cpus=1, gpus=1))).make
    with pretended_cuda(**A100):
        make()
    assert len(list(tmp_path.iterdir())) == claims
    refused = 0
    with pretended_cuda(**L4):
        try:
            make()
        except GpuError:
            refused += 1
    assert refused == refuses


def labelled(*statuses: str) -> pa.Table:
    """Return labelled rows of a unit, some of which failed."""
    classes = ClassSet.load("demo")
    label = encode_label(np.zeros((4, 5), np.uint8), palette=classes.palette())
    rows = []
    for index, status in enumerate(statuses):
        row = {"image_id": str(index), "height": 4, "width": 5, "tags": []}
        if status == "failed":
            rows.append({**LabelRow.failure(row, "label: broken").to_row(), "pixels": None})
        else:
            made = LabelRow(**row, label=label, instances=(), undetected_tags=(), status="ok")
            rows.append({**made.to_row(), "pixels": [{"class_id": 0, "pixels": 20}]})
    return pa.Table.from_pylist(rows, schema=nullable(LABELLED_SCHEMA))


def test_label_files_and_the_summary_say_which_gpu_labelled(tmp_path: Path) -> None:
    output, classes = Storage(str(tmp_path)), ClassSet.load("demo")
    sink = LabelSink(output=output, classes=classes, png=False, grey=False)
    counts = sink.commit(UNIT, labelled("ok", "failed"), version=None, gpus=["NVIDIA L4"])
    assert counts["gpus"] == read_label_counts(output, UNIT)["gpus"] == {"NVIDIA L4": 1}
    version = output.list("labels")[UNIT.label_path.removeprefix("labels/")].version
    again = labelled("ok", "ok").slice(1)
    sink.commit(UNIT, again, version=version, gpus=["NVIDIA L4", "NVIDIA A100-SXM4-80GB"])
    both = {"NVIDIA L4": 1, "NVIDIA L4 and NVIDIA A100-SXM4-80GB": 1}
    assert read_label_counts(output, UNIT)["gpus"] == both
    summary = summarise(output, [UNIT], None, classes)
    assert summary["gpus"] == both
    line = "GPUs: 1 images on NVIDIA L4, 1 images on NVIDIA L4 and NVIDIA A100-SXM4-80GB"
    assert line in format_summary(summary).splitlines()
    assert describe_gpus({"gpus": {"NVIDIA L4": 3}}) is None, "one kind needs no line"


def test_label_files_of_the_cpu_say_nothing_of_gpus(tmp_path: Path) -> None:
    sink = LabelSink(output=Storage(str(tmp_path)), classes=ClassSet.load("demo"), png=False, grey=False)
    assert "gpus" not in sink.commit(UNIT, labelled("ok", "ok"), version=None)
    assert "GPU" not in format_summary(summarise(sink.output, [UNIT], None))
