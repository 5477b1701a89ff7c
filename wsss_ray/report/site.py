"""The gallery's pages: templates filled and written, with the style sheet and the script they need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import jinja2

from wsss_ray.classes import ClassSet
from wsss_ray.report.unit import Card
from wsss_ray.storage.storage import Storage

STATIC = ("gallery.css", "gallery.js")
DIGITS = 4
CONTENT = {"photos": ".jpg", "thumbnails": ".jpg", "labels": ".png", "truths": ".png", "data/units": ".js"}
"""Folders of a gallery that hold a file for each image or unit, and how the names of these files end."""
_REMOVERS = 16


def page_name(number: int) -> str:
    """File name of a page, from 1."""
    return f"page-{number:0{DIGITS}d}.html"


class Site:
    """Writes the pages of one gallery."""

    def __init__(self, output: Storage, *, title: str, classes: ClassSet, images: int, images_per_page: int) -> None:
        """Prepare the templates; nothing is written yet."""
        self._output = output
        self._classes = classes
        self.pages = max(1, math.ceil(images / images_per_page))
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("wsss_ray.report"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(count=_count, percent=_percent, words=_words)
        self._environment.globals.update(
            title=title, classes=classes.names, images=images, pages=self.pages, page_name=page_name
        )

    def write_static(self) -> None:
        """Write what all pages share."""
        folder = resources.files("wsss_ray.report") / "static"
        for name in STATIC:
            self._output.write(f"static/{name}", (folder / name).read_bytes())
        colors = [
            f".class-{index} {{ --class: rgb{entry.color}; }}" for index, entry in enumerate(self._classes.classes)
        ]
        self._output.write("static/classes.css", ("\n".join(colors) + "\n").encode("ascii"))

    def write_page(self, number: int, cards: Sequence[Card], *, first: int, **more: Any) -> None:
        """Write page `number` (from 1) with the cards of images `first` (from 1) on."""
        text = self._render("page.html", root="../", number=number, cards=cards, first=first, **more)
        self._output.write(f"pages/{page_name(number)}", text)

    def write_overview(self, values: Mapping[str, Any]) -> None:
        """Write index.html."""
        self._output.write("index.html", self._render("index.html", root="", **values))

    def retire_pages(self) -> None:
        """Empty the pages that an earlier, longer gallery left behind the last one."""
        current = {page_name(number) for number in range(1, self.pages + 1)}
        for name in self._output.list("pages"):
            if name.startswith("page-") and name not in current:
                self._output.write(f"pages/{name}", self._render("retired.html", root="../"))

    def _render(self, template: str, **values: Any) -> bytes:
        return self._environment.get_template(template).render(**values).encode()


def remove_leftovers(output: Storage, named: Iterable[str]) -> None:
    """Remove an earlier gallery's pictures and details that this one does not name; all other files stay.

    What a linked folder leads to stays too: it may be used elsewhere.
    """
    keep = set(named)
    leftovers = [
        path
        for path in output.walk()
        if path not in keep and path.endswith(CONTENT.get(path.rpartition("/")[0], "/"))  # no file ends in a slash
    ]
    with ThreadPoolExecutor(_REMOVERS) as pool:
        for _ in pool.map(output.remove, leftovers):
            pass


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
