"""VOC split lists in their three forms: bare ids, pairs of paths, ids with class numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from wsss_ray.datasets.paths import plain_path


@dataclass(frozen=True, kw_only=True)
class ListEntry:
    """One image of a split list."""

    voc_id: str
    """VOC's own id: the file name without its suffix."""
    path: str
    """Image, relative to the tree (the folder that holds JPEGImages)."""
    truth: str | None
    """Truth mask, relative to the tree, where the list names one."""
    class_numbers: tuple[int, ...] | None
    """Classes counted from 0, where the list names them."""
    where: str
    """File and line, for messages."""


def parse_split_list(text: str, source: str) -> list[ListEntry]:
    """Return the entries of a split list, in its order.

    Each line is `2007_000032`, or `/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png` (the leading
    slash means the tree; the mask may be left out), or `2007_000032 0 14`.

    Raises:
        ValueError: the list is empty, mixes forms, names an image twice or leaves the tree; with file and line.
    """
    lines = [(f"{source}:{number}", line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(where, fields) for where, fields in lines if fields]
    if not lines:
        raise ValueError(f"{source}: the list is empty.")
    forms = {where: _form(fields, where) for where, fields in lines}
    with_paths = {where for where, form in forms.items() if form == "paths"}
    if 0 < len(with_paths) < len(forms):
        other = next(where for where, form in forms.items() if form != "paths")
        raise ValueError(f"{min(with_paths)} has paths, {other} an id: a list has one form throughout.")
    with_classes = "classes" in forms.values()
    entries = [_entry(fields, where, with_classes=with_classes) for where, fields in lines]
    _refuse_duplicates(entries)
    return entries


def _form(fields: list[str], where: str) -> Literal["id", "paths", "classes"]:
    if "/" in fields[0] or "/" in fields[-1]:
        if len(fields) > 2:
            raise ValueError(f"{where}: {len(fields)} paths: a line has an image and at most one mask.")
        return "paths"
    if len(fields) == 1:
        return "id"
    if any(field == "-1" for field in fields[1:]):
        raise ValueError(
            f"{where}: this is a list of ImageSets/Main for one class (id and -1, 0 or 1): give a list of "
            "ImageSets/Segmentation, or one of the forms `id`, `image mask`, `id class class`."
        )
    if not all(field.isascii() and field.isdigit() and len(field) < 6 for field in fields[1:]):
        raise ValueError(f"{where}: {' '.join(fields)[:80]!r} is none of `id`, `image mask`, `id class class`.")
    return "classes"


def _entry(fields: list[str], where: str, *, with_classes: bool) -> ListEntry:
    if "/" in fields[0]:
        path = plain_path(fields[0].removeprefix("/"), where)
        return ListEntry(
            voc_id=PurePosixPath(path).stem,
            path=path,
            truth=plain_path(fields[1].removeprefix("/"), where) if len(fields) == 2 else None,
            class_numbers=None,
            where=where,
        )
    return ListEntry(
        voc_id=fields[0],
        path=plain_path(f"JPEGImages/{fields[0]}.jpg", where),
        truth=None,
        class_numbers=tuple(int(field) for field in fields[1:]) if with_classes else None,
        where=where,
    )


def _refuse_duplicates(entries: Iterable[ListEntry]) -> None:
    first: dict[str, str] = {}
    for entry in entries:
        if entry.voc_id in first:
            raise ValueError(f"{entry.where}: {entry.voc_id} is listed twice, first in {first[entry.voc_id]}.")
        first[entry.voc_id] = entry.where
