"""A folder of Parquet files that `datasets.load_dataset` opens with decoded images and labels."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from wsss_ray.export.formats import Ending, Format
from wsss_ray.export.records import Record
from wsss_ray.export.sheets import Sheet
from wsss_ray.images.label_png import encode_label

_ROWS_PER_GROUP = 32
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TEXT = {"dtype": "string", "_type": "Value"}
_IMAGE = {"_type": "Image"}
# "Sequence" is what every version of `datasets` reads; "List" came with version 4.
_FEATURES: dict[str, tuple[pa.DataType, Any, dict[str, str]]] = {
    "image_id": (pa.string(), _TEXT, {"dtype": "string"}),
    "image": (_FILE, _IMAGE, {"dtype": "image"}),
    "label": (_FILE, _IMAGE, {"dtype": "image"}),
    "tags": (pa.list_(pa.string()), {"feature": _TEXT, "_type": "Sequence"}, {"sequence": "string"}),
    "status": (pa.string(), _TEXT, {"dtype": "string"}),
}
"""Columns: type in Parquet, feature in the file's metadata, feature in the dataset card."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Format):
    """data/<split>-<unit>.parquet, README.md (the dataset card) and id2label.json.

    Columns: image_id, image and label (both of the feature `Image`: encoded bytes and a file name; the label's pixels
    are class ids), tags, status.
    """

    name: ClassVar[str] = "huggingface"

    def refusal(self) -> str | None:
        """`datasets` does not take every name for a split."""
        if re.fullmatch(r"\w+(\.\w+)*", self.split):
            return None
        usable = re.sub(r"[^A-Za-z0-9]+", "_", self.split).strip("_") or "train"
        return f"`datasets` takes no split named {self.split!r}: letters, digits and '_' only, as in --split {usable}."

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write the unit's Parquet file."""
        schema = self._schema()
        buffer = io.BytesIO()
        rows = (self._row(record) for record in records)
        with pq.ParquetWriter(buffer, schema, compression="snappy") as writer:
            while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
        if sheet.entries:
            sheet.write(f"data/{self.split}-{sheet.unit.name}.parquet", buffer.getvalue())

    def finish(self, ending: Ending) -> list[str]:
        """Write the dataset card and the names of the ids."""
        names = {self.classes.background_id: "background", self.classes.ignore_id: "ignore"}
        names |= {entry.id: entry.name for entry in self.classes.classes}
        ids = dict(sorted(names.items()))
        ending.output.write("id2label.json", (json.dumps(ids, indent=2) + "\n").encode())
        ending.output.write("README.md", self._card(ids, ending.counts["images"]).encode())
        return [f'load_dataset("{ending.output.uri}", split="{self.split}") opens it.']

    def _columns(self) -> list[str]:
        return [name for name in _FEATURES if name != "image" or self.copy_images]

    def _schema(self) -> pa.Schema:
        fields = [(name, _FEATURES[name][0]) for name in self._columns()]
        features = {name: _FEATURES[name][1] for name in self._columns()}
        return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})

    def _row(self, record: Record) -> dict[str, Any]:
        label = encode_label(record.label, palette=self.palette)
        return {
            "image_id": record.image_id,
            "image": {"bytes": record.picture, "path": record.file_name},
            "label": {"bytes": label, "path": f"{record.image_id}.png"},
            "tags": list(record.tags),
            "status": record.status,
        }

    def _card(self, ids: Mapping[int, str], images: int) -> str:
        """README.md: how `datasets` finds and reads the files, and a text for people."""
        head = {
            "task_categories": ["image-segmentation"],
            "dataset_info": {
                "features": [{"name": name, **_FEATURES[name][2]} for name in self._columns()],
            },
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": self.split, "path": f"data/{self.split}-*.parquet"}],
                }
            ],
        }
        table = "\n".join(f"| {value} | {_escaped(name)} |" for value, name in ids.items())
        return (
            f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"
            f"# {self.split}: {images:,} images with label maps\n\n"
            "Labels were made by wsss_ray from image-level tags. `label` is a PNG whose pixels are class ids; `tags` "
            "are the classes the image was tagged with; `status` says whether boxes were found (`ok`), the tags had "
            "none (`no_detections`), or there was no tag (`no_tags`).\n\n"
            f"| id | class |\n|---|---|\n{table}\n"
        )


def _escaped(name: str) -> str:
    """A class name as a cell of a Markdown table."""
    return name.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
