"""Reasons to inspect an image, and the score that they give it.

Every finding has a strength from 0 to 1. The score of an image combines the strongest finding of each kind:
1 - product over kinds of (1 - weight x strength). It is 0 without findings, grows with each kind, and is 1 for a
failed image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WEIGHTS: Mapping[str, float] = {
    "failed": 1.0,
    "tag_without_pixels": 0.8,
    "same_object": 0.7,
    "low_mask_score": 0.5,
    "covers_most": 0.5,
    "covers_little": 0.4,
    "near_threshold": 0.3,
}
"""Weight of a kind of finding in an image's score: certain errors first, findings that are often correct last."""

NEED_BOXES = ("same_object", "low_mask_score", "near_threshold")
"""Kinds that need boxes: predictions of a network have none."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason to inspect an image."""

    kind: str
    """A key of WEIGHTS."""
    class_name: str | None = None
    """Its class."""
    strength: float
    """Strength of the finding, 0 to 1."""
    value: float | None = None
    """What was measured: a share, an IoU or a score."""
    text: str
    """One sentence for the reader."""

    def to_row(self) -> dict[str, Any]:
        """Return the value of REASON_TYPE."""
        return {
            "kind": self.kind,
            "class": self.class_name,
            "strength": self.strength,
            "value": self.value,
            "text": self.text,
        }


def score(findings: Sequence[Finding]) -> float:
    """Return the score of an image, 0 to 1, by the rule in the docstring of this module."""
    strongest: dict[str, float] = {}
    for finding in findings:
        strongest[finding.kind] = max(strongest.get(finding.kind, 0.0), finding.strength)
    return 1 - math.prod(1 - WEIGHTS[kind] * strength for kind, strength in strongest.items())
