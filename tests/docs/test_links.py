"""Links, paths, modules and names in the documents exist."""

from __future__ import annotations

import ast
import re

import pytest
from documents import DOCUMENTS, NAMES, anchors, inline_code, links
from repository import REPOSITORY

from wsss_ray.datasets.source import SOURCES
from wsss_ray.export.format import EXPORT_FORMATS
from wsss_ray.models.registries import DETECTORS, FUSION_RULES, SEGMENTERS
from wsss_ray.shards.columns import LABEL_COLUMNS

PATH = re.compile(r"^(?:benchmarks|configs|deploy|docs|jobs|tests|tools|wsss_ray|\.ci)/[\w./-]*$")
GROUPS = {registry.group for registry in (DETECTORS, SEGMENTERS, FUSION_RULES, SOURCES, EXPORT_FORMATS, LABEL_COLUMNS)}
MODULE = re.compile(r"^(?:wsss_ray|tools|benchmarks)(?:\.\w+)+$")


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(path: object) -> None:
    for target in links(path):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(linked), f"{target}: there is no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_path_exists(path: object) -> None:
    for code in inline_code(path):
        for word in code.split():
            if PATH.match(word):
                assert (REPOSITORY / word).exists(), f"`{code}`: there is no {word}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_module_and_name_exists(path: object) -> None:
    for code in inline_code(path):
        if MODULE.match(code) and code not in GROUPS:
            assert is_defined(code), f"`{code}` is not defined"


def is_defined(dotted: str) -> bool:
    """Return whether a dotted name is a package, a module, or a name at a module's top, or below a class of it."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        folder = REPOSITORY.joinpath(*parts[:count])
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if file.exists():
            names = parts[count:]
            body = ast.parse(file.read_text()).body
            return not names or names[0] in set(_defined(body))
    return False


def _defined(body: list[ast.stmt]) -> list[str]:
    found: list[str] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
    return found


def test_the_checks_see_what_is_missing() -> None:
    assert is_defined("wsss_ray.registry.Registry")
    assert is_defined("wsss_ray.config")
    assert not is_defined("wsss_ray.registry.Nothing")
    assert not is_defined("wsss_ray.nowhere.Registry") or not (REPOSITORY / "wsss_ray/nowhere").exists()


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 220


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    for page in (REPOSITORY / "docs").rglob("*.md"):
        assert f": {page.relative_to(REPOSITORY / 'docs')}\n" in navigation, page
