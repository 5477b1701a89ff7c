"""The steps of the demo, each by one job with the demo's settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from wsss_ray.config import EvaluateConfig, LabelConfig, ShardConfig, builtin
from wsss_ray.config.parsing import read_files
from wsss_ray.config.predict import PredictConfig
from wsss_ray.config.student import StudentConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.demo.scenes import Split, write_folder
from wsss_ray.evaluation import job as evaluation
from wsss_ray.evaluation.result import Evaluation
from wsss_ray.labelling import job as labelling
from wsss_ray.prediction import job as prediction
from wsss_ray.sharding import job as sharding
from wsss_ray.training import job as training

FIRST_SCENE = 500_000
"""First scene to draw from the train split. The demo's models were trained on its first 24,000 scenes, whose labels
would be better than those of held-out scenes."""
SCENES = 600
"""Train scenes of the comparison of students; the demo takes fewer."""
STUDENT = StudentConfig(architecture="deeplabv2-tiny", init="none")


def draw(directory: Path, split: Split, scenes: int, *, first: int = 0) -> None:
    """Write scenes as a folder of images, unless an earlier call wrote the same ones. The note comes last.

    Raises:
        ValueError: the directory holds other scenes.
    """
    note = directory / "drawn.json"
    wanted = json.dumps({"scenes": scenes, "split": split, **({"first": first} if first else {})})
    if note.exists():
        if note.read_text(encoding="utf-8") != wanted:
            raise ValueError(
                f"{directory.parent} holds a demo of other scenes ({note.read_text(encoding='utf-8')}): give another "
                "--output, or remove that folder."
            )
        print(f"{scenes} {split} scenes are drawn", flush=True)
        return
    print(f"drawing {scenes} {split} scenes", flush=True)
    write_folder(directory, split, scenes, first=first)
    note.write_text(wanted, encoding="utf-8")


def shard(scenes: Path, shards: Path) -> None:
    """Write image shards of drawn scenes, with their tags and truth."""
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


def label(shards: Path, output: Path, *, assist_words: bool = True) -> dict[str, Any]:
    """Label scenes from their tags with the shipped models; return the summary of the labelling job."""
    config = read_files(LabelConfig, [builtin.find("demo")])
    return labelling.run(replace(config, input=str(shards), output=str(output), assist_words=assist_words))


def evaluate(shards: Path, labels: Path, output: Path, *, split: str) -> Evaluation:
    """Evaluate labels or predictions against the scenes' truth."""
    return evaluation.run(
        EvaluateConfig(labels=str(labels), images=str(shards), output=str(output), classes="demo", split=split)
    )


def train(
    shards: Path,
    labels: Path | None,
    output: Path,
    *,
    seed: int = 0,
    iterations: int | None = None,
    validation: Path | None = None,
) -> None:
    """Train a student on pseudo-labels or, without `labels`, on the exact masks, with the same settings."""
    source: Literal["label", "truth"] = "truth" if labels is None else "label"
    training.run(
        TrainConfig(
            images=str(shards),
            output=str(output),
            labels=None if labels is None else str(labels),
            label_column=source,
            classes="demo",
            preset="demo",
            iterations=iterations,
            seed=seed,
            student=STUDENT,
            validation=None if validation is None else str(validation),
        )
    )


def predict(shards: Path, student: Path, output: Path) -> None:
    """Predict scenes with the student; the output has the form of a labelling run."""
    prediction.run(PredictConfig(input=str(shards), output=str(output), student=str(student), png=True))
