"""Label maps from lists of masks."""

from __future__ import annotations

from collections.abc import Iterable

from wsss_ray.models.protocols import LabelDtype, LabelMap
from wsss_ray.models.registries import FUSION_RULES
from wsss_ray.models.results import Detections, MaskCrop


def fuse(
    detections: Detections,
    crops: Iterable[MaskCrop],
    height: int,
    width: int,
    *,
    paint: str,
    background_id: int,
    dtype: LabelDtype,
) -> LabelMap:
    """Return the label map (height, width) of the masks of `detections`, by the fusion rule `paint`.

    Each mask names its box by `box_index`.
    """
    label_map = FUSION_RULES.get(paint)(height, width, background_id=background_id, dtype=dtype)
    for crop in crops:
        box = crop.box_index
        label_map.add(crop, class_id=int(detections.class_ids[box]), score=float(detections.scores[box]), order=box)
    return label_map.label
