"""The embedded demo: all jobs, end to end and offline, on drawn scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsss_ray.audit import job as audit
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig, DemoConfig, RayConfig, ReportConfig
from wsss_ray.demo import steps as student
from wsss_ray.demo.components import detect, measure_detector, measure_segmenter
from wsss_ray.demo.picture import FIRST_SCENES, write_first_picture, write_picture
from wsss_ray.demo.scenes import draw_scene, split_seeds
from wsss_ray.engine.cluster import connect
from wsss_ray.evaluation.result import Evaluation
from wsss_ray.labeller import Labeller
from wsss_ray.report import job as report

OBSCURE_CLASS = "dining table"
"""The class whose ground truth covers more than its name suggests (paper, 5.3)."""


def run(config: DemoConfig) -> dict[str, Any]:
    """Run the demo and print a table of its results.

    Scenes are drawn, sharded, labelled from their tags, evaluated and shown. A student is trained on the pseudo-labels
    of other scenes and evaluated on these.

    Returns:
        What `summary.json` in the output holds: pseudo_label_miou and student_miou (0 to 1, both on the same scenes),
        images_per_second (of the labelling), paths and, with `parts`, the figures of the models.
    """
    root = Path(config.output)
    shards, labels = root / "shards", root / "labels"
    _show_first_labels(root / "first.png", config)
    student.draw(root / "scenes", config.split, config.scenes)
    if config.student_scenes:
        student.draw(root / "student/scenes", "train", config.student_scenes, first=student.FIRST_SCENE)
    with connect(RayConfig()):
        student.shard(root / "scenes", shards)
        labelled = student.label(shards, labels)
        judged = student.evaluate(shards, labels, root / "evaluation", split=config.split)
        learned = _learn(root, shards, config) if config.student_scenes else {}
        common: dict[str, Any] = {"labels": str(labels), "images": str(shards), "classes": "demo"}
        audit.run(AuditConfig(**common, output=str(root / "audit")))
        title = f"wsss_ray demo: {config.scenes} {config.split} scenes"
        report.run(
            ReportConfig(
                **common,
                output=str(root / "gallery"),
                audit=str(root / "audit"),
                evaluation=str(root / "evaluation"),
                title=title,
            )
        )
        write_picture(shards, labels, root / "picture.png", classes=ClassSet.load("demo"))
        parts = _parts(root, shards, judged, config) if config.parts else {}
    summary = {
        "scenes": config.scenes,
        "split": config.split,
        "pseudo_label_miou": judged.miou,
        **learned,
        **parts,
        "images_per_second": labelled["session"]["images_per_second"],
        "labels": str(labels),
        "evaluation": str(root / "evaluation"),
        "picture": str(root / "picture.png"),
        "gallery": str(root / "gallery" / "index.html"),
    }
    (root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    width = max(map(len, summary))
    print("\n".join(["", *(f"{name:<{width}}  {_show(value)}" for name, value in summary.items())]), flush=True)
    return summary


def _show_first_labels(picture: Path, config: DemoConfig) -> None:
    """Label a few scenes at once and print where their picture is, so that the user sees a label within a minute."""
    if not picture.exists():
        write_first_picture(picture, config.split)
        print(f"labelled {FIRST_SCENES} scenes from their tags: open {picture}", flush=True)


def _learn(root: Path, shards: Path, config: DemoConfig) -> dict[str, Any]:
    """Train a student on the pseudo-labels of other scenes, and evaluate it on the demo's scenes."""
    home = root / "student"
    student.shard(home / "scenes", home / "shards")
    student.label(home / "shards", home / "labels")
    student.train(home / "shards", home / "labels", home / "run", iterations=config.student_iterations)
    student.predict(shards, home / "run", root / "predictions")
    judged = student.evaluate(shards, root / "predictions", root / "student-evaluation", split=config.split)
    return {
        "student_miou": judged.miou,
        "student_trained_on": f"pseudo-labels of {config.student_scenes} train scenes",
        "student": str(home / "run"),
        "predictions": str(root / "predictions"),
    }


def _parts(root: Path, shards: Path, judged: Evaluation, config: DemoConfig) -> dict[str, float]:
    """Return figures of each model alone (with exact input from the other), and the gain from assist words."""
    bare_labels = root / "labels-without-assist-words"
    student.label(shards, bare_labels, assist_words=False)
    bare = student.evaluate(shards, bare_labels, root / "evaluation-without-assist-words", split=config.split)
    drawn = [draw_scene(seed) for seed in split_seeds(config.split, config.scenes)]
    found = detect(drawn, Labeller("demo"))
    return {
        "segmenter_miou_from_exact_boxes": measure_segmenter(drawn)["miou"],
        "detector_recall": measure_detector(drawn, found)["recall"],
        "dining_table_iou": _iou(judged, OBSCURE_CLASS),
        "dining_table_gain_by_assist_words": _iou(judged, OBSCURE_CLASS) - _iou(bare, OBSCURE_CLASS),
    }


def _iou(judged: Evaluation, name: str) -> float:
    return next(result.iou for result in judged.classes if result.name == name)


def _show(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
