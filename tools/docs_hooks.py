"""Hooks of `mkdocs.yml`: a page can include a file of the repository's root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_PAGES = {"README.md": "index.md", "ARCHITECTURE.md": "architecture.md", "SECURITY.md": "security.md"}
_INCLUDE = re.compile(r"<!-- include (\S+) -->")
_LINK = re.compile(r"\]\((?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page with the included files in it; their links lead to the pages of these files."""
    return _INCLUDE.sub(lambda found: _LINK.sub(_relink, Path(found[1]).read_text(encoding="utf-8")), markdown)


def _relink(link: re.Match[str]) -> str:
    """Return a link of a file in the root as a link of a page under docs/."""
    path = link["path"].removeprefix("docs/")
    return f"]({_PAGES.get(path, path)}{link['anchor'] or ''})"
