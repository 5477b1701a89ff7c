"""Common base of the COCO formats: numbers of images, and JSON files that are written in pieces.

Image numbers are COCO's own where every image id is one of COCO's (`000000000139`, `COCO_train2014_000000000009`), so
that the result can be compared with COCO's annotations. Otherwise images are numbered from 1. `name` is the image id.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from wsss_ray.export.categories import categories
from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import ExportFormat

_COCO_ID = re.compile(r"(?:COCO_[A-Za-z0-9]+_)?(\d{12})")


class CocoFormat(ExportFormat):
    """Images in `<split>/`, and one annotation file in `annotations/`."""

    kind: ClassVar[str]
    """First word of the annotation file's name."""
    image_folder: ClassVar[str | None] = "{split}"

    @abstractmethod
    def annotations(self, numbers: Mapping[str, int], exported: ExportedUnits) -> Iterator[dict[str, Any]]:
        """Iterate over the annotations, given the number of each image."""

    def finish(self, exported: ExportedUnits) -> list[str]:
        """Write the annotation file: images, annotations, categories."""
        numbers = image_numbers(image.image_id for image in exported.images())
        images = (
            {
                "id": numbers[image.image_id],
                "file_name": image.file_name,
                "height": image.height,
                "width": image.width,
                "name": image.image_id,
            }
            for image in exported.images()
        )
        head = {"info": {"description": f"{self.split}, written by wsss_ray", "version": "1.0"}, "licenses": []}
        with exported.output.writing(f"annotations/{self.kind}_{self.split}.json") as file:
            pieces = _join_json(
                head,
                {"images": images, "annotations": self.annotations(numbers, exported)},
                {"categories": categories(self.classes), **self.extra_fields()},
            )
            for piece in pieces:
                file.write(piece)
        return []

    def extra_fields(self) -> dict[str, Any]:
        """Return further fields of the annotation file."""
        return {}


def image_numbers(image_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of each image, by the rule in this module's docstring."""
    ids = list(image_ids)
    matches = [_COCO_ID.fullmatch(image_id) for image_id in ids]
    own = [int(match[1]) for match in matches if match]
    if len(own) == len(set(own)) == len(ids):
        return dict(zip(ids, own, strict=True))
    return {image_id: number for number, image_id in enumerate(ids, start=1)}


def _join_json(
    head: Mapping[str, Any], lists: Mapping[str, Iterable[Mapping[str, Any]]], tail: Mapping[str, Any]
) -> Iterator[bytes]:
    """Iterate over the pieces of a JSON object: the fields of head, lists (an element per line) and tail."""
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
