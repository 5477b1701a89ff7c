"""An extra column of the label files from outside of the package, in a few lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn import drawn_scenes
from label_runs import image_rows, write_shards

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, LabelConfig, SegmenterConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.labelling.plan import decided, identity
from wsss_ray.labelling.stages import LabelStage
from wsss_ray.labels.sink import LabelSink
from wsss_ray.shards.columns import LABEL_COLUMNS, LabelColumn
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.storage.storage import Storage


@LABEL_COLUMNS.register("mean-score")
class MeanScore(LabelColumn):
    """The mean detector score of the image's instances."""

    type = pa.float64()

    def value(self, row: LabelRow, label: Any) -> float | None:
        scores = [instance.score for instance in row.instances or ()]
        return sum(scores) / len(scores) if scores else None


CONFIG = LabelConfig(
    input="-",
    output="-",
    classes="demo",
    detector=DetectorConfig(model="demo"),
    segmenter=SegmenterConfig(model="tiny"),
    columns=("mean-score",),
)


def test_a_run_with_a_column_writes_it_and_readers_without_it_read_on(tmp_path: Path) -> None:
    rows = image_rows(drawn_scenes(3))
    write_shards(Storage(str(tmp_path)), rows, images_per_unit=3, classes="demo")
    (unit,) = read_shard_set(Storage(str(tmp_path))).units
    classes = ClassSet.load("demo")
    stage = LabelStage(CONFIG, classes, "ignore")
    given = rows.drop_columns(["source", "truth"]).append_column("error", pa.nulls(3, pa.string()))
    labelled = stage(given, Meter())
    output = Storage(str(tmp_path / "run"))
    sink = LabelSink(output=output, classes=classes, png=False, grey=False)
    sink.commit(unit, labelled, version=None)

    written = pq.read_table(tmp_path / "run" / unit.label_path).to_pylist()
    for row in written:
        scores = [instance["score"] for instance in row["instances"]]
        assert scores
        assert row["mean-score"] == pytest.approx(sum(scores) / len(scores))
    assert read_labels(output, unit).schema.names == LABEL_SCHEMA.names
    plain = LabelStage(replace(CONFIG, columns=()), classes, "ignore")(given, Meter())
    assert labelled.drop_columns(["mean-score"]).equals(plain)

    # an image that is labelled again keeps its neighbours' values
    version = output.list("labels")[unit.label_path.removeprefix("labels/")].version
    again = labelled.slice(1, 1).set_column(labelled.schema.get_field_index("mean-score"), "mean-score", [[0.25]])
    sink.commit(unit, again, version=version)
    values = [row["mean-score"] for row in pq.read_table(tmp_path / "run" / unit.label_path).to_pylist()]
    assert values == [written[0]["mean-score"], 0.25, written[2]["mean-score"]]


def test_columns_belong_to_the_identity_of_a_run(tmp_path: Path) -> None:
    write_shards(Storage(str(tmp_path)), image_rows(drawn_scenes(1)), images_per_unit=1, classes="demo")
    shards = read_shard_set(Storage(str(tmp_path)))
    classes = ClassSet.load("demo")
    config = decided(CONFIG, has_gpus=False)
    assert identity(config, classes, shards)["columns"] == ["mean-score"]
    assert "columns" not in identity(replace(config, columns=()), classes, shards)


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"columns.*mean-scor.*mean-score"):
        replace(CONFIG, columns=("mean-scor",))
