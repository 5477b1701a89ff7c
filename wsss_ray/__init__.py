"""Weakly supervised semantic segmentation on Ray: image-level tags in, pixel labels out.

>>> from wsss_ray import Labeller
>>> results = Labeller("demo").label(["scene.jpg"], [["cat", "dog"]])

Names are imported when they are first used: `import wsss_ray` loads neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss_ray.classes import ClassSet
    from wsss_ray.labeller import Labeller
    from wsss_ray.labelling.labelled_image import LabelledImage
    from wsss_ray.shards.instance import Instance
    from wsss_ray.shards.label_row import LabelRow

__version__ = "0.1.0"
__all__ = ["ClassSet", "Instance", "LabelRow", "LabelledImage", "Labeller"]

_MODULES = {
    "ClassSet": "wsss_ray.classes",
    "Instance": "wsss_ray.shards.instance",
    "LabelRow": "wsss_ray.shards.label_row",
    "LabelledImage": "wsss_ray.labelling.labelled_image",
    "Labeller": "wsss_ray.labeller",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'wsss_ray' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names for completion."""
    return sorted(__all__)
