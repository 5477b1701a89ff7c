"""The embedded demo, end to end and offline, through exactly the jobs that anybody's data goes through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsss_ray import evaluation, labelling, sharding
from wsss_ray.cluster import connect
from wsss_ray.config import (
    DemoConfig,
    DetectorConfig,
    EvaluateConfig,
    LabelConfig,
    RayConfig,
    SegmenterConfig,
    ShardConfig,
)
from wsss_ray.demo.scenes import write_folder


def run(config: DemoConfig) -> dict[str, Any]:
    """Draw scenes, shard them, label them from their tags alone, judge the labels, and print one table.

    Returns:
        What `summary.json` in the output holds: pseudo_label_miou (0 to 1), images_per_second, paths.
    """
    root = Path(config.output)
    scenes, shards, run_directory, judged = (root / name for name in ("scenes", "shards", "labels", "evaluation"))
    _draw(scenes, config)
    with connect(RayConfig()):
        sharding.run(
            ShardConfig(
                input=str(scenes),
                output=str(shards),
                source="folder",
                classes="demo",
                tags=str(scenes / "tags.jsonl"),
                truth=str(scenes / "truth"),
                images_per_unit=8,
            )
        )
        labelled = labelling.run(
            LabelConfig(
                input=str(shards),
                output=str(run_directory),
                classes="demo",
                detector=DetectorConfig(model="demo"),
                segmenter=SegmenterConfig(model="tiny"),
                png=True,
            )
        )
        result = evaluation.run(
            EvaluateConfig(
                labels=str(run_directory), images=str(shards), output=str(judged), classes="demo", split=config.split
            )
        )
    summary = {
        "scenes": config.scenes,
        "split": config.split,
        "pseudo_label_miou": result.miou,
        "images_per_second": _rate(root, labelled),
        "shards": str(shards),
        "labels": str(run_directory / "labels"),
        "pngs": str(run_directory / "png"),
        "evaluation": str(judged),
    }
    (root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print("\n".join(["", *(f"{name:<18} {_show(value)}" for name, value in summary.items())]), flush=True)
    return summary


def _draw(scenes: Path, config: DemoConfig) -> None:
    """Write the scenes, unless an earlier call wrote the same ones; the note comes last."""
    note = scenes / "drawn.json"
    wanted = json.dumps({"scenes": config.scenes, "split": config.split})
    if note.exists():
        if note.read_text(encoding="utf-8") != wanted:
            raise ValueError(
                f"{scenes.parent} holds a demo of other scenes ({note.read_text(encoding='utf-8')}): give another "
                "--output, or start anew with `make demo CLEAN=1`."
            )
        print(f"{config.scenes} scenes are drawn", flush=True)
        return
    print(f"drawing {config.scenes} scenes", flush=True)
    write_folder(scenes, config.split, config.scenes)
    note.write_text(wanted, encoding="utf-8")


def _rate(root: Path, labelled: dict[str, Any]) -> float:
    """Images per second of the session that labelled; a rerun, which labels nothing, keeps the figure."""
    if "session" in labelled:
        return float(labelled["session"]["images_per_second"])
    before = root / "summary.json"
    return float(json.loads(before.read_text(encoding="utf-8"))["images_per_second"]) if before.exists() else 0.0


def _show(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
