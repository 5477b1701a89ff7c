"""COCO's JSON of instances, and what all COCO forms share: numbers of images, and JSON written piece by piece.

Image numbers: COCO's own where every image id is one of COCO's (`000000000139`, `COCO_train2014_000000000009`), so that
the result can be held against COCO's annotations; else places in the export, from 1. `name` keeps the image id.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pycocotools import mask as coco_mask

from wsss_ray.export.formats import Ending, Format, categories, category_ids
from wsss_ray.export.records import Instance, Record
from wsss_ray.export.sheets import Parts, Sheet

_COCO_ID = re.compile(r"(?:COCO_[A-Za-z0-9]+_)?(\d{12})")


@dataclass(frozen=True, kw_only=True)
class CocoFormat(Format):
    """`<split>/` with the images, and one file of annotations for the split."""

    picture_folder: ClassVar[str | None] = "{split}"

    @abstractmethod
    def annotations(self, numbers: Mapping[str, int], parts: Parts) -> Iterator[dict[str, Any]]:
        """The list of annotations, given the numbers of the images."""

    def finish(self, ending: Ending) -> list[str]:
        """Write the split's JSON: images, annotations, categories."""
        parts = ending.parts
        kind = self.name.removeprefix("coco-")
        numbers = image_numbers(entry.image_id for entry in parts.entries())
        images = (
            {
                "id": numbers[entry.image_id],
                "file_name": entry.file_name,
                "height": entry.height,
                "width": entry.width,
                "name": entry.image_id,
            }
            for entry in parts.entries()
        )
        head = {"info": {"description": f"{self.split}, written by wsss_ray", "version": "1.0"}, "licenses": []}
        with ending.output.writing(f"annotations/{kind}_{self.split}.json") as file:
            pieces = _join_json(
                head,
                {"images": images, "annotations": self.annotations(numbers, parts)},
                {"categories": categories(self.classes), **self.particulars()},
            )
            for piece in pieces:
                file.write(piece)
        return []

    def particulars(self) -> dict[str, Any]:
        """What else the JSON says."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CocoInstances(CocoFormat):
    """annotations/instances_<split>.json: one annotation per mask, overlapping as the segmenter gave them.

    `segmentation` is compressed RLE as text, `area` and `bbox` (XYWH, tight) are the mask's, as in COCO. Extra fields:
    `score`, `mask_score`, `detector_bbox` (XYWH) and `phrase`. Empty masks are left out and counted.
    """

    name: ClassVar[str] = "coco-instances"
    needs_instances: ClassVar[bool] = True
    has_parts: ClassVar[bool] = True

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write the images; one line per image goes to the part."""
        ids = category_ids(self.classes)
        for record in records:
            self.write_picture(record, sheet)
            assert record.instances is not None
            found = [_annotation(instance, ids[instance.class_id]) for instance in record.instances]
            kept = [annotation for annotation in found if annotation["area"] > 0]
            sheet.counts["annotations"] += len(kept)
            sheet.counts["empty masks left out"] += len(found) - len(kept)
            sheet.add_line({"image": record.image_id, "annotations": kept})

    def annotations(self, numbers: Mapping[str, int], parts: Parts) -> Iterator[dict[str, Any]]:
        """Annotations of all images, numbered from 1."""
        number = 0
        for line in parts.lines():
            for annotation in line["annotations"]:
                number += 1
                yield {"id": number, "image_id": numbers[line["image"]], **annotation}


def image_numbers(image_ids: Iterable[str]) -> dict[str, int]:
    """Number of each image, by the rule at the head of this module."""
    ids = list(image_ids)
    matches = [_COCO_ID.fullmatch(image_id) for image_id in ids]
    own = [int(match[1]) for match in matches if match]
    if len(own) == len(set(own)) == len(ids):
        return dict(zip(ids, own, strict=True))
    return {image_id: number for number, image_id in enumerate(ids, start=1)}


def _annotation(instance: Instance, category_id: int) -> dict[str, Any]:
    left, top, right, bottom = instance.box
    return {
        "category_id": category_id,
        "segmentation": {"size": [instance.height, instance.width], "counts": instance.counts.decode("ascii")},
        "area": instance.area,
        "bbox": [int(value) for value in coco_mask.toBbox(instance.rle)],
        "iscrowd": 0,
        "score": instance.score,
        "mask_score": instance.mask_score,
        "detector_bbox": [left, top, round(right - left, 4), round(bottom - top, 4)],
        "phrase": instance.phrase,
    }


def _join_json(
    head: Mapping[str, Any], lists: Mapping[str, Iterable[Mapping[str, Any]]], tail: Mapping[str, Any]
) -> Iterator[bytes]:
    """An object of JSON in pieces: the fields of head, of lists (one line per element) and of tail, in order."""
    yield b"{"
    for name, value in head.items():
        yield f'"{name}": {json.dumps(value)},\n'.encode()
    for name, elements in lists.items():
        yield f'"{name}": ['.encode()
        separator = "\n"
        for element in elements:
            yield f"{separator}{json.dumps(element, separators=(',', ':'))}".encode()
            separator = ",\n"
        yield b"\n],\n"
    yield ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in tail.items()).encode()
    yield b"}\n"
