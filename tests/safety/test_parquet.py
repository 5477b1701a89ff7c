"""A Parquet file cannot run code through the Arrow types that Ray Data registers (CVE-2026-41486)."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # registers its types with Arrow  # noqa: F401
from made_runs import Made, image_row
from ray.data._internal.tensor_extensions import arrow

from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import read_shard_set, read_unit
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.storage.storage import Storage


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


TYPES = {
    "ray.data.arrow_tensor": pa.list_(pa.int64()),
    "ray.data.arrow_tensor_v2": pa.large_list(pa.int64()),
    "ray.data.arrow_variable_shaped_tensor": pa.struct(
        [("data", pa.large_list(pa.int64())), ("shape", pa.list_(pa.int64()))]
    ),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("allowed", [False, True], ids=["as it is", "with what Ray did before"])
def test_metadata_of_a_shard_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, protocol: int, allowed: bool
) -> None:
    """With what Ray allowed once, the same file does run code: the test is able to see it."""
    monkeypatch.setattr(arrow, "_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", allowed)
    mark = tmp_path / f"ran-{name}-{protocol}"
    made = Made(image_id="a", label=np.ones((8, 8), np.uint8), tags=["dog"])
    rows = pa.Table.from_pylist([image_row(made, None)], schema=IMAGE_SCHEMA)
    good = encode_image_shard([rows], exif="apply", label_space="space", classes="voc")
    storage = Storage(str(tmp_path))
    storage.write(shard_name(0, 1), good)
    units = read_shard_set(storage).units
    footer = pq.ParquetFile(pa.BufferReader(good)).schema_arrow.metadata
    hostile = {"ARROW:extension:name": name, "ARROW:extension:metadata": pickle.dumps(Payload(mark), protocol=protocol)}
    field = pa.field("more", TYPES[name], metadata=hostile)
    rows = rows.append_column(field, pa.nulls(1, TYPES[name])).replace_schema_metadata(footer)
    pq.write_table(rows, tmp_path / shard_name(0, 1))
    for use in (lambda: read_shard_set(storage), lambda: read_unit(storage, units[0])):
        with contextlib.suppress(Exception):  # refused for whatever reason
            use()
    assert mark.exists() == allowed
