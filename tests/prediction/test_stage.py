"""The stage and the sink without Ray: every option against predictions of single images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from prediction_cases import CLASSES, DAMAGED

from wsss_ray.config import CrfConfig, PredictConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.images.decoding import decode_image
from wsss_ray.images.label_png import decode_label
from wsss_ray.models.crf.crf import dense_crf
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.prediction import stage
from wsss_ray.prediction.sink import PredictionSink
from wsss_ray.prediction.soft import probabilities_of, read_soft, soft_path
from wsss_ray.prediction.stage import PredictStage
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

Configure = Callable[..., PredictConfig]
CRF = CrfConfig(iterations=3, xy_width=20, rgb_width=10)
UNIT = Unit(shard="shard-00000-of-00001.parquet", row_group=0, rows=6, digest="ab" * 32, exif="ignore")


def with_error(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["source", "truth"]).append_column("error", pa.nulls(rows.num_rows, pa.string()))


def predict(config: PredictConfig, rows: pa.Table, *, stages: list[PredictStage] | None = None) -> pa.Table:
    """Return the rows of a new stage, which is added to `stages` before it runs."""
    made = PredictStage(config, f"{config.student}/student.safetensors", "ignore")
    if stages is not None:
        stages.append(made)
    result = made(with_error(rows), Meter())
    assert result.schema.names == made.output_schema.names
    return result


def alone(
    student: StudentNetwork, rows: pa.Table, image_id: str, *, flip: bool = False
) -> tuple[np.ndarray, torch.Tensor]:
    """Return the image, and its probabilities when it is predicted alone."""
    row = next(row for row in rows.to_pylist() if row["image_id"] == image_id)
    image = decode_image(row["image"], exif="ignore")
    return image, student.predict([image], flip=flip)[0]


@pytest.mark.parametrize(
    ("fields", "batch_size"),
    [({}, 1), ({}, 4), ({"flip": True, "decoded_mb": 1}, 2), ({"crf": True, "crf_settings": CRF}, 4)],
)
def test_labels_are_those_of_the_images_one_by_one(
    configure: Configure, student: StudentNetwork, scene_rows: pa.Table, fields: dict[str, object], batch_size: int
) -> None:
    config = configure("out", batch_size=batch_size, **fields)
    rows = predict(config, scene_rows).to_pylist()
    assert [row["image_id"] for row in rows] == scene_rows["image_id"].to_pylist()
    for row in rows:
        if row["image_id"] == DAMAGED:
            assert row["error"].startswith("decode: truncated")
            assert row["label"] is None
            continue
        image, probabilities = alone(student, scene_rows, row["image_id"], flip=config.flip)
        if config.crf:
            probabilities = dense_crf(image, probabilities, CRF)
        label = decode_label(row["label"])
        assert label.shape == image.shape[:2]
        assert (label == probabilities.argmax(0).numpy()).mean() >= 0.999
        assert len(np.unique(label)) >= 2, "a student that says one thing tests nothing"
        assert row["status"] == "ok"
        assert row["instances"] is None
        seen = {CLASSES.by_id[i].name for i in np.unique(label).tolist() if i}
        assert row["undetected_tags"] == [tag for tag in row["tags"] if tag not in seen]
        assert {entry["class_id"]: entry["pixels"] for entry in row["pixels"]} == {
            int(i): int((label == i).sum()) for i in np.unique(label)
        }


def test_large_images_are_predicted_smaller_and_labelled_at_their_size(
    configure: Configure, student: StudentNetwork, scene_rows: pa.Table
) -> None:
    config = configure("out", longest_side=96, soft=True, crf=True, crf_settings=CRF)
    row = predict(config, scene_rows.slice(0, 1)).to_pylist()[0]
    image = decode_image(scene_rows["image"][0].as_py(), exif="ignore")
    small = np.array(Image.fromarray(image).resize((96, 72), Image.Resampling.BILINEAR))
    probabilities = dense_crf(small, student.predict([small])[0], CRF)
    label = decode_label(row["label"])
    assert label.shape == image.shape[:2] == (96, 128)
    by_pillow = Image.fromarray(probabilities.argmax(0).numpy().astype(np.uint8)).resize((128, 96), 0)
    assert (label == np.array(by_pillow)).all()
    maps = probabilities_of(row)
    assert {plane.shape for plane in maps.values()} == {(96, 128)}
    assert np.mean([np.abs(maps[k].mean() - probabilities[k].mean().item()) for k in maps]) < 0.01
    assert predict(configure("out", longest_side=130), scene_rows).equals(predict(configure("out"), scene_rows))


def test_a_crf_that_the_device_does_not_hold_leaves_the_device_to_others(
    configure: Configure, scene_rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("out", crf=True, crf_settings=CRF)
    expected = predict(config, scene_rows)
    stages: list[PredictStage] = []
    refused: list[np.ndarray] = []
    on_the_cpu: list[bool] = []

    def refuse_once_an_image(image: np.ndarray, probabilities: torch.Tensor, settings: CrfConfig) -> torch.Tensor:
        if not refused or refused[-1] is not image:
            refused.append(image)
            assert stages[0]._device.locked()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        on_the_cpu.append(not stages[0]._device.locked())
        return dense_crf(image, probabilities, settings)

    monkeypatch.setattr(stage, "dense_crf", refuse_once_an_image)
    assert predict(config, scene_rows, stages=stages).equals(expected)
    assert len(refused) == 5
    assert on_the_cpu == [True] * 5


def test_flip_and_crf_change_something(configure: Configure, scene_rows: pa.Table) -> None:
    plain = predict(configure("out"), scene_rows)["label"].to_pylist()
    assert predict(configure("out", flip=True), scene_rows)["label"].to_pylist() != plain
    assert predict(configure("out", crf=True, crf_settings=CRF), scene_rows)["label"].to_pylist() != plain


def test_tags_restrict_the_classes(configure: Configure, student: StudentNetwork, scene_rows: pa.Table) -> None:
    rows = predict(configure("out", tags_only=True), scene_rows).to_pylist()
    for row in rows:
        if row["image_id"] == DAMAGED:
            continue
        label = decode_label(row["label"])
        ids = [0, *sorted(CLASSES.by_name[tag].id for tag in row["tags"])]
        assert set(np.unique(label).tolist()) <= set(ids)
        assert row["status"] == ("ok" if row["tags"] else "no_tags")
        _, probabilities = alone(student, scene_rows, row["image_id"])
        assert (label == np.array(ids)[probabilities[ids].argmax(0).numpy()]).mean() >= 0.999


def test_soft_scores_are_the_probabilities_in_255ths(
    configure: Configure, student: StudentNetwork, scene_rows: pa.Table, tmp_path: Path
) -> None:
    config = configure(tmp_path, soft=True, soft_threshold=0.2)
    sink = PredictionSink(output=Storage(str(tmp_path)), classes=CLASSES, png=False, grey=False, soft=True)
    assert "soft/" in sink.outputs
    sink.commit(UNIT, predict(config, scene_rows), version=None)
    left_out = 0
    for row in read_soft(sink.output, UNIT).to_pylist():
        if row["image_id"] == DAMAGED:
            assert row["maps"] is None
            continue
        maps = probabilities_of(row)
        _, probabilities = alone(student, scene_rows, row["image_id"])
        for channel, plane in enumerate(probabilities.numpy()):
            if channel in maps:
                assert np.abs(maps[channel] - plane).max() <= 0.5 / 255 + 1e-5
            else:
                left_out += 1
                assert plane.max() < 0.2 + 1e-5
    assert left_out > 0
    assert len(read_labels(sink.output, UNIT)) == 6


def test_soft_scores_of_images_that_are_run_again_replace_theirs_alone(
    configure: Configure, scene_rows: pa.Table, tmp_path: Path
) -> None:
    sink = PredictionSink(output=Storage(str(tmp_path)), classes=CLASSES, png=False, grey=False, soft=True)
    config = configure(tmp_path, soft=True)
    sink.commit(UNIT, predict(config, scene_rows), version=None)
    before = read_soft(sink.output, UNIT).to_pylist()
    version = sink.output.list("labels")[UNIT.label_path.removeprefix("labels/")].version
    sink.commit(UNIT, predict(replace(config, flip=True), scene_rows.slice(2, 1)), version=version)
    after = read_soft(sink.output, UNIT).to_pylist()
    assert [index for index in range(6) if before[index] != after[index]] == [2]
    assert [row["image_id"] for row in after] == [row["image_id"] for row in before]


def test_lost_and_damaged_soft_scores_say_what_to_do(tmp_path: Path) -> None:
    run = Storage(str(tmp_path))
    with pytest.raises(ShardError, match=r"made without --soft, or the unit is not predicted yet"):
        read_soft(run, UNIT)
    run.write(soft_path(UNIT), b"torn")
    with pytest.raises(ShardError, match=r"is damaged: .*Remove it and labels/shard-00000-of-00001-0000-abababab"):
        read_soft(run, UNIT)
