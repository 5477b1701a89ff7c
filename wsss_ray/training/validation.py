"""Validation: each worker predicts some units of the validation shards, and the counts are summed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.images.decoding import decode_row
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_truth
from wsss_ray.labels.scores import ClassIndex, confusion_counts, headline, score
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

if TYPE_CHECKING:
    from wsss_ray.models.device import Compute
    from wsss_ray.models.student.network import StudentNetwork


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Images with ground truth to validate on. The driver creates it without PyTorch."""

    images: Storage
    """Folder of image shards with ground truth."""
    units: Sequence[Unit]
    index: ClassIndex
    ignore_id: int
    """Value of pixels of the ground truth that are not counted."""

    def miou(self, student: StudentNetwork, compute: Compute, *, rank: int, workers: int) -> float:
        """Return the mIoU (0 to 1) over all units, as `wsss-ray evaluate` computes it; equal in every worker.

        Raises:
            ShardError: an image or its ground truth cannot be read, or no image has one.
        """
        import torch  # noqa: PLC0415 - the driver needs no PyTorch
        import torch.distributed as dist  # noqa: PLC0415

        matrix = self._count(student, compute, self.units[rank::workers])
        if workers > 1:
            total = torch.from_numpy(matrix).to(compute.device)
            dist.all_reduce(total)
            matrix = total.cpu().numpy()
        if not matrix.any():
            raise ShardError(
                f"none of the validation images in {self.images.uri} has ground truth: give a larger "
                "--validation-limit, or other shards."
            )
        return score(headline(matrix)).miou

    def _count(self, student: StudentNetwork, compute: Compute, units: Sequence[Unit]) -> np.ndarray:
        """Return the pixels of these units by true and by predicted class."""
        import torch  # noqa: PLC0415 - as above

        matrix = np.zeros((self.index.count + 1, self.index.count + 1), np.int64)
        # Tuning for every image size would take long.
        tuned, torch.backends.cudnn.benchmark = (
            torch.backends.cudnn.benchmark,
            False,
        )
        student.eval()
        try:
            with ThreadPoolExecutor(1) as reader:  # decodes the next unit during a prediction
                coming = [reader.submit(self._read, unit) for unit in units[:1]]
                for index in range(len(units)):
                    samples = coming.pop().result()
                    coming += [reader.submit(self._read, unit) for unit in units[index + 1 : index + 2]]
                    for image, truth in samples:
                        with torch.autocast(
                            compute.device.type,
                            dtype=compute.autocast_dtype,
                            enabled=compute.autocast_dtype is not None,
                        ):
                            probabilities = student.predict([image], flip=False)[0]
                        prediction = probabilities.argmax(0).cpu().numpy()
                        matrix += confusion_counts(truth, prediction, self.index.count)
        finally:
            student.train()
            torch.backends.cudnn.benchmark = tuned
        return matrix

    def _read(self, unit: Unit) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the images (H, W, 3) of a unit that have ground truth, each with its (H, W) class indices."""
        columns = ["image_id", "height", "width", "image", "truth"]
        samples = []
        for row in read_unit(self.images, unit, columns=columns).to_pylist():
            if row["truth"] is None:
                continue
            try:
                size = row["height"], row["width"]
                image = decode_row(row, exif=unit.exif)
                truth = decode_truth(row["truth"], size=size, allowed_ids=self.index.ids, ignore_id=self.ignore_id)
            except ImageError as error:
                raise ShardError(f"validation image {row['image_id']} cannot be used: {error}") from error
            samples.append((image, self.index(truth)))
        return samples
