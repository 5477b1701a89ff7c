"""Prediction and a training step's forward pass on pretended CUDA."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from cuda_cases import PRECISIONS, check_budget
from prediction_cases import CLASSES, draw_rows, make_student
from pretended_cuda import pretended_cuda

from wsss_ray.config import CrfConfig, PredictConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.images.label_png import decode_label
from wsss_ray.models.device import resolve_compute
from wsss_ray.models.student.files import encode_student
from wsss_ray.prediction.stage import PredictStage
from wsss_ray.training.updates import Schedule, Updater

SYNCS_PER_IMAGE = 1
"""Waits of the host for the GPU, for a predicted image: it reads the label."""


@pytest.fixture(scope="module")
def student_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    path.write_bytes(encode_student(make_student(5)))
    return str(path)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    drawn = draw_rows().drop_columns(["source", "truth"]).slice(0, 4)
    return drawn.append_column("error", pa.nulls(drawn.num_rows, pa.string()))


CRF_SYNCS_PER_IMAGE = 16
"""The same with DenseCRF, whose lattice has as many vertices as the image needs, and with soft scores."""


def updater(device: str, precision: str) -> Updater:
    compute = resolve_compute(device, precision)
    return Updater(
        make_student(5).to(compute.device).train(),
        compute=compute,
        optimizer="sgd",
        learning_rate=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=Schedule(iterations=10, power=0.9),
        accumulation=2,
    )


def stage(student_file: str, device: str, precision: str, **fields: object) -> PredictStage:
    config = PredictConfig(input="", output="", student="", device=device, precision=precision, **fields)
    return PredictStage(config, student_file, "ignore")


def labels_of(made: pa.Table) -> list[np.ndarray]:
    return [decode_label(label) for label in made["label"].to_pylist()]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_predicts_as_the_cpu_does(precision: str, student_file: str, rows: pa.Table) -> None:
    expected = labels_of(stage(student_file, "cpu", "float32", flip=True)(rows, Meter()))
    with pretended_cuda() as gpu:
        on_gpu = stage(student_file, "cuda", precision, flip=True)
        gpu.reset()
        found = labels_of(on_gpu(rows, Meter()))
        check_budget(gpu.syncs, images=len(found), per_image=SYNCS_PER_IMAGE, what="waits of the host")
        check_budget(gpu.pageable, images=len(found), per_image=0, what="pageable copies")
    least = 1.0 if precision == "float32" else 0.97  # a random student has no confident pixels
    assert min(float((one == other).mean()) for one, other in zip(expected, found, strict=True)) >= least


def test_soft_scores_and_the_crf_are_the_cpu_s(student_file: str, rows: pa.Table) -> None:
    settings = CrfConfig(iterations=3, xy_width=20, rgb_width=10)
    fields = {"crf": True, "crf_settings": settings, "soft": True}
    expected = stage(student_file, "cpu", "float32", **fields)(rows, Meter())
    with pretended_cuda() as gpu:
        on_gpu = stage(student_file, "cuda", "float32", **fields)
        gpu.reset()
        found = on_gpu(rows, Meter())
        check_budget(gpu.syncs, images=rows.num_rows, per_image=CRF_SYNCS_PER_IMAGE, what="waits of the host")
        check_budget(gpu.pageable, images=rows.num_rows, per_image=0, what="pageable copies")
    assert found.equals(expected)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_training_step_s_losses_are_the_cpu_s(precision: str) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 65, 65, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES.num_classes, (4, 65, 65)).astype(np.int16)
    expected = updater("cpu", "float32").update(0, images, labels).tolist()
    with pretended_cuda() as gpu:
        on_gpu = updater("cuda", precision)
        gpu.reset()
        losses = on_gpu.update(0, images, labels)
        check_budget(gpu.syncs, images=1, per_image=0, what="waits of the host")
        check_budget(gpu.pageable, images=1, per_image=0, what="pageable copies")
        found = losses.tolist()
    assert found == pytest.approx(expected, rel=1e-6 if precision in ("float32", "tf32") else 0.02)
