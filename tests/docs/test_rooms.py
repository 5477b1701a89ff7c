"""ARCHITECTURE.md names every room, and imports between rooms run downwards only."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
from repository import REPOSITORY

PACKAGE = REPOSITORY / "wsss_ray"
FLOORS = (
    {"addresses", "errors"},
    {"registry"},
    {"config"},
    {"storage", "classes"},
    {"images", "models"},
    {"shards"},
    {"datasets"},
    {"engine"},
    {"labels"},
    {"doctor"},
    {"sharding", "labelling", "training", "prediction", "evaluation", "audit", "report", "export", "labeller"},
    {"pipeline", "demo"},
    {"cli"},
    {"__main__"},
)
"""From the lowest to the highest: a room imports from lower ones only."""
UPWARDS = {
    "config": {"datasets", "export", "models", "shards"},
    "labelling": {"labeller"},
    "labeller": {"labelling"},
}
"""Configurations check names against the registries of these rooms, which import nothing. The labeller and the parts of
the labelling job that need no engine are one thing."""
WITHOUT_RAY = set().union(*FLOORS[: FLOORS.index({"engine"})])
ROOMS = sorted(path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py") and path.stem != "__init__")


def imports(room: str) -> Iterator[tuple[str, str]]:
    """Yield (file, imported module) for each import in a room."""
    path = PACKAGE / room
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file.name, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module == "wsss_ray":
                yield from ((file.name, f"wsss_ray.{name.name}") for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{room}/{file.name} has a relative import"
                yield file.name, node.module or ""


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "__pycache__"])
def test_imports_run_downwards(room: str) -> None:
    allowed = set().union(*FLOORS[: floor(room)]) | UPWARDS.get(room, set()) | {room, "__version__"}
    for file, module in imports(room):
        parts = module.split(".")
        if parts[0] == "wsss_ray" and len(parts) > 1:
            assert parts[1] in allowed, f"{room}/{file} imports {module}, which is not below it"
        assert parts[0] != "ray" or room not in WITHOUT_RAY, f"{room}/{file} imports Ray"


def test_no_two_classes_have_one_name() -> None:
    files = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                files[node.name.lstrip("_")].append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}


def test_the_table_of_additions_names_all_of_its_tests() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`tests/extending/(test_\w+\.py)`", text))
    assert named == {path.name for path in (REPOSITORY / "tests/extending").glob("test_*.py")}


def test_every_room_is_described() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    section = text[text.index("## Rooms") : text.index("## Terms")]
    described = set(re.findall(r"`(?:wsss_ray/)?(\w+)(?:/|\.py)`", section))
    assert set(ROOMS) - {"__main__", "errors", "py", "__pycache__"} <= described
