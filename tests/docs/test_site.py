"""The pages build strictly, and a reader's browser needs nothing from the web to show them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

_LOADED = re.compile(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"|<link\b[^>]*\bhref="([^"]+)"[^>]*>')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_from_the_web(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for source, link in _LOADED.findall(page.read_text()):
            assert not (source or link).startswith(("http:", "https:", "//")), (page.name, source, link)


def test_the_reference_has_the_public_names(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in (
        "Labeller",
        "ClassSet",
        "Instance",
        "LabelRow",
        "Student",
        "Registry",
        "LabelConfig",
        "DetectorConfig",
    ):
        assert re.search(rf'id="wsss_ray\.[\w.]+\.{name}"', text), name


def test_included_documents_link_to_pages(site: Path) -> None:
    overview = (site / "index.html").read_text()
    for page in ("data.html", "security.html", "architecture.html"):
        assert f'href="{page}"' in overview
