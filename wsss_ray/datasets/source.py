"""Sources: the forms of input that the sharding job can list, by name.

A source needs one class with a name. A user's package adds one without changing this package:

    @SOURCES.register("photos")
    class PhotoSource:
        default_classes = "voc"

        def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
            root = Storage(config.input, config.storage)
            ...

and names it in its `pyproject.toml`, so that `wsss-ray shard --source photos` finds it:

    [project.entry-points."wsss_ray.sources"]
    photos = "my_package.photos:PhotoSource"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from wsss_ray.registry import Registry

if TYPE_CHECKING:
    from wsss_ray.classes import ClassSet
    from wsss_ray.config import ShardConfig
    from wsss_ray.datasets.items import Listing


class Source(Protocol):
    """A form of input. It is created and called in the driver only."""

    default_classes: str
    """Class set of this source where the configuration names none."""

    def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
        """Return the images of `config.input` with their tags and where their truth is, without reading an image.

        Raises:
            ValueError: the input cannot be used; the text says what to do.
        """


SOURCES: Registry[type[Source]] = Registry(
    kind="source",
    group="wsss_ray.sources",
    built_in={
        "voc": "wsss_ray.datasets.voc",
        "coco": "wsss_ray.datasets.coco",
        "folder": "wsss_ray.datasets.folder",
    },
)
"""Sources by name. The configuration is checked against these names."""
