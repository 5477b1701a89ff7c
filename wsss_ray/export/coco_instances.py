"""COCO's instance annotations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from pycocotools import mask as coco_mask

from wsss_ray.export.categories import category_ids
from wsss_ray.export.coco_file import CocoFormat
from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS
from wsss_ray.export.records import Record, shortest
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.shards.instance import Instance


@EXPORT_FORMATS.register("coco-instances")
class CocoInstances(CocoFormat):
    """annotations/instances_<split>.json: one annotation per mask; masks may overlap.

    `segmentation` is compressed RLE, `area` and `bbox` (XYWH, tight) are those of the mask, as in COCO. Additional
    fields: `score`, `mask_score`, `detector_bbox` (XYWH) and `phrase`. Empty masks are left out and counted.
    """

    kind: ClassVar[str] = "instances"
    needs_instances: ClassVar[bool] = True
    has_parts: ClassVar[bool] = True

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write the images, and a line per image to the part."""
        ids = category_ids(self.classes)
        for record in records:
            self.write_image(record, output)
            assert record.instances is not None
            annotations = [_annotation(instance, ids[instance.class_id]) for instance in record.instances]
            kept = [annotation for annotation in annotations if annotation["area"] > 0]
            output.counts["annotations"] += len(kept)
            output.counts["empty masks left out"] += len(annotations) - len(kept)
            output.add_line({"image": record.image_id, "annotations": kept})

    def annotations(self, numbers: Mapping[str, int], exported: ExportedUnits) -> Iterator[dict[str, Any]]:
        """Iterate over the annotations of all images, numbered from 1."""
        number = 0
        for line in exported.lines():
            for annotation in line["annotations"]:
                number += 1
                yield {"id": number, "image_id": numbers[line["image"]], **annotation}


def _annotation(instance: Instance, category_id: int) -> dict[str, Any]:
    left, top, right, bottom = map(shortest, instance.box)
    return {
        "category_id": category_id,
        "segmentation": {"size": [instance.height, instance.width], "counts": instance.counts.decode("ascii")},
        "area": instance.area,
        "bbox": [int(value) for value in coco_mask.toBbox(instance.rle)],
        "iscrowd": 0,
        "score": shortest(instance.score),
        "mask_score": shortest(instance.mask_score),
        "detector_bbox": [left, top, round(right - left, 4), round(bottom - top, 4)],
        "phrase": instance.phrase,
    }
