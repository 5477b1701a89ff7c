"""The images that a job uses: all of the shards, or a selection by lists of image ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsss_ray.config import StorageConfig
from wsss_ray.datasets.manifest import read_text


@dataclass(frozen=True, kw_only=True)
class ImageSelection:
    """Images by id."""

    only: frozenset[str] | None = None
    """Ids to use; None: all."""
    exclude: frozenset[str] = frozenset()
    """Ids not to use."""

    @classmethod
    def read(cls, *, only: str | None, exclude: str | None, storage: StorageConfig) -> ImageSelection:
        """Read the files of `--only` and `--exclude`: one image id per line. Empty lines and lines with # are skipped.

        Raises:
            ValueError: a file does not exist, is not text, or names no id.
        """
        return cls(
            only=None if only is None else _read_ids(only, storage, "--only"),
            exclude=frozenset() if exclude is None else _read_ids(exclude, storage, "--exclude"),
        )

    @property
    def is_everything(self) -> bool:
        """Return whether every image is used."""
        return self.only is None and not self.exclude

    @property
    def named(self) -> frozenset[str]:
        """Return all ids of the lists."""
        return (self.only or frozenset()) | self.exclude

    @property
    def digest(self) -> str:
        """Return what identifies the selection in a run's identity."""
        parts = [None if self.only is None else sorted(self.only), sorted(self.exclude)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def left_out(self, image_ids: Sequence[str]) -> list[int]:
        """Return the indices of the images that are not used."""
        return [index for index, image_id in enumerate(image_ids) if not self.uses(image_id)]

    def check_named(self, present: Iterable[str]) -> int:
        """Return how many ids of the lists are not among the images that are present.

        Raises:
            ValueError: none of a list is.
        """
        there = frozenset(present)
        for flag, ids in (("--only", self.only), ("--exclude", self.exclude)):
            if ids and ids.isdisjoint(there):
                raise ValueError(nothing_named(flag, ids))
        return len(self.named - there)

    def uses(self, image_id: str) -> bool:
        """Return whether the image is used."""
        return (self.only is None or image_id in self.only) and image_id not in self.exclude


def nothing_named(flag: str, ids: frozenset[str]) -> str:
    """Return the message for a list of ids that are not in the image shards."""
    return f"none of the {len(ids):,} ids of {flag} is in the image shards; the first is {min(ids)!r}."


def _read_ids(uri: str, storage: StorageConfig, flag: str) -> frozenset[str]:
    lines = (line.strip() for line in read_text(uri, storage, what=f"list of image ids ({flag})").splitlines())
    ids = frozenset(line for line in lines if line and not line.startswith("#"))
    if not ids:
        raise ValueError(f"{flag} {uri} names no image id: write one id per line.")
    return ids
