"""The mIoU during training: each worker predicts some units of the validation shards, and the counts are summed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from wsss_ray.images.decoding import decode_row
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_truth
from wsss_ray.labels.scores import ClassIndex, count_pixels, headline, score
from wsss_ray.models.device import Compute
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to measure on."""

    images: Storage
    """Folder of image shards with ground truth."""
    units: Sequence[Unit]
    index: ClassIndex
    ignore_id: int
    """Value in the truth of pixels that count for nothing."""

    def miou(self, student: StudentNetwork, compute: Compute, *, rank: int, workers: int) -> float:
        """mIoU (0 to 1) over all units, the same in every worker: background included, as `wsss-ray evaluate` counts.

        Raises:
            ShardError: an image or its truth cannot be read, or no image has a truth.
        """
        matrix = self._count(student, compute, self.units[rank::workers])
        if workers > 1:
            total = torch.from_numpy(matrix).to(compute.device)
            dist.all_reduce(total)
            matrix = total.cpu().numpy()
        if not matrix.any():
            raise ShardError(
                f"none of the images that are validated on has a ground truth in {self.images.uri}: a larger "
                "--validation-limit, or other shards, may."
            )
        return score(headline(matrix)).miou

    def _count(self, student: StudentNetwork, compute: Compute, units: Sequence[Unit]) -> np.ndarray:
        """Pixels of these units by true and by predicted class."""
        matrix = np.zeros((self.index.count + 1, self.index.count + 1), np.int64)
        tuned, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False  # each size would be tuned for
        student.eval()
        try:
            with ThreadPoolExecutor(1) as reader:  # the next unit is decoded while one is predicted
                coming = [reader.submit(self._read, unit) for unit in units[:1]]
                for place in range(len(units)):
                    samples = coming.pop().result()
                    coming += [reader.submit(self._read, unit) for unit in units[place + 1 : place + 2]]
                    for image, truth in samples:
                        with torch.autocast(
                            compute.device.type,
                            dtype=compute.autocast_dtype,
                            enabled=compute.autocast_dtype is not None,
                        ):
                            probabilities = student.predict([image], flip=False)[0]
                        prediction = probabilities.argmax(0).cpu().numpy()
                        matrix += count_pixels(truth, prediction, self.index.count)
        finally:
            student.train()
            torch.backends.cudnn.benchmark = tuned
        return matrix

    def _read(self, unit: Unit) -> list[tuple[np.ndarray, np.ndarray]]:
        """Images (H, W, 3) of a unit that have a truth, and its (H, W) indices."""
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
