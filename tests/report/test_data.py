"""The gallery's data: sampling, scripts, counts and settings, without a browser and without Ray."""

from __future__ import annotations

import json
import re

import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.labels.summary import excludes_start_up
from wsss_ray.report.index import FIELDS, Index, encode_details, to_script
from wsss_ray.report.job import choose, in_order
from wsss_ray.report.overview import Agreement, setting_rows
from wsss_ray.report.unit import Box, Card
from wsss_ray.shards.units import Unit

UNITS = [
    Unit(shard=f"s{i}.parquet", row_group=0, rows=rows, digest=f"{i:064x}", exif="apply")
    for i, rows in enumerate((3, 0, 5, 2))
]


def test_a_sample_is_drawn_by_the_seed_over_all_images() -> None:
    assert choose(UNITS, None, 0) is None
    assert choose(UNITS, 10, 0) is None
    assert choose(UNITS, 4, 1) == choose(UNITS, 4, 1)
    times = dict.fromkeys(((unit.name, row) for unit in UNITS for row in range(unit.rows)), 0)
    for seed in range(200):
        chosen = choose(UNITS, 4, seed) or {}
        assert sum(len(rows) for rows in chosen.values()) == 4
        for name, rows in chosen.items():
            assert rows == sorted(set(rows))
            for row in rows:
                times[name, row] += 1
    assert all(40 < count < 120 for count in times.values()), times  # 80 each on average


def test_results_come_in_order_whatever_their_arrival() -> None:
    assert list(in_order(iter([(2, "c"), (0, "a"), (3, "d"), (1, "b")]))) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


HOSTILE = "</script><script>alert(1)</script><!-- &amp; \u2028 \"'\\ é"


def test_no_text_ends_a_script() -> None:
    script = to_script({"name": HOSTILE})
    assert not re.search(r"[<>&\u2028\u2029]", script)
    assert script.isascii()
    assert json.loads(script) == {"name": HOSTILE}


def card(**changes: object) -> Card:
    values = {"image_id": "a", "unit": "u", "height": 2, "width": 3, "status": "ok", "tags": [0, 1], "missed": [1]}
    return Card(**{**values, **changes})  # type: ignore[arg-type]


def test_the_index_and_the_details_are_json_behind_a_name() -> None:
    classes = ClassSet.from_names(["cat", HOSTILE])
    index = Index(classes, ["failed", "near_threshold"])
    box = Box(class_index=0, phrase=HOSTILE, score=0.5, mask_score=0.9, corners=(0, 0, 1.5, 2))
    reason = {"kind": "near_threshold", "text": HOSTILE}
    shown = card(
        shares=[(0, 0.25)], boxes=[box], iou=0.5, class_iou=[(0, 0.4)], rank=7, reasons=[reason], has_photo=True
    )
    index.add(shown)
    index.add(card(image_id="b", status="failed", boxes=None))
    assert len(index) == 2
    head, images = re.fullmatch(
        r"var galleryUnits = \{\};\nvar gallery = (.*);\ngallery\.images = (\[.*\]);\n",
        index.encode({"pages": 1}).decode("ascii"),
        re.DOTALL,
    ).groups()  # type: ignore[union-attr]
    assert json.loads(head)["classes"] == ["cat", HOSTILE]
    rows = [dict(zip(FIELDS, row, strict=True)) for row in json.loads(images)]
    assert rows[0] == {
        "id": "a",
        "unit": 0,
        "width": 3,
        "height": 2,
        "status": 0,
        "tags": [0, 1],
        "missed": [1],
        "shares": [0, 250.0],
        "boxes": 1,
        "files": 1,
        "iou": 0.5,
        "classIou": [0, 0.4],
        "rank": 7,
        "reasons": [1],
    }
    assert (rows[1]["status"], rows[1]["boxes"], rows[1]["files"]) == (3, None, 0)
    name, details = re.fullmatch(
        r"galleryUnits\[(.*?)\] = (.*);\n", encode_details("u", [shown]).decode("ascii"), re.DOTALL
    ).groups()  # type: ignore[union-attr]
    assert json.loads(name) == "u"
    assert json.loads(details)["a"]["boxes"] == [[0, HOSTILE, 0.5, 0.9, 0, 0, 1.5, 2]]
    assert json.loads(details)["a"]["reasons"] == [["near_threshold", HOSTILE]]


def test_agreement_counts_images_and_classes() -> None:
    agreement = Agreement(2)
    for iou, class_iou in [(1.0, [(0, 1.0)]), (0.5, [(0, 0.2), (1, 0.0)]), (None, [])]:
        agreement.add(card(iou=iou, class_iou=class_iou))
    assert (agreement.images, agreement.mean) == (2, 0.75)
    assert agreement.of_class(0) == pytest.approx(0.6)
    assert agreement.of_class(1) == 0
    assert [index for index, images in enumerate(agreement.bins) if images] == [10, 19]
    assert Agreement(1).mean is None
    assert Agreement(1).of_class(0) is None


@pytest.mark.parametrize(
    ("session", "excluded"),
    [
        (None, False),
        ({"images": 13, "seconds": 2.5, "images_per_second": 5.2}, False),
        ({"images": 1, "seconds": 90.0, "images_per_second": 0.011}, False),
        ({"images": 13, "seconds": 2.5, "images_per_second": 6.5}, True),
        ({"images": 13, "seconds": 2.5, "images_per_second": 4.0}, True),
    ],
)
def test_a_rate_excludes_start_up_if_it_is_not_that_of_the_whole(session: dict[str, float], excluded: bool) -> None:
    assert excludes_start_up(session) is excluded


def test_settings_are_flat_and_hold_no_secret() -> None:
    identity = {
        "detector": {
            "box_threshold": 0.3,
            "weights": "https://me:pw@host/w.pth?X-Amz-Signature=abc",
            "max_tokens": 256,
        },
        "api_key": "k",
        "storage": {"aws_secret_access_key": "s", "session_token": "t", "password": {"nested": "p"}},
        "phrases": {"cat": ["cat", "kitten"]},
        "empty": {},
    }
    assert dict(setting_rows(identity)) == {
        "api_key": "(hidden)",
        "detector.box_threshold": "0.3",
        "detector.max_tokens": "256",
        "detector.weights": "https://***@host/w.pth?***",
        "empty": "{}",
        "phrases.cat": "cat, kitten",
        "storage.aws_secret_access_key": "(hidden)",
        "storage.password.nested": "(hidden)",
        "storage.session_token": "(hidden)",
    }
