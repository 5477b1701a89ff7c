"""The kind of GPU of a run: claimed by its first actor, so that other kinds take part only where that is configured.

On the CPU there is no claim. Every label file says which GPU its images were labelled on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsss_ray.engine.drivers import find_drivers
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

GPU_FILE = "gpu.json"


def forget_gpu(output: Storage) -> None:
    """Remove the claim of a run that finished nothing and has no driver at work."""
    if output.exists(GPU_FILE) and not output.list("labels") and not find_drivers(output):
        output.remove(GPU_FILE)


def claim_gpu(output: Storage, *, mixed: bool) -> None:
    """Claim a run for this process's kind of GPU, or check that it is claimed for it. Without a GPU nothing happens.

    GPUs of one compute capability are of one kind: they run the same code.

    Args:
        output: run directory.
        mixed: whether other kinds may take part.

    Raises:
        GpuError: it is claimed for another kind.
    """
    import torch  # noqa: PLC0415 - seconds that the driver does not need

    from wsss_ray.models.cuda import GpuError, gpu_name  # noqa: PLC0415

    name = gpu_name()
    if name is None:
        return
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    if output.create(GPU_FILE, encode_json({"gpu": name, "compute_capability": capability})) or mixed:
        return
    first = read_json(output, GPU_FILE)
    if first.get("compute_capability") != capability:
        raise GpuError(
            f"the run is labelled on {first.get('gpu')} (compute capability {first.get('compute_capability')}, says "
            f"{output.describe(GPU_FILE)}), but this actor has {name} ({capability}), which rounds differently. Give "
            "the run GPUs of one kind, or --mixed-gpus: each label file then says which GPU labelled it."
        )


def images_by_gpu(gpus: Sequence[str], images: int) -> dict[str, int]:
    """Return the count for a label file: images by the GPUs that worked on them; nothing on the CPU."""
    return {" and ".join(gpus): images} if gpus and images else {}


def describe_gpus(summary: Mapping[str, Any]) -> str | None:
    """Return the line of a summary about GPUs of several kinds; None where there is one kind, or none."""
    counts: Mapping[str, int] = summary.get("gpus", {})
    if len(counts) < 2:
        return None
    return "GPUs: " + ", ".join(f"{images:,} images on {name}" for name, images in counts.items())
