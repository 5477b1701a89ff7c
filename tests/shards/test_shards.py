"""Image and label shards: what goes in comes out, units have digests, and damage is named."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wsss_ray.images.header import DEFAULT_MAX_PIXELS, LARGEST_MAX_PIXELS
from wsss_ray.shards.footers import ShardError, parse_footer
from wsss_ray.shards.image_encoding import digest_rows, encode_image_shard, report_path, shard_name
from wsss_ray.shards.image_shards import find_shard_damage, read_shard_set, read_unit
from wsss_ray.shards.label_files import encode_labels, read_label_counts, read_labelled_ids, read_labels
from wsss_ray.shards.row_checks import check_image_id
from wsss_ray.shards.schemas import IMAGE_SCHEMA, LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import encode_json
from wsss_ray.storage.storage import Storage


def image_rows(*ids: str, tags: tuple[str, ...] = ("dog",), truth: bytes | None = None) -> pa.Table:
    rows = [
        {
            "image_id": image_id,
            "source": f"{image_id}.png",
            "image": image_id.encode() + b"\0\0",
            "height": 2,
            "width": 3,
            "tags": list(tags),
            "truth": truth,
        }
        for image_id in ids
    ]
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)


def write_shards(root: Path, *shards: list[pa.Table], label_space: str = "space", **footer: Any) -> Storage:
    storage = Storage(str(root))
    for index, groups in enumerate(shards):
        options = {"exif": "ignore", "label_space": label_space, "classes": "voc", **footer}
        storage.write(shard_name(index, len(shards)), encode_image_shard(groups, **options))
    return storage


def test_rows_come_back_by_unit(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a", "b"), image_rows("c", tags=())], [image_rows("d", truth=b"\1\0")])
    shard_set = read_shard_set(storage)
    assert [(unit.shard, unit.row_group, unit.rows) for unit in shard_set.units] == [
        ("shard-00000-of-00002.parquet", 0, 2),
        ("shard-00000-of-00002.parquet", 1, 1),
        ("shard-00001-of-00002.parquet", 0, 1),
    ]
    assert shard_set.rows == 4
    assert shard_set.has_truth
    assert (shard_set.classes, shard_set.label_space) == ("voc", "space")
    rows = read_unit(storage, shard_set.units[0])
    assert rows.schema.equals(IMAGE_SCHEMA)
    assert rows["image"].to_pylist() == [b"a\0\0", b"b\0\0"], "bytes end in NULs and keep them"
    assert read_unit(storage, shard_set.units[1])["tags"].to_pylist() == [[]]
    assert read_unit(storage, shard_set.units[2], columns=["truth"]).to_pydict() == {"truth": [b"\1\0"]}


def claiming(height: int, width: int) -> pa.Table:
    sizes = {"height": height, "width": width}
    return pa.Table.from_pylist([{**image_rows("a").to_pylist()[0], **sizes}], schema=IMAGE_SCHEMA)


@pytest.mark.parametrize(("limit", "side"), [(DEFAULT_MAX_PIXELS, 10_000), (400_000_000, 20_000)])
def test_no_row_may_claim_more_pixels_than_its_shard_was_allowed(tmp_path: Path, limit: int, side: int) -> None:
    storage = write_shards(tmp_path, [claiming(side, side), claiming(side, side + 1)], max_pixels=limit)
    allowed, refused = read_shard_set(storage).units
    assert allowed.max_pixels == limit
    for check in ("content", "footer"):
        assert read_unit(storage, allowed, columns=["height", "width"], check=check)["width"].to_pylist() == [side]
        with pytest.raises(ShardError, match=rf"row group 1: image .*claims {side + 1} x {side} .* limit is {limit}"):
            read_unit(storage, refused, columns=["height", "width"], check=check)


@pytest.mark.parametrize("size", [(0, 3), (-40_000, -40_000), (2**31 - 1, 2**31 - 1)])
def test_sizes_that_no_image_has(tmp_path: Path, size: tuple[int, int]) -> None:
    storage = write_shards(tmp_path, [claiming(*size)])
    with pytest.raises(ShardError, match="image a claims"):
        read_unit(storage, read_shard_set(storage).units[0])
    unit = read_shard_set(write_shards(tmp_path / "good", [image_rows("a")])).units[0]
    fields = {"label": b"", "undetected_tags": [], "status": "ok", "instances": None, "error": None, "tags": []}
    rows = [{"image_id": "a", "height": size[0], "width": size[1], **fields}]
    storage.write(unit.label_path, encode_labels(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), unit, {}))
    with pytest.raises(ShardError, match="image a claims"):
        read_labels(storage, unit)


@pytest.mark.parametrize("limit", [LARGEST_MAX_PIXELS + 1, 0, -1, 1.5, None, "many"])
def test_a_shard_cannot_allow_itself_anything(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(ShardError, match=f"allows images of {limit} pixels"):
        read_shard_set(write_shards(tmp_path, [image_rows("a")], max_pixels=limit))


def test_the_same_rows_give_the_same_bytes_and_names() -> None:
    options = {"exif": "apply", "label_space": "space", "classes": "voc"}
    first = encode_image_shard([image_rows("a"), image_rows("b")], **options)
    chunked = pa.concat_tables([image_rows("a")])
    assert encode_image_shard([chunked, image_rows("b")], **options) == first
    assert encode_image_shard([image_rows("a"), image_rows("c")], **options) != first


@pytest.mark.parametrize(
    "other",
    [image_rows("b", "a"), image_rows("a", "c"), image_rows("a", "b", tags=("cat",)), image_rows("a", "b", tags=())],
    ids=["order", "id and bytes", "tags", "no tags"],
)
def test_the_digest_covers_ids_bytes_and_tags(other: pa.Table) -> None:
    assert digest_rows(image_rows("a", "b")) == digest_rows(image_rows("a", "b", truth=b"truth is not labelled from"))
    assert digest_rows(other) != digest_rows(image_rows("a", "b"))


def test_the_digest_keeps_fields_apart() -> None:
    table = image_rows("a")
    moved = table.set_column(0, "image_id", pa.array(["aa"])).set_column(
        2, "image", pa.array([b"\0\0"], pa.large_binary())
    )
    assert digest_rows(moved) != digest_rows(table)


def test_a_unit_is_named_by_place_and_content() -> None:
    unit = Unit(shard="shard-00003-of-00012.parquet", row_group=7, rows=2, digest="0123456789abcdef", exif="ignore")
    assert unit.name == "shard-00003-of-00012-0007-01234567"
    assert unit.label_path == "labels/shard-00003-of-00012-0007-01234567.parquet"
    assert Unit.from_json(unit.to_json()) == unit


def test_a_shard_without_rows_is_a_shard(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [], [image_rows("a")])
    shard_set = read_shard_set(storage)
    assert [unit.shard for unit in shard_set.units] == ["shard-00001-of-00002.parquet"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a")], [image_rows("b")])
    (tmp_path / shard_name(0, 2)).unlink()
    with pytest.raises(ShardError, match="1 of 2 shards are missing, the first is shard-00000-of-00002"):
        read_shard_set(storage)


def test_shards_of_two_runs_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, [image_rows("a")])
    storage = write_shards(tmp_path, [image_rows("a")], [image_rows("b")])
    with pytest.raises(ShardError, match="of-00001, of-00002"):
        read_shard_set(storage)


def test_shards_of_two_class_sets_are_refused(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a")], [image_rows("b")])
    other = encode_image_shard([image_rows("b")], exif="ignore", label_space="other", classes="coco")
    storage.write(shard_name(1, 2), other)
    with pytest.raises(ShardError, match="different class sets"):
        read_shard_set(storage)


def test_a_folder_of_images_is_answered_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no image shards"):
        read_shard_set(Storage(str(tmp_path)))
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ShardError, match=r"wsss-ray shard --source folder --input "):
        read_shard_set(Storage(str(tmp_path)))


def test_a_truncated_or_foreign_shard_is_named(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a")])
    path = tmp_path / shard_name(0, 1)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ShardError, match=r"shard-00000-of-00001.parquet is truncated or no Parquet file"):
        read_shard_set(storage)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ShardError, match="was not made by wsss_ray"):
        read_shard_set(storage)


def test_a_byte_that_changed_anywhere_is_named_with_the_file_or_does_no_harm(tmp_path: Path) -> None:
    """Of a damaged page or footer Arrow raises a bare OSError."""
    rows = image_rows(*(f"image-{index}" for index in range(50)))
    storage = write_shards(tmp_path, [rows])
    unit = read_shard_set(storage).units[0]
    path = tmp_path / unit.shard
    whole = path.read_bytes()
    kept = ["image_id", "image", "tags"]
    causes = set()
    for place in range(0, len(whole), 27):
        changed = bytearray(whole)
        changed[place] ^= 0x5A
        path.write_bytes(changed)
        try:
            found = read_unit(storage, unit)
        except ShardError as error:
            told, cause = str(error), type(error.__cause__)
        else:
            assert found.select(kept).to_pylist() == rows.select(kept).to_pylist(), place
            continue
        assert path.name in told
        causes.add(cause)
    assert {OSError, pa.ArrowInvalid} <= causes


def test_a_replaced_or_damaged_unit_is_refused(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a"), image_rows("b")])
    units = read_shard_set(storage).units
    write_shards(tmp_path, [image_rows("a"), image_rows("c")])
    assert read_unit(storage, units[0]).num_rows == 1
    with pytest.raises(ShardError, match="row group 1: its content does not match its footer"):
        read_unit(storage, units[1])
    write_shards(tmp_path, [image_rows("a")])
    with pytest.raises(ShardError, match="row group 1: damaged"):
        read_unit(storage, units[1])
    (tmp_path / shard_name(0, 1)).unlink()
    with pytest.raises(ShardError, match="was removed"):
        read_unit(storage, units[0])


def test_one_changed_byte_of_an_image_is_found(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("needle")])
    (unit,) = read_shard_set(storage).units
    path = tmp_path / shard_name(0, 1)
    data = path.read_bytes()
    assert data.count(b"needle\0\0") == 1
    path.write_bytes(data.replace(b"needle\0\0", b"needle\0\1"))
    with pytest.raises(
        ShardError, match=r"of-00001.parquet, row group 0: damaged: .* CRC checksum verification failed"
    ):
        read_unit(storage, unit)


def test_a_unit_is_read_from_s3(s3: Any) -> None:
    storage = Storage(s3.uri("shards-unit"), s3.config)
    groups = [image_rows("a", "b"), image_rows("c")]
    data = encode_image_shard(groups, exif="ignore", label_space="s", classes="voc")
    storage.write(shard_name(0, 1), data)
    units = read_shard_set(storage).units
    assert read_unit(storage, units[1], columns=["image_id"])["image_id"].to_pylist() == ["c"]


def test_labels_and_their_counts_come_back(tmp_path: Path) -> None:
    row = {
        "image_id": "a",
        "height": 2,
        "width": 3,
        "label": b"png\0",
        "instances": [
            {
                "class_id": 12,
                "phrase": "dog",
                "score": 0.5,
                "box": [0.0, 1.0, 2.0, 3.0],
                "mask_score": 0.25,
                "mask": {"height": 2, "width": 3, "counts": b"06"},
            }
        ],
        "tags": ["dog"],
        "undetected_tags": [],
        "status": "ok",
        "error": None,
    }
    failed = {
        **row,
        "image_id": "b",
        "label": None,
        "instances": None,
        "status": "failed",
        "error": "decode: truncated",
    }
    rows = pa.Table.from_pylist([row, failed], schema=LABEL_SCHEMA)
    unit = Unit(shard=shard_name(0, 1), row_group=0, rows=2, digest="ab" * 32, exif="ignore")
    storage = Storage(str(tmp_path))
    storage.write(unit.label_path, encode_labels(rows, unit, {"ok": 1, "failed": 1}))
    assert read_labels(storage, unit).to_pylist() == [row, failed]
    assert read_label_counts(storage, unit) == {"ok": 1, "failed": 1}
    assert read_labelled_ids(storage, unit) == ["a"]
    footer = json.loads(pq.read_metadata(tmp_path / unit.label_path).metadata[b"wsss_ray"])
    assert footer["digest"] == unit.digest
    for key in ("labelled", "pages_sha256", "footer_sha256"):  # which old files do not have
        del footer[key]
    pq.write_table(rows.replace_schema_metadata({"wsss_ray": json.dumps(footer)}), tmp_path / unit.label_path)
    assert read_labelled_ids(storage, unit) == ["a"]
    assert read_labels(storage, unit).to_pylist() == [row, failed]
    (tmp_path / unit.label_path).unlink()
    with pytest.raises(FileNotFoundError):
        read_labels(storage, unit)


def test_an_image_shard_is_not_a_label_file(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a")])
    unit = read_shard_set(storage).units[0]
    storage.write(unit.label_path, storage.read(unit.shard))
    with pytest.raises(ShardError, match="holds images in format 1, not labels"):
        read_label_counts(storage, unit)


@pytest.mark.parametrize("image_id", ["2007_000032", "COCO_train2014_000000000009", "a.2Fb-c", "x" * 200, "_"])
def test_image_ids(image_id: str) -> None:
    assert check_image_id(image_id) == image_id


@pytest.mark.parametrize("image_id", ["", ".a", "..", "a/b", "a b", "ä", "a\n", "x" * 201, "a\0"])
def test_what_is_no_image_id(image_id: str) -> None:
    with pytest.raises(ValueError, match="is no image id"):
        check_image_id(image_id)


def test_units_of_a_shard_with_a_damaged_footer_stay_known(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [image_rows("a"), image_rows("b")], [image_rows("c")])
    whole = read_shard_set(storage)
    name = shard_name(0, 2)
    footer = parse_footer(storage.read(name), name, kind="images")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match=f"{name} is truncated"):
        read_shard_set(storage)
    storage.write(report_path(name), encode_json({"footer": footer}))
    found = read_shard_set(storage)
    assert (found.units, found.digest) == (whole.units, whole.digest)
    assert list(found.damaged) == [name]
    with pytest.raises(ShardError, match=f"{name}, row group 1: damaged"):
        read_unit(storage, found.units[1])
    assert read_unit(storage, found.units[2]).num_rows == 1


@pytest.mark.parametrize("column", ["image_id", "source", "height", "width", "tags", "truth"])
def test_each_column_has_a_digest(tmp_path: Path, column: str) -> None:
    rows = image_rows("needle", truth=b"truth")
    changed = {"source": "other", "height": 3, "width": 4, "tags": ["cat"], "truth": b"trutH", "image_id": "noodle"}
    storage = write_shards(tmp_path, [rows])
    unit = read_shard_set(storage).units[0]
    footer = parse_footer(storage.read(unit.shard), "shard", kind="images")
    other = pa.Table.from_pylist([{**rows.to_pylist()[0], column: changed[column]}], schema=IMAGE_SCHEMA)
    del footer["pages_sha256"], footer["footer_sha256"]
    pq.write_table(other.replace_schema_metadata({"wsss_ray": json.dumps(footer)}), tmp_path / unit.shard)
    with pytest.raises(ShardError, match="its content does not match its footer"):
        read_unit(storage, unit, columns=[column], check="footer")


@pytest.mark.parametrize("digests", [True, False])
def test_damage_anywhere_in_a_shard_is_found(tmp_path: Path, digests: bool) -> None:
    storage = write_shards(tmp_path, [image_rows("needle"), image_rows("b")])
    path = tmp_path / shard_name(0, 1)
    if not digests:  # an old file
        footer = parse_footer(path.read_bytes(), "shard", kind="images")
        del footer["pages_sha256"], footer["footer_sha256"]
        table = pa.concat_tables([image_rows("needle"), image_rows("b")])
        pq.write_table(table.replace_schema_metadata({"wsss_ray": json.dumps(footer)}), path, row_group_size=1)
    assert find_shard_damage(storage, path.name) is None
    path.write_bytes(path.read_bytes().replace(b"needle\0\0", b"needle\0\1"))
    assert path.name in str(find_shard_damage(storage, path.name))
