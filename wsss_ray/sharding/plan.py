"""Plan of a shard job, made before the first byte is written: its shards, and the identity of the set."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wsss_ray.addresses import shown
from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.items import Item, Listing, TruthFile, TruthInstances
from wsss_ray.datasets.rows import RowRules
from wsss_ray.datasets.source import SOURCES
from wsss_ray.engine.run_directory import RunDirectory
from wsss_ray.images.decoding import ExifRule
from wsss_ray.shards.footers import FORMAT_VERSION
from wsss_ray.storage.storage import Storage

IDENTITY_FILE = "shards.json"
_CHANGES = {
    "label_space": "classes: their names or ids differ",
    "images": "images: other images are listed (ids, paths or sizes)",
    "tags": "tags: the images have other tags",
    "truth": "truth: the images have another truth",
}


def group_items(items: Sequence[Item], *, target_bytes: int) -> list[tuple[Item, ...]]:
    """Return the items, in their order, in groups of nearly equal bytes, none much above the target and none empty."""
    total = sum(item.size or 0 for item in items)
    count = max(1, math.ceil(total / target_bytes))
    groups: dict[int, list[Item]] = {}
    before = 0
    for item in items:
        groups.setdefault(min(before * count // max(total, 1), count - 1), []).append(item)
        before += item.size or 0
    return [tuple(group) for _, group in sorted(groups.items())]


def classes_of(config: ShardConfig) -> ClassSet:
    """Return the class set of the shards: the configuration's, else the source's own."""
    return ClassSet.load(config.classes or SOURCES.get(config.source).default_classes)


def items_of(config: ShardConfig, listing: Listing) -> list[Item]:
    """Return the images to read: all that are listed, without the untagged ones where these are skipped.

    Raises:
        ValueError: none is left.
    """
    items = [item for item in listing.items if item.tags != () or config.untagged == "keep"]
    if not items:
        raise ValueError(f"none of the {len(listing.items)} images has a tag, and untagged ones are to be skipped.")
    return items


def resolve_exif(config: ShardConfig, listing: Listing) -> ExifRule:
    """Return the rule for EXIF orientation: the configuration's, else the source's own."""
    return listing.exif if config.exif == "auto" else config.exif


def rules_of(config: ShardConfig, listing: Listing) -> RowRules:
    """Return the rules by which images become rows."""
    return RowRules(
        exif=resolve_exif(config, listing),
        max_pixels=config.max_pixels,
        max_file_bytes=config.max_file_mb * 1_000_000,
        order=config.order,
        crowd=config.crowd,
    )


def identity_of(config: ShardConfig, class_set: ClassSet, listing: Listing) -> dict[str, Any]:
    """Return the settings that decide the rows and their order, without credentials: equal ones give equal shards."""
    painted = any(isinstance(item.truth, TruthInstances) for item in listing.items)
    return {
        "format": FORMAT_VERSION,
        "source": config.source,
        "label_space": class_set.label_space_digest,
        "exif": resolve_exif(config, listing),
        "untagged": config.untagged,
        "order": config.order if painted else None,
        "crowd": config.crowd if painted else None,
        "images_per_unit": config.images_per_unit,
        "shard_mb": config.shard_mb,
        "max_pixels": config.max_pixels,
        "max_file_mb": config.max_file_mb,
        "images": _digest(listing.items, lambda item: [item.image_id, item.path, item.size]),
        "tags": _digest(listing.items, lambda item: item.tags),
        "truth": _digest(listing.items, _describe_truth),
    }


def directory_of(output: Storage) -> RunDirectory:
    """Return the output as a directory that belongs to one identity."""
    return RunDirectory(
        storage=output, claim_file=IDENTITY_FILE, content="shards", content_paths=(), explanations=_CHANGES
    )


def notes_of(config: ShardConfig, class_set: ClassSet) -> dict[str, str]:
    """Return notes beside the identity for readers: the class set's name and the input without credentials."""
    return {"classes": class_set.name, "input": shown(config.input)}


def _digest(items: Iterable[Item], content: Callable[[Item], Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(content(item)).encode() + b"\n")
    return digest.hexdigest()


def _describe_truth(item: Item) -> Any:
    match item.truth:
        case TruthFile(path=path, size=size):
            return [path, size]
        case TruthInstances(annotations=annotations, height=height, width=width):
            return [hashlib.sha256(annotations).hexdigest(), height, width]
    return None
