"""Summary of a run over all its sessions: summary.json and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.engine.task import RunOutcome
from wsss_ray.labels.gpus import describe_gpus
from wsss_ray.labels.sink import add_counts
from wsss_ray.shards.footers import ShardError, footer_readers
from wsss_ray.shards.label_files import read_label_counts
from wsss_ray.shards.units import Unit
from wsss_ray.storage import retries
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

SUMMARY_FILE = "summary.json"


def summarise(
    output: Storage, units: Sequence[Unit], outcome: RunOutcome | None, classes: ClassSet | None = None
) -> dict[str, Any]:
    """Sum the counts in the label files' footers. The images of a damaged label file count as failed.

    Args:
        output: run directory.
        units: finished units.
        outcome: result of this session; None where there was nothing to do.
        classes: gives the order of the classes; None: the order in which they occur.

    Returns:
        JSON values: images, boxes (where there are instances), statuses, errors, classes (as `sink.count_rows`) and the
        throughput of the last session that labelled something.
    """
    total: dict[str, Any] = {"images": 0, "statuses": {}, "errors": {}, "classes": {}}
    with ThreadPoolExecutor(footer_readers(output)) as pool:
        for counts in pool.map(lambda unit: _counts_of(output, unit), units):
            add_counts(total, counts)
    if classes is not None:
        total["classes"] = {name: total["classes"][name] for name in classes.names if name in total["classes"]}
    total["units"] = len(units)
    if outcome is not None:
        total["session"] = {
            "images": outcome.images,
            "seconds": round(outcome.seconds_elapsed, 3),
            "images_per_second": round(outcome.rate, 3),
            "stage_seconds": {part: round(seconds, 3) for part, seconds in sorted(outcome.seconds.items())},
            "storage_retries": dict(sorted(outcome.retries.items())),
        }
    elif (session := _last_session(output)) is not None:
        total["session"] = session
    return total


def _counts_of(output: Storage, unit: Unit) -> dict[str, Any]:
    try:
        return read_label_counts(output, unit)
    except ShardError:
        return {"images": unit.rows, "statuses": {"failed": unit.rows}, "errors": {"label file: damaged": unit.rows}}


def _last_session(output: Storage) -> dict[str, Any] | None:
    """Return the throughput in the earlier summary; None where there is none, or it is damaged."""
    try:
        session = read_json(output, SUMMARY_FILE).get("session")
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"{error} It is written again, without the speed of the last session.", flush=True)
        return None
    return session if isinstance(session, dict) else None


def write_summary(output: Storage, summary: dict[str, Any]) -> None:
    """Write summary.json."""
    output.write(SUMMARY_FILE, encode_json(summary))


def format_summary(summary: dict[str, Any]) -> str:
    """Return the table that is printed at the end of a run."""
    width = max([5, *(len(name) for name in summary["classes"])])
    lines = [f"{'class':<{width}}  tagged  detected        pixels"]
    lines += [
        f"{name:<{width}}  {entry['tagged']:>6,}  {entry['detected']:>8,}  {entry['pixels']:>12,}"
        for name, entry in summary["classes"].items()
    ]
    statuses = ", ".join(f"{count:,} {status}" for status, count in summary["statuses"].items())
    boxes = f", {summary['boxes']:,} boxes" if "boxes" in summary else ""
    lines.append(f"{summary['images']:,} images{boxes}: {statuses or 'none'}")
    reasons = sorted(summary["errors"].items(), key=lambda item: -item[1])
    lines += [f"  failed, {count:,} x {reason}" for reason, count in reasons[:5]]
    if len(reasons) > 5:
        lines.append(f"  and {len(reasons) - 5} more reasons in {SUMMARY_FILE}")
    if (gpus := describe_gpus(summary)) is not None:
        lines.append(gpus)
    session = summary.get("session")
    if session:
        parts = session["stage_seconds"]
        per_image = ", ".join(
            f"{part} {1000 * parts[part] / max(session['images'], 1):.1f}"
            for part in ("wait", "read", "decode", "detect", "segment", "predict", "crf", "encode", "write")
            if part in parts
        )
        after = "after it" if excludes_start_up(session) else "with it, as its units ended together"
        lines.append(
            f"last session: {session['images']:,} images in {session['seconds']:.1f} s, start-up included; "
            f"{session['images_per_second']:.2f} images/s {after}; actor ms per image: {per_image}"
        )
        if session.get("storage_retries"):
            lines.append(f"storage: {retries.describe(session['storage_retries'])}")
    return "\n".join(lines)


def excludes_start_up(session: Mapping[str, Any] | None) -> bool:
    """Return whether a session's rate leaves out its start: it cannot where all units ended together."""
    if not session or not session.get("seconds"):
        return False
    whole = session["images"] / session["seconds"]
    return abs(session["images_per_second"] - whole) > 0.001 + 0.01 * whole  # it is rounded to thousandths
