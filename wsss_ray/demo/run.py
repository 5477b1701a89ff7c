"""The embedded demo, end to end and offline, through exactly the jobs that anybody's data goes through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsss_ray import audit, evaluation, labelling, report, sharding
from wsss_ray.classes import ClassSet
from wsss_ray.cluster import connect
from wsss_ray.config import (
    AuditConfig,
    DemoConfig,
    DetectorConfig,
    EvaluateConfig,
    LabelConfig,
    RayConfig,
    ReportConfig,
    SegmenterConfig,
    ShardConfig,
)
from wsss_ray.demo.components import detect, measure_detector, measure_segmenter
from wsss_ray.demo.picture import write_picture
from wsss_ray.demo.scenes import draw_scene, split_seeds, write_folder
from wsss_ray.evaluation import Evaluation
from wsss_ray.models.segmenter import Segmenter

OBSCURE_CLASS = "dining table"
"""The class whose truth covers more than its name says (paper, 5.3)."""


def run(config: DemoConfig) -> dict[str, Any]:
    """Draw scenes, shard them, label them from their tags alone, judge and show the labels, and print one table.

    Returns:
        What `summary.json` in the output holds: pseudo_label_miou (0 to 1), images_per_second, paths and, with
        `parts`, the figures of the models.
    """
    root = Path(config.output)
    scenes, shards = root / "scenes", root / "shards"
    _draw(scenes, config)
    with connect(RayConfig()):
        sharding.run(
            ShardConfig(
                input=str(scenes / "images"),
                output=str(shards),
                source="folder",
                classes="demo",
                tags=str(scenes / "tags.jsonl"),
                truth=str(scenes / "truth"),
                images_per_unit=8,
            )
        )
        labelled = _label(shards, root / "labels", assist_words=True)
        judged = _judge(shards, root / "labels", root / "evaluation", config)
        common: dict[str, Any] = {"labels": str(root / "labels"), "images": str(shards), "classes": "demo"}
        audit.run(AuditConfig(**common, output=str(root / "audit")))
        title = f"wsss_ray demo: {config.scenes} {config.split} scenes"
        report.run(ReportConfig(**common, output=str(root / "gallery"), audit=str(root / "audit"), title=title))
        write_picture(shards, root / "labels", root / "picture.png", classes=ClassSet.load("demo"))
        parts = _parts(root, shards, judged, config) if config.parts else {}
    summary = {
        "scenes": config.scenes,
        "split": config.split,
        "pseudo_label_miou": judged.miou,
        **parts,
        "images_per_second": labelled["session"]["images_per_second"],
        "labels": str(root / "labels"),
        "evaluation": str(root / "evaluation"),
        "picture": str(root / "picture.png"),
        "gallery": str(root / "gallery" / "index.html"),
    }
    (root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    width = max(map(len, summary))
    print("\n".join(["", *(f"{name:<{width}}  {_show(value)}" for name, value in summary.items())]), flush=True)
    return summary


def _label(shards: Path, output: Path, *, assist_words: bool) -> dict[str, Any]:
    return labelling.run(
        LabelConfig(
            input=str(shards),
            output=str(output),
            classes="demo",
            assist_words=assist_words,
            detector=DetectorConfig(model="demo"),
            segmenter=SegmenterConfig(model="tiny"),
            png=True,
        )
    )


def _judge(shards: Path, labels: Path, output: Path, config: DemoConfig) -> Evaluation:
    return evaluation.run(
        EvaluateConfig(labels=str(labels), images=str(shards), output=str(output), classes="demo", split=config.split)
    )


def _parts(root: Path, shards: Path, judged: Evaluation, config: DemoConfig) -> dict[str, float]:
    """Where the chain's mIoU comes from: each model with the other's work given, and what assist words earn."""
    bare_labels = root / "labels-without-assist-words"
    _label(shards, bare_labels, assist_words=False)
    bare = _judge(shards, bare_labels, root / "evaluation-without-assist-words", config)
    drawn = [draw_scene(seed) for seed in split_seeds(config.split, config.scenes)]
    found = detect(drawn, DetectorConfig(model="demo"), assist_words=True)
    return {
        "segmenter_miou_from_exact_boxes": measure_segmenter(drawn, Segmenter(SegmenterConfig(model="tiny")))["miou"],
        "detector_recall": measure_detector(drawn, found)["recall"],
        "dining_table_iou": _iou(judged, OBSCURE_CLASS),
        "dining_table_gain_by_assist_words": _iou(judged, OBSCURE_CLASS) - _iou(bare, OBSCURE_CLASS),
    }


def _iou(judged: Evaluation, name: str) -> float:
    return next(result.iou for result in judged.classes if result.name == name)


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


def _show(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
