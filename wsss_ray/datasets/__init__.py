"""Where images, tags and truth come from: VOC, COCO, or any folder."""

from __future__ import annotations

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.coco import list_coco
from wsss_ray.datasets.folder import list_folder
from wsss_ray.datasets.items import Listing
from wsss_ray.datasets.voc import list_voc

_SOURCES = {"voc": list_voc, "coco": list_coco, "folder": list_folder}


def list_source(config: ShardConfig, class_set: ClassSet) -> Listing:
    """List the images of the configured source, without reading one; ValueError where it cannot be used."""
    return _SOURCES[config.source](config, class_set)
