"""Words that documents, docstrings, comments and messages avoid: history, riddles, and words of several meanings."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from documents import DOCUMENTS
from repository import REPOSITORY

AVOIDED = re.compile(
    r"\b(?:judged?|judges|judging|hand(?:s|ed)? on|go(?:es)? on|went on|told|tells?|stands|made again|anew|asks? for|"
    r"asked for|to be had|mend(?:s|ed)?|quicken(?:s|ed)?|riddles?|nobody|died over|dies over|looks? at|"
    r"looked at|earlier turns?|machines? [ABC]|colours?|places|(?<!in )(?<!in its )(?<!in their )place)\b",
    re.IGNORECASE,
)
HISTORY = re.compile(rf"{AVOIDED.pattern}|\bearlier sessions?\b", re.IGNORECASE)
"""Words that documents avoid: in code a session is one call of a job."""
QUESTION = re.compile(r"(?:What|Which|Who|How|When|Where|Whether|Why|See)\b")
NOUN = re.compile(r"(?:The|An?|This|It|Of)\b|[^A-Z]")
CODE = ("wsss_ray", "jobs", "tools", "examples", "benchmarks")
PYTHON = sorted(path for folder in CODE for path in (REPOSITORY / folder).rglob("*.py"))
OTHERS = sorted(
    {
        *DOCUMENTS,
        *(REPOSITORY / name for name in ("Makefile", "Dockerfile", "pyproject.toml", "mkdocs.yml")),
        *REPOSITORY.glob("*.yaml"),
        *(path for kind in ("js", "html", "yaml", "md") for path in (REPOSITORY / "wsss_ray").rglob(f"*.{kind}")),
        *(REPOSITORY / "deploy").rglob("*.yaml"),
    }
)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, comment and message of Python code; a message has several words."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        if " " in text.strip():
            yield from enumerate(text.split("\n"), start=node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def avoided(numbered: Iterable[tuple[int, str]], words: re.Pattern[str] = AVOIDED) -> list[str]:
    return [f"{number}: {line.strip()}" for number, line in numbered if words.search(line)]


def fragments(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of docstrings that begin with a question, and of functions whose docstring has no verb."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) or not (text := ast.get_docstring(node)):
            continue
        decorators = "" if isinstance(node, ast.Module) else " ".join(map(ast.unparse, node.decorator_list))
        is_function = isinstance(node, ast.FunctionDef) and "property" not in decorators
        if QUESTION.match(text) or (is_function and NOUN.match(text)):
            yield getattr(node, "lineno", 1), text.partition("\n")[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", OTHERS, ids=name_of)
def test_plain_technical_english(path: Path) -> None:
    found = avoided(enumerate(path.read_text().splitlines(), start=1), HISTORY if path in DOCUMENTS else AVOIDED)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", CODE)
def test_plain_technical_english_in_code(folder: str) -> None:
    paths = [path for path in PYTHON if path.is_relative_to(REPOSITORY / folder)]
    found = [f"{name_of(path)}:{text}" for path in paths for text in avoided(texts(path.read_text()))]
    assert paths
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_docstrings_say_what_is_returned_or_done(path: Path) -> None:
    found = [f"{line}: {text}" for line, text in fragments(path.read_text())]
    assert not found, "\n".join(found)


def test_fragments_are_found() -> None:
    source = (
        '"""Where it stands."""\ndef first():\n    """Return one."""\ndef second():\n    """(H, W) ids."""\n'
        'class Third:\n    """The third."""\n    @property\n    def fourth(self):\n        """The fourth."""\n'
        '    def fifth(self):\n        """The fifth."""\n'
    )
    assert [line for line, _ in fragments(source)] == [1, 4, 11]


def test_texts_of_code_are_found_and_identifiers_are_not() -> None:
    source = (
        'def place(place):\n    """Tell what stands."""\n    names = {"place": place}  # this place\n'
        '    raise ValueError(f"{place} was\\nmade again at {names}", "the anew", \'anew\')\n'
    )
    assert [line.split(":")[0] for line in avoided(texts(source))] == ["2", "5", "4", "3"]
