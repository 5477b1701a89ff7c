"""The repository's documents: their text, headings, links, code and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repository import REPOSITORY

DOCUMENTS = sorted(
    path
    for path in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"))
    if "<!-- include" not in path.read_text()
)
"""All documents but the pages that only include one of the root."""
NAMES = [str(path.relative_to(REPOSITORY)) for path in DOCUMENTS]

_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[\w.]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [Block(found["language"], found["text"]) for found in _FENCE.finditer(path.read_text())]


def prose(path: Path) -> str:
    """Return the text without fenced blocks."""
    return _FENCE.sub("", path.read_text())


def inline_code(path: Path) -> list[str]:
    """Return what is between single backticks."""
    return _INLINE.findall(prose(path))


def links(path: Path) -> list[str]:
    """Return the targets of links and images that are not on the web."""
    text = _INLINE.sub("", prose(path))
    return [found["target"] for found in _LINK.finditer(text) if "://" not in found["target"]]


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and mkdocs name them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower())) for heading in headings}


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the commands of the blocks without a language, split into words; `$PWD` is some folder."""
    for block in blocks(path):
        if block.language in ("", "bash", "sh"):
            text = block.text.replace("\\\n", " ").replace("$PWD", "/here")
            for line in text.splitlines():
                for part in re.split(r"\s(?:&&|\|)\s", line):
                    if words := _split(part):
                        yield words


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a drawing or an output, not a command
        return []


def jobs_commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, arguments) for each command of a block that runs a job, submitted or not."""
    for words in commands(path):
        if words[:3] == ["ray", "job", "submit"] and "--" in words:
            words = words[words.index("--") + 1 :]  # noqa: PLW2901
        if words[0] == "wsss-ray" and len(words) > 1:
            yield words[1], words[2:]
        elif words[0] == "python" and words[1].startswith("jobs/"):
            yield Path(words[1]).stem, words[2:]
