"""A GPU that fails is no fault of the images."""

import pyarrow as pa
import pytest
import torch

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import WorkerLost
from wsss_ray.labels.observing import GuardedStage


class Raises:
    """A stage that fails."""

    output_schema = pa.schema([("image_id", pa.string())])

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        raise self.error


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    ],
)
def test_a_lost_gpu_ends_the_process(text: str) -> None:
    with pytest.raises(WorkerLost, match="CUDA error"):
        GuardedStage(Raises(RuntimeError(text)))(pa.table({}), Meter())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Calculated padded input size per channel: (1 x 1)"),
        ValueError("CUDA error is a word of this image"),
    ],
)
def test_other_errors_are_the_images(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        GuardedStage(Raises(error))(pa.table({}), Meter())
    assert caught.value is error
