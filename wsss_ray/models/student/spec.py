"""The description of a student. A student's file has it, so that predictions need no other file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_type_hints

import numpy as np
import typeguard

from wsss_ray.classes import ClassSet
from wsss_ray.config.student import Geometry

FORMAT = "wsss_ray.student/1"
BACKGROUND = "background"
IGNORE = -1
"""Index of a pixel without a class, in targets."""

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A network's preprocessing: (value - mean) / std for values of 0 to 255, then the channels in its order."""

    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the network's input channels."""
    mean: Triple = (123.675, 116.28, 103.53)
    """Mean of red, green and blue, in this order, whatever `channel_order` is."""
    std: Triple = (58.395, 57.12, 57.375)
    """Standard deviation of red, green and blue."""


IMAGENET = Preprocessing()
CAFFE = Preprocessing(channel_order="bgr", mean=(122.675, 116.669, 104.008), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """Architecture, classes and preprocessing of a student. Output channel k is class `class_ids[k]`."""

    architecture: str
    """As in StudentConfig."""
    geometry: Geometry | None
    """Geometry of DeepLab-v2's ResNet; None for other networks."""
    scales: tuple[float, ...]
    """Scales at which the network is applied; the first is 1."""
    class_set: str
    """Name of the class set."""
    class_names: tuple[str, ...]
    """Class name of each channel; channel 0 is the background."""
    class_ids: tuple[int, ...]
    """Value in label maps of each channel."""
    ignore_id: int
    """Value in label maps of pixels that are ignored."""
    label_space: str
    """Digest of names and ids: `ClassSet.label_space_digest`."""
    palette: str | None
    """768 bytes of RGB in hexadecimal digits for label PNGs; None for 16-bit labels."""
    preprocessing: Preprocessing
    """Preprocessing of the network."""
    settings: str | None = None
    """Configuration of the network as JSON, where its library has one."""

    @classmethod
    def of(
        cls, class_set: ClassSet, *, architecture: str, geometry: Geometry | None, scales: tuple[float, ...]
    ) -> StudentSpec:
        """Return the spec of a student of these classes, with the preprocessing for ImageNet's weights."""
        return cls(
            architecture=architecture,
            geometry=geometry,
            scales=scales,
            class_set=class_set.name,
            class_names=(BACKGROUND, *class_set.names),
            class_ids=(class_set.background_id, *(entry.id for entry in class_set.classes)),
            ignore_id=class_set.ignore_id,
            label_space=class_set.label_space_digest,
            palette=class_set.palette().hex() if class_set.label_dtype is np.uint8 else None,
            preprocessing=IMAGENET,
        )

    def __post_init__(self) -> None:
        """Check the values, which may come from a damaged or foreign file."""
        count = len(self.class_ids)
        if count < 2 or len(self.class_names) != count or len(set(self.class_ids)) != count:
            raise ValueError(
                "a student must have a background and at least one class, and as many different ids as names."
            )
        if not all(0 <= value <= 65535 for value in (*self.class_ids, self.ignore_id)):
            raise ValueError("a student's class ids and ignore id must be from 0 to 65535.")
        if self.ignore_id in self.class_ids:
            raise ValueError(f"a student's ignore id {self.ignore_id} is also the id of one of its classes.")
        if self.palette is not None and len(bytes.fromhex(self.palette)) != 768:
            raise ValueError("a student's palette must be 768 bytes.")
        if self.scales[:1] != (1.0,) or not all(0.1 <= scale <= 2 for scale in self.scales):
            raise ValueError("a student's scales must be from 0.1 to 2, the first of them 1.")
        if not all(value > 0 for value in self.preprocessing.std):
            raise ValueError("a student's standard deviations of colors must be more than 0.")

    @property
    def num_classes(self) -> int:
        """Number of channels of the output, background included."""
        return len(self.class_ids)

    @property
    def background_id(self) -> int:
        """Value of background pixels in label maps."""
        return self.class_ids[0]

    @property
    def label_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of the label maps, as `ClassSet.label_dtype`."""
        return np.uint8 if max(self.class_ids) <= 254 and self.ignore_id <= 255 else np.uint16

    def palette_bytes(self) -> bytes | None:
        """Return the palette as `images.label_png.encode_label` takes it."""
        return None if self.palette is None else bytes.fromhex(self.palette)

    def to_json(self) -> str:
        """Return one line of JSON, the same for equal specs."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> StudentSpec:
        """Return the spec that `to_json` wrote.

        Raises:
            ValueError: the text is not such a spec.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the student's description is not JSON: {error}.") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"the student's description is not of the form {FORMAT}.")
        try:
            values["preprocessing"] = _checked(Preprocessing, values.get("preprocessing"))
            return cast(StudentSpec, _checked(cls, values))
        except (TypeError, typeguard.TypeCheckError) as error:
            raise ValueError(f"the student's description cannot be used: {error}.") from error

    @cached_property
    def _channels(self) -> np.ndarray:
        """Return the channel of each id; IGNORE for the ignore id, -2 for ids of no class."""
        table = np.full(65536, -2, np.int32 if self.num_classes > 32767 else np.int16)
        table[list(self.class_ids)] = np.arange(self.num_classes)
        table[self.ignore_id] = IGNORE
        return table


def _checked(kind: type, values: Any) -> object:
    """Return a dataclass of JSON values, after a check of their types. Lists become tuples."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{kind.__name__} is {values!r}")
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for key, hint in get_type_hints(kind).items():
        if key in tuples:
            typeguard.check_type(tuples[key], hint)
    return kind(**tuples)


def label_to_index(label: np.ndarray, spec: StudentSpec) -> np.ndarray:
    """Return the channel of each pixel of a label map (H, W); IGNORE for ignored pixels.

    The result is int16, or int32 above 32767 classes.

    Raises:
        ValueError: the label map has an id of no class.
    """
    index = spec._channels[label]
    if (index == -2).any():
        unknown = np.unique(label[index == -2])
        raise ValueError(
            f"the label has pixels of id {unknown[0]}, which is not a class of the student (class set "
            f"'{spec.class_set}'): the label belongs to another label space."
        )
    return index


def index_to_label(index: np.ndarray, spec: StudentSpec) -> np.ndarray:
    """Return the label map (H, W) of channels, of `spec.label_dtype`; IGNORE becomes the ignore id."""
    assert index.min(initial=0) >= IGNORE
    ids = np.array([*spec.class_ids, spec.ignore_id], spec.label_dtype)
    return ids[index]
