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
    from wsss_ray.evaluation.maps import evaluate_maps as evaluate
    from wsss_ray.labeller import Labeller
    from wsss_ray.labelling.labelled_image import LabelledImage
    from wsss_ray.prediction.student import Student
    from wsss_ray.shards.instance import Instance
    from wsss_ray.shards.label_row import LabelRow

__version__ = "0.1.0"
__all__ = ["ClassSet", "Instance", "LabelRow", "LabelledImage", "Labeller", "Student", "evaluate"]

_DEFINITIONS = {
    "ClassSet": ("wsss_ray.classes", "ClassSet"),
    "Instance": ("wsss_ray.shards.instance", "Instance"),
    "LabelRow": ("wsss_ray.shards.label_row", "LabelRow"),
    "LabelledImage": ("wsss_ray.labelling.labelled_image", "LabelledImage"),
    "Labeller": ("wsss_ray.labeller", "Labeller"),
    "Student": ("wsss_ray.prediction.student", "Student"),
    "evaluate": ("wsss_ray.evaluation.maps", "evaluate_maps"),
}
"""Module and name of each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _DEFINITIONS:
        raise AttributeError(f"module 'wsss_ray' has no attribute {name!r}")
    module, definition = _DEFINITIONS[name]
    value = getattr(importlib.import_module(module), definition)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names for completion."""
    return sorted(__all__)
