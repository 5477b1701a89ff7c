"""Find the labels to train on, and the images without one, before training begins."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import pyarrow.compute as pc

from wsss_ray.config.train import TrainConfig
from wsss_ray.labels.inputs import PngFolder, RunLabels, find_pngs, find_run_labels, nothing_matches
from wsss_ray.labels.run import read_identity
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.shards.footers import ShardError, footer_readers
from wsss_ray.shards.image_shards import ShardSet, read_unit
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

_READERS = 16


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """The source of the labels. It is pickled to the tasks that read them."""

    kind: Literal["run", "folder", "truth"]
    source: RunLabels | PngFolder | None
    """None: the ground truth in the image shards."""

    @property
    def columns(self) -> list[str]:
        """Return the columns of the image shards that hold labels."""
        return ["truth"] if self.kind == "truth" else []


@dataclass(kw_only=True)
class Survey:
    """The labels that exist, and the images without one."""

    left_out: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Rows that are not trained on, by index of the unit."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Number of images that are left out: "failed" in labelling, "missing", "excluded" by a list of ids."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Why a unit's label file cannot be used, by name of the unit; its images are left out."""
    unknown_ids: int = 0
    """Ids of the lists that the image shards do not hold."""
    digest: str = ""
    """Digest of the labels for the run's identity; it uses a listing of the files."""


def open_labels(config: TrainConfig, shards: ShardSet) -> LabelPlan:
    """Find the labels that a configuration names.

    Raises:
        ValueError: there are none, they belong to other image shards, or not exactly one source is named.
    """
    named = [config.labels is not None, config.label_folder is not None, config.label_column == "truth"]
    if sum(named) != 1:
        raise ValueError(
            "one source of labels is needed: --labels RUN (of wsss-ray label or wsss-ray predict), --label-folder "
            f"FOLDER (of PNGs named by image id) or --label-column truth; {sum(named) or 'none'} of them are given."
        )
    if config.label_column == "truth":
        if not shards.has_truth:
            raise ValueError(
                f"the image shards in {config.images} hold no ground truth: train on --labels, or create the "
                "shards with ground truth (wsss-ray shard --help)."
            )
        return LabelPlan(kind="truth", source=None)
    if config.label_folder is not None:
        folder = find_pngs(Storage(config.label_folder, config.storage), what="label PNGs named by image id")
        return LabelPlan(kind="folder", source=folder)
    assert config.labels is not None, "TrainConfig checks that there is one source"
    run = Storage(config.labels, config.storage)
    source = find_run_labels(run, shards)
    if source is None:
        raise ValueError(
            f"{run.describe('labels')} holds no label files: --labels must be the --output of wsss-ray label or "
            "wsss-ray predict; a folder of PNGs is given as --label-folder."
        )
    return LabelPlan(kind="run", source=source)


def survey(
    plan: LabelPlan,
    images: Storage,
    shards: ShardSet,
    *,
    unusable: Literal["error", "leave-out"],
    selection: ImageSelection,
) -> Survey:
    """Find every image's label, without reading label maps if a listing or a column suffices.

    Args:
        plan: where the labels are.
        images: folder of the image shards.
        shards: its units.
        unusable: whether a missing label is an error.
        selection: the images to train on.

    Raises:
        ValueError: labels are missing and `unusable` is "error", no label matches, or a list names no image.
    """
    found = Survey()
    digest = hashlib.sha256()
    names: frozenset[str] = frozenset()
    readers = _READERS
    if plan.kind == "run":
        assert isinstance(plan.source, RunLabels)
        readers = footer_readers(plan.source.storage)
        digest.update(json.dumps(read_identity(plan.source.storage), indent=2, sort_keys=True).encode())
        sizes = {f"labels/{name}": info.size for name, info in plan.source.storage.list("labels").items()}
        digest.update(json.dumps({path: sizes.get(path) for path in sorted(plan.source.files)}).encode())
    elif plan.kind == "folder":
        assert isinstance(plan.source, PngFolder)
        suffixes = plan.source.suffixes
        listed = {name: info.size for name, info in plan.source.storage.list().items() if name.endswith(suffixes)}
        names = frozenset(name[: -len(suffixes[0])] for name in listed)
        digest.update(json.dumps(listed).encode())
    first = ""
    seen: set[str] = set()
    with ThreadPoolExecutor(readers) as pool:
        unit_labels = pool.map(lambda unit: _find_in_unit(plan, images, unit, names), shards.units)
        left_out = pool.map(lambda unit: _excluded_rows(images, unit, selection), shards.units)
        for index, (labels, excluded) in enumerate(zip(unit_labels, left_out, strict=True)):
            digest.update(labels.content)
            seen |= excluded.named
            if labels.damage is not None:
                found.damaged[shards.units[index].name] = labels.damage
            rows = set(excluded.rows)
            failed, absent = set(labels.failed) - rows, set(labels.absent) - rows
            if rows or failed or absent:
                found.left_out[index] = tuple(sorted(rows | failed | absent))
                found.reasons.update(failed=len(failed), missing=len(absent), excluded=len(rows))
            if absent and not first:
                first = f"row {min(absent)} of unit {shards.units[index].name}"
    found.unknown_ids = selection.check_named(seen)
    if not selection.is_everything:
        digest.update(selection.digest.encode())
    found.digest = digest.hexdigest()
    if found.damaged and unusable == "error":
        name, reason = next(iter(found.damaged.items()))
        raise ValueError(
            f"{len(found.damaged):,} label files cannot be used, the first is that of unit {name}: {reason} Or train "
            "without their images by --unusable leave-out."
        )
    missing = found.reasons["missing"]
    if missing and (unusable == "error" or missing == shards.rows):
        raise ValueError(_missing_text(plan, images, shards, missing, first))
    return found


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The labels of a unit."""

    failed: Sequence[int] = ()
    """Rows whose labelling failed."""
    absent: Sequence[int] = ()
    """Rows without a label."""
    content: bytes = b""
    """Bytes that differ if the labels differ."""
    damage: str | None = None
    """Why the unit's label file cannot be used."""


def _find_in_unit(plan: LabelPlan, images: Storage, unit: Unit, names: frozenset[str]) -> _Labels:
    everything = range(unit.rows)
    if plan.kind == "truth":
        truths = read_unit(images, unit, columns=["truth"], check="footer")["truth"].to_pylist()
        hashes = b"".join(hashlib.sha256(truth or b"").digest() for truth in truths)
        return _Labels(absent=[row for row in everything if truths[row] is None], content=hashes)
    if plan.kind == "folder":
        ids = read_unit(images, unit, columns=["image_id"], check="footer")["image_id"].to_pylist()
        return _Labels(absent=[row for row in everything if ids[row] not in names])
    assert isinstance(plan.source, RunLabels)
    if unit.label_path not in plan.source.files:
        return _Labels(absent=everything)
    try:
        statuses = read_labels(plan.source.storage, unit, columns=["status"])["status"]
    except ShardError as error:
        return _Labels(failed=everything, damage=str(error), content=b"damaged")
    failed = pc.indices_nonzero(pc.equal(statuses, "failed")).to_pylist()
    return _Labels(failed=failed, content=json.dumps(failed).encode())


@dataclass(frozen=True, kw_only=True)
class _Excluded:
    """The rows of a unit that a selection leaves out, and the ids of its lists that the unit holds."""

    rows: Sequence[int] = ()
    named: frozenset[str] = frozenset()


def _excluded_rows(images: Storage, unit: Unit, selection: ImageSelection) -> _Excluded:
    if selection.is_everything:
        return _Excluded()
    ids = read_unit(images, unit, columns=["image_id"], check="footer")["image_id"].to_pylist()
    return _Excluded(rows=selection.left_out(ids), named=selection.named.intersection(ids))


def _missing_text(plan: LabelPlan, images: Storage, shards: ShardSet, missing: int, first: str) -> str:
    if missing == shards.rows and isinstance(plan.source, PngFolder):
        ids = read_unit(images, shards.units[0], columns=["image_id"], check="footer")["image_id"]
        return nothing_matches(plan.source, ids[0].as_py(), what="labels")
    remedy = "finish the labelling first" if plan.kind == "run" else "add them"
    return (
        f"{missing:,} of {shards.rows:,} images have no label, the first is {first}: {remedy}, or train without these "
        "images by --unusable leave-out."
    )
