"""Configuration of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsss_ray.config.shared import require


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Run the embedded demo: offline and end to end, with the models that the package ships.

    It draws scenes, shards, labels, evaluates and shows them, and trains a student.
    The student learns from pseudo-labels of held-out train scenes and is evaluated on the demo's scenes.
    """

    output: str = "runs/demo"
    """Local directory for scenes, shards, labels and tables. A rerun does only what is missing."""
    scenes: int = 96
    """Scenes to draw."""
    split: Literal["validation", "test"] = "validation"
    """Seeds to draw: those that everything was tuned on (validation), or those reserved for the final table (test)."""
    parts: bool = False
    """Also evaluate the models one by one: SAM from exact boxes, the detector's recall, labels without assist words."""
    student_scenes: int = 256
    """Scenes to label for the student to learn from; 0: no student."""
    student_iterations: int = 1200
    """Updates of the student: about half of the training job's preset "demo", so that the demo ends within minutes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "scenes", self.scenes >= 1, "at least 1")
        require(self, "student_scenes", self.student_scenes >= 0, "0 or more")
        require(self, "student_iterations", self.student_iterations >= 1, "at least 1")
