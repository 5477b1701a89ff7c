"""The student: the public class that predicts label maps with a trained network.

>>> student = Student.load("runs/train")
>>> (label,) = student.predict(["street.jpg"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsss_ray.classes import ClassSet
from wsss_ray.config import StorageConfig
from wsss_ray.images.inputs import ImageLike, read_pixels
from wsss_ray.models.device import Compute, resolve_compute
from wsss_ray.models.student.files import decode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.spec import index_to_label
from wsss_ray.prediction.resizing import enlarge_label, shrink
from wsss_ray.prediction.student_file import find_student
from wsss_ray.storage.weights import fetch_file


class Student:
    """A trained segmentation network with its classes and preprocessing."""

    def __init__(self, network: StudentNetwork, classes: ClassSet, compute: Compute) -> None:
        """Keep a network that is on its device; `load` reads one from a file."""
        self.network = network
        self.classes = classes
        """Names, ids and colors of the label maps."""
        self._compute = compute

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "auto", precision: str = "auto", storage: StorageConfig | None = None
    ) -> Student:
        """Load a student.

        Args:
            path: output of `wsss-ray train`, or its student.safetensors: a path, or a URI such as `s3://bucket/run`.
            device: auto, cpu or cuda.
            precision: auto, float32, tf32, bfloat16 or float16.
            storage: how to reach object storage.

        Raises:
            ValueError: there is no student, or its file is damaged.
        """
        storage = storage or StorageConfig()
        found = find_student(str(path), storage)
        compute = resolve_compute(device, precision)
        return cls(load_network(found.uri, found.sha256, compute, storage), found.classes, compute)

    def predict(
        self, images: Sequence[ImageLike], *, flip: bool = False, longest_side: int | None = None
    ) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
        """Return the label map of each image, in order: (H, W) class ids at the image's own size.

        Args:
            images: paths, PIL images, or (H, W, 3) uint8 RGB arrays.
            flip: average the probabilities with those of the mirrored image.
            longest_side: shrink larger images to this many pixels before prediction.

        Raises:
            ValueError: an image cannot be decoded, or an array has another form.
        """
        labels = []
        for image in images:
            pixels = read_pixels(image)
            with self._compute.running():
                (probabilities,) = self.network.predict([shrink(pixels, longest_side)], flip=flip)
            label = index_to_label(probabilities.argmax(0).cpu().numpy(), self.network.spec)
            labels.append(enlarge_label(label, pixels.shape[:2]))
        return labels


def load_network(uri: str, sha256: str | None, compute: Compute, storage: StorageConfig) -> StudentNetwork:
    """Return the network of a student's file on its device, ready to predict; a remote file is copied to this node.

    Raises:
        ValueError: the file is damaged, or its SHA-256 is another one.
    """
    data = fetch_file(uri, sha256=sha256, config=storage).read_bytes()
    network = decode_student(data, where=uri).to(compute.device).eval()
    return network.to(memory_format=torch.channels_last) if compute.device.type == "cuda" else network
