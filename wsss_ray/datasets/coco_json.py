"""Read COCO's instances JSON: images and their annotations. No image is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config import StorageConfig
from wsss_ray.datasets.items import TagReader, TruthInstances
from wsss_ray.datasets.manifest import read_bytes
from wsss_ray.datasets.paths import plain_path


@dataclass(kw_only=True)
class CocoImage:
    """One entry of `images` with its annotations."""

    path: str
    """`file_name`, plain and relative."""
    where: str
    """Position in the file, for messages."""
    height: int | None
    width: int | None
    tags: set[str] = field(default_factory=set)
    """Canonical names of the tags."""
    instances: list[bytes] = field(default_factory=list)
    """JSON of [class id, is crowd, segmentation] each; empty where masks are not read."""

    @property
    def truth(self) -> TruthInstances:
        """Annotations to be painted; without any the map is all background."""
        joined = b"[" + b",".join(self.instances) + b"]"
        return TruthInstances(annotations=joined, height=self.height, width=self.width)


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """An instances JSON."""

    images: tuple[CocoImage, ...]
    """In the file's order; no path twice."""
    segmented: bool
    """Whether any annotation of a known class has a segmentation; False where masks are not read."""


def read_instances(
    source: str,
    storage: StorageConfig,
    class_set: ClassSet,
    tags: TagReader,
    *,
    crowd_tags: bool = True,
    masks: bool = True,
) -> CocoFile:
    """Return the content of an instances JSON, its segmentations as JSON text: as objects they would take gigabytes.

    Args:
        source: path or URI.
        storage: access to S3.
        class_set: the classes.
        tags: reads the names of the categories, and counts those that are no class, which are left out.
        crowd_tags: whether a crowd annotation tags its image.
        masks: whether to keep the segmentations.

    Raises:
        ValueError: it is missing or malformed, or names files outside the images' root.
    """
    content = _parse(read_bytes(source, storage, what="instances JSON"), source)
    images = _read_images(content, source)
    names = _read_categories(content, class_set, source)
    segmented = False
    for index, record in enumerate(content["annotations"]):
        where = f"{source}: annotations[{index}]"
        try:
            image, category, is_crowd = _read_annotation(record, images, names, where)
            name = tags.read([category], where)
            if not name:
                continue
            if not is_crowd or crowd_tags:
                image.tags.update(name)
            if masks:
                segmented = segmented or bool(record.get("segmentation"))
                instance = [class_set.by_name[name[0]].id, int(is_crowd), record.get("segmentation")]
                image.instances.append(json.dumps(instance, separators=(",", ":")).encode())
                record.pop("segmentation", None)  # frees hundreds of MB over all of COCO
        except RecursionError as error:
            raise ValueError(f"{where}: its lists are nested too deeply.") from error
    return CocoFile(images=tuple(images.values()), segmented=segmented)


def _read_annotation(
    record: Mapping[str, Any], images: Mapping[int, CocoImage], names: Mapping[int, str], where: str
) -> tuple[CocoImage, str, bool]:
    """Return an annotation's image, the name of its category, and whether it is a crowd."""
    image_id, category, is_crowd = record.get("image_id"), record.get("category_id"), record.get("iscrowd", 0)
    if type(image_id) is not int or image_id not in images:
        raise ValueError(f"{where}: no image has the id {image_id!r:.40}.")
    if type(category) is not int or category not in names:
        raise ValueError(f"{where}: no category has the id {category!r:.40}.")
    if is_crowd not in (0, 1):
        raise ValueError(f"{where}: `iscrowd` must be 0 or 1, not {is_crowd!r:.40}.")
    return images[image_id], names[category], bool(is_crowd)


def _parse(data: bytes, source: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(f"{source} is not an instances JSON: it lacks the lists `images` and `annotations`.")
    if content.get("categories") is None:
        content["categories"] = []
    elif not isinstance(content["categories"], list):
        raise ValueError(f"{source}: `categories` is not a list.")
    for key in ("images", "annotations", "categories"):
        wrong = [index for index, record in enumerate(content[key]) if not isinstance(record, dict)]
        if wrong:
            raise ValueError(f"{source}: {key}[{wrong[0]}] is not an object.")
    return content


def _read_images(content: Mapping[str, Any], source: str) -> dict[int, CocoImage]:
    images: dict[int, CocoImage] = {}
    paths: dict[str, int] = {}
    for index, record in enumerate(content["images"]):
        where = f"{source}: images[{index}]"
        image_id = record.get("id")
        if type(image_id) is not int or not isinstance(record.get("file_name"), str):
            raise ValueError(f"{where}: `id` must be a whole number and `file_name` a string.")
        path = plain_path(record["file_name"], where)
        if image_id in images or path in paths:
            raise ValueError(f"{where}: the image {path} (id {image_id}) is listed twice.")
        height, width = (record.get(key) for key in ("height", "width"))
        if not all(value is None or (type(value) is int and value > 0) for value in (height, width)):
            raise ValueError(f"{where}: `height` and `width` must be whole numbers above 0.")
        images[image_id] = CocoImage(path=path, where=where, height=height, width=width)
        paths[path] = image_id
    if not images:
        raise ValueError(f"{source} lists no image.")
    return images


def _read_categories(content: Mapping[str, Any], class_set: ClassSet, source: str) -> dict[int, str]:
    """Return the name of each category id: the file's own, or the class set's where the file lists no categories."""
    names: dict[int, str] = {}
    for index, record in enumerate(content["categories"]):
        category, name = record.get("id"), record.get("name")
        if type(category) is not int or not isinstance(name, str):
            raise ValueError(f"{source}: categories[{index}]: `id` must be a whole number and `name` a string.")
        if category in names:
            raise ValueError(f"{source}: categories[{index}]: the id {category} is used twice.")
        names[category] = name
    if not names:
        names = {entry.category_id: entry.name for entry in class_set.classes if entry.category_id is not None}
    return names
