"""Compare students that were trained on pseudo-labels and on exact masks, on the demo's test scenes:

    python -m tools.compare_students --output runs/students

draws train and test scenes, labels the train scenes from their tags, trains both students with three seeds, predicts,
evaluates, and writes students.json and students.txt. A second run continues where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_ray.config import RayConfig
from wsss_ray.demo import steps as student
from wsss_ray.engine.cluster import connect
from wsss_ray.evaluation.result import Evaluation

KINDS = ("pseudo", "exact")
REQUIRED = {"pseudo / exact": 0.90, "exact": 0.60, "pseudo - background": 0.20}
"""Required values of the means over the seeds."""


def compare(
    root: Path, *, scenes: int, test_scenes: int, seeds: Sequence[int], iterations: int | None = None
) -> dict[str, Any]:
    """Train and evaluate both students with every seed.

    Returns:
        The content of students.json: mIoU (0 to 1) by kind and seed, means, the mIoU of an all-background map and of
        the pseudo-labels of the training scenes, and whether the required values are reached.
    """
    student.draw(root / "train-scenes", "train", scenes, first=student.FIRST_SCENE)
    student.draw(root / "test-scenes", "test", test_scenes)
    train_shards, test_shards, labels = root / "train-shards", root / "test-shards", root / "labels"
    mious: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    with connect(RayConfig()):
        student.shard(root / "train-scenes", train_shards)
        student.shard(root / "test-scenes", test_shards)
        student.label(train_shards, labels)
        pseudo = student.evaluate(train_shards, labels, root / "label-evaluation", split="train")
        background = 0.0
        for seed in seeds:
            for kind in KINDS:
                home = root / f"{kind}-{seed}"
                source = labels if kind == "pseudo" else None
                student.train(train_shards, source, home / "student", seed=seed, iterations=iterations)
                student.predict(test_shards, home / "student", home / "predictions")
                evaluated = student.evaluate(test_shards, home / "predictions", home / "evaluation", split="test")
                mious[kind][seed] = evaluated.miou
                background = background_miou(evaluated)
    result = {
        "train_scenes": scenes,
        "test_scenes": test_scenes,
        "pseudo_label_miou_of_train_scenes": pseudo.miou,
        "background_miou": background,
        "miou": mious,
        "mean": {kind: statistics.mean(values.values()) for kind, values in mious.items()},
        **reached(mious, background),
    }
    (root / "students.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = format_table(result)
    (root / "students.txt").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}", flush=True)
    return result


def background_miou(evaluated: Evaluation) -> float:
    """Return the mIoU of a map of background only: its IoU there, and 0 for every other class in the ground truth."""
    truth = evaluated.matrix.sum(axis=1)
    return float(truth[0] / truth.sum() / np.count_nonzero(truth))


def reached(mious: Mapping[str, Mapping[int, float]], background: float) -> dict[str, Any]:
    """Return the measures of the means over the seeds, and whether each reaches its required value."""
    pseudo, exact = (statistics.mean(mious[kind].values()) for kind in KINDS)
    measures = dict(zip(REQUIRED, (pseudo / exact if exact else 0.0, exact, pseudo - background), strict=True))
    return {
        "measures": measures,
        "required": REQUIRED,
        "reached": {name: value >= REQUIRED[name] for name, value in measures.items()},
    }


def format_table(result: Mapping[str, Any]) -> str:
    """Return a table with a row per kind of labels and a column per seed, and the measures with required values."""
    seeds = list(result["miou"]["pseudo"])
    lines = [f"{'trained on':<16}" + "".join(f"{f'seed {seed}':>9}" for seed in seeds) + f"{'mean':>9}"]
    for kind, name in (("pseudo", "pseudo-labels"), ("exact", "exact masks")):
        values = [*result["miou"][kind].values(), result["mean"][kind]]
        lines.append(f"{name:<16}" + "".join(f"{value:>9.3f}" for value in values))
    labels = result["pseudo_label_miou_of_train_scenes"]
    lines += [
        "",
        f"mIoU on {result['test_scenes']} test scenes; {result['train_scenes']} train scenes, whose pseudo-labels have "
        f"an mIoU of {labels:.3f}; all background: {result['background_miou']:.3f}",
    ]
    for name, value in result["measures"].items():
        word = "reached" if result["reached"][name] else "NOT reached"
        lines.append(f"{name:<20} {value:.3f}, at least {result['required'][name]:.2f}: {word}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=student.SCENES, help="number of train scenes")
    parser.add_argument("--test-scenes", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="updates of each student; default: those of the preset demo")
    options = parser.parse_args()
    result = compare(
        options.output,
        scenes=options.scenes,
        test_scenes=options.test_scenes,
        seeds=options.seeds,
        iterations=options.iterations,
    )
    raise SystemExit(0 if all(result["reached"].values()) else 1)


if __name__ == "__main__":
    main()
