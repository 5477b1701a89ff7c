"""Arrow schemas of image shards, label files and rejected files."""

from __future__ import annotations

import pyarrow as pa

IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("truth", pa.large_binary()),
    ]
)
"""One image: id, original path, original encoded bytes, displayed size under the shard's `exif` rule, canonical class
names, and a label PNG where there is a ground truth."""

READ_COLUMNS = [name for name in IMAGE_SCHEMA.names if name not in ("source", "truth")]
"""Columns of an image shard that labelling and prediction read: never the truth."""


REJECTED_SCHEMA = pa.schema([("source", pa.string()), ("stage", pa.string()), ("reason", pa.string())])
"""One image that could not become a row, and why."""


RLE_TYPE = pa.struct([("height", pa.int32()), ("width", pa.int32()), ("counts", pa.binary())])


INSTANCE_TYPE = pa.struct(
    [
        ("class_id", pa.int32()),
        ("phrase", pa.string()),
        ("score", pa.float32()),
        ("box", pa.list_(pa.float32(), 4)),
        ("mask_score", pa.float32()),
        ("mask", RLE_TYPE),
    ]
)


LABEL_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("label", pa.large_binary()),
        pa.field("instances", pa.list_(INSTANCE_TYPE)),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("undetected_tags", pa.list_(pa.string())),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
"""One labelled image. `label` is a label PNG (null where the status is failed); boxes are XYXY pixels; `instances` is
null for predictions of a network."""


STATUSES = ("ok", "no_tags", "no_detections", "failed")
