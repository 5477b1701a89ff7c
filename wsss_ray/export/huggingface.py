"""A folder of Parquet files that `datasets.load_dataset` opens with decoded images and labels."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import Record
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.images.label_png import encode_label
from wsss_ray.shards.instance import Instance

_ROWS_PER_GROUP = 32
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_IMAGE = {"_type": "Image"}


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


def _list(feature: Any) -> dict[str, Any]:
    # "Sequence" of values is what every version of `datasets` reads; "List" came with version 4.
    return {"feature": feature, "_type": "Sequence"}


_OBJECT = pa.struct(
    [
        ("class_id", pa.int32()),
        ("class", pa.string()),
        ("phrase", pa.string()),
        ("score", pa.float32()),
        ("mask_score", pa.float32()),
        ("bbox", pa.list_(pa.float32())),
        ("mask", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
    ]
)
_OBJECT_FEATURE = {
    "class_id": _value("int32"),
    "class": _value("string"),
    "phrase": _value("string"),
    "score": _value("float32"),
    "mask_score": _value("float32"),
    "bbox": _list(_value("float32")),
    "mask": {"size": _list(_value("int32")), "counts": _value("string")},
}
_OBJECT_CARD = [
    {"name": "class_id", "dtype": "int32"},
    {"name": "class", "dtype": "string"},
    {"name": "phrase", "dtype": "string"},
    {"name": "score", "dtype": "float32"},
    {"name": "mask_score", "dtype": "float32"},
    {"name": "bbox", "sequence": "float32"},
    {"name": "mask", "struct": [{"name": "size", "sequence": "int32"}, {"name": "counts", "dtype": "string"}]},
]
_COLUMNS: dict[str, tuple[pa.DataType, Any, dict[str, Any]]] = {
    "image_id": (pa.string(), _value("string"), {"dtype": "string"}),
    "image": (_FILE, _IMAGE, {"dtype": "image"}),
    "label": (_FILE, _IMAGE, {"dtype": "image"}),
    "tags": (pa.list_(pa.string()), _list(_value("string")), {"sequence": "string"}),
    "status": (pa.string(), _value("string"), {"dtype": "string"}),
    # A list of one struct is a list of objects in every version of `datasets`.
    "objects": (pa.list_(_OBJECT), [_OBJECT_FEATURE], {"list": _OBJECT_CARD}),
}
"""Columns: type in Parquet, feature in the file's metadata, feature in the dataset card."""


@EXPORT_FORMATS.register("huggingface")
class HuggingFace(ExportFormat):
    """data/<split>-<unit>.parquet, README.md (the dataset card) and id2label.json.

    Columns: image_id, image and label (both of the feature `Image`: encoded bytes and a file name; the label's pixels
    are class ids), tags, status, and, for runs with instances, objects: class, phrase, scores, the detector's box (XYXY
    pixels) and the mask as compressed COCO RLE.
    """

    version: ClassVar[int] = 2

    def refusal(self) -> str | None:
        """Refuse names that `datasets` does not accept for a split."""
        if re.fullmatch(r"\w+(\.\w+)*", self.split):
            return None
        usable = re.sub(r"[^A-Za-z0-9]+", "_", self.split).strip("_") or "train"
        return f"`datasets` takes no split named {self.split!r}: letters, digits and '_' only, as in --split {usable}."

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write the unit's Parquet file."""
        schema = self._schema()
        buffer = io.BytesIO()
        rows = (self._row(record) for record in records)
        with pq.ParquetWriter(buffer, schema, compression="snappy") as writer:
            while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
        if output.images:
            output.write(f"data/{self.split}-{output.unit.name}.parquet", buffer.getvalue())

    def finish(self, exported: ExportedUnits) -> list[str]:
        """Write the dataset card and the names of the ids."""
        names = {self.classes.background_id: "background", self.classes.ignore_id: "ignore"}
        names |= {entry.id: entry.name for entry in self.classes.classes}
        ids = dict(sorted(names.items()))
        exported.output.write("id2label.json", (json.dumps(ids, indent=2) + "\n").encode())
        exported.output.write("README.md", self._card(ids, exported.counts["images"]).encode())
        return [f'load_dataset("{exported.output.uri}", split="{self.split}") opens it.']

    def _columns(self) -> list[str]:
        left_out = {"image": not self.copy_images, "objects": not self.has_instances}
        return [name for name in _COLUMNS if not left_out.get(name)]

    def _schema(self) -> pa.Schema:
        fields = [(name, _COLUMNS[name][0]) for name in self._columns()]
        features = {name: _COLUMNS[name][1] for name in self._columns()}
        return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})

    def _row(self, record: Record) -> dict[str, Any]:
        label = encode_label(record.label, palette=self.palette)
        return {
            "image_id": record.image_id,
            "image": {"bytes": record.image, "path": record.file_name},
            "label": {"bytes": label, "path": f"{record.image_id}.png"},
            "tags": list(record.tags),
            "status": record.status,
            "objects": [self._object(instance) for instance in record.instances or ()],
        }

    def _object(self, instance: Instance) -> dict[str, Any]:
        return {
            "class_id": instance.class_id,
            "class": self.classes.by_id[instance.class_id].name,
            "phrase": instance.phrase,
            "score": instance.score,
            "mask_score": instance.mask_score,
            "bbox": list(instance.box),
            "mask": {"size": [instance.height, instance.width], "counts": instance.counts.decode("ascii")},
        }

    def _card(self, ids: Mapping[int, str], images: int) -> str:
        """Return README.md: how `datasets` finds and reads the files, and a description."""
        head = {
            "task_categories": ["image-segmentation"],
            "dataset_info": {
                "features": [{"name": name, **_COLUMNS[name][2]} for name in self._columns()],
            },
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": self.split, "path": f"data/{self.split}-*.parquet"}],
                }
            ],
        }
        table = "\n".join(f"| {value} | {_escaped(name)} |" for value, name in ids.items())
        objects = (
            " `objects` are the boxes (XYXY pixels) and masks; `pycocotools.mask.decode(mask)` decodes the latter."
            if self.has_instances
            else ""
        )
        return (
            f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"
            f"# {self.split}: {images:,} images with label maps\n\n"
            "Labels were made by wsss_ray from image-level tags. `label` is a PNG whose pixels are class ids; `tags` "
            "are the classes the image was tagged with; `status` says whether boxes were found (`ok`), the tags had "
            f"none (`no_detections`), or there was no tag (`no_tags`).{objects}\n\n"
            f"| id | class |\n|---|---|\n{table}\n"
        )


def _escaped(name: str) -> str:
    """Return a class name as a cell of a Markdown table."""
    return name.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
