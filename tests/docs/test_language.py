"""Words that the documents leave to others: history, riddles, and names that mean nothing to a reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import DOCUMENTS, NAMES

AVOIDED = re.compile(
    r"\b(?:judged?|judges|judging|goes on|go on|is told|are told|tells|stands|made again|asked for|"
    r"earlier (?:turn|session)|machines? [ABC]|colours?)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_plain_technical_english(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [f"{number}: {line}" for number, line in enumerate(lines, start=1) if AVOIDED.search(line)]
    assert not found, "\n".join(found)
