"""The pages of a gallery: filled templates, the style sheet and the script."""

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
"""Folders of a gallery that hold a file for each image or unit, and the suffix of these files."""
_REMOVERS = 16


def page_name(number: int) -> str:
    """Return the file name of a page; pages count from 1."""
    return f"page-{number:0{DIGITS}d}.html"


class Site:
    """Writer of one gallery's pages."""

    def __init__(
        self, output: Storage, *, title: str, classes: ClassSet, images: int, images_per_page: int, audited: bool
    ) -> None:
        """Prepare the templates; nothing is written yet."""
        self._output = output
        self._classes = classes
        self.images = images
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
            title=title,
            classes=classes.names,
            images=images,
            pages=self.pages,
            page_name=page_name,
            browse=f"pages/{page_name(1)}{'#sort=rank' if audited else ''}",
        )

    def write_static(self) -> None:
        """Write the files that all pages share."""
        folder = resources.files("wsss_ray.report") / "static"
        for name in STATIC:
            self._output.write(f"static/{name}", (folder / name).read_bytes())
        colors = [
            f".class-{index} {{ --class: rgb{entry.color}; }}" for index, entry in enumerate(self._classes.classes)
        ]
        self._output.write("static/classes.css", ("\n".join(colors) + "\n").encode("ascii"))

    def write_page(self, number: int, cards: Sequence[Card], *, first: int, **more: Any) -> None:
        """Write page `number` with the cards of images `first` and following; both count from 1."""
        text = self._render("page.html", root="../", number=number, cards=cards, first=first, **more)
        self._output.write(f"pages/{page_name(number)}", text)

    def write_overview(self, values: Mapping[str, Any]) -> None:
        """Write index.html."""
        self._output.write("index.html", self._render("index.html", root="", **values))

    def retire_pages(self) -> None:
        """Empty the pages of an earlier, longer gallery after the last page of this one."""
        current = {page_name(number) for number in range(1, self.pages + 1)}
        for name in self._output.list("pages"):
            if name.startswith("page-") and name not in current:
                self._output.write(f"pages/{name}", self._render("retired.html", root="../"))

    def _render(self, template: str, **values: Any) -> bytes:
        return self._environment.get_template(template).render(**values).encode()


class Pages:
    """The pages in progress: each is written when it is full."""

    def __init__(self, site: Site, images_per_page: int) -> None:
        """Start with page 1."""
        self._site = site
        self._size = images_per_page
        self._cards: list[Card] = []
        self._written = 0

    def add(self, card: Card) -> None:
        """Add the card of the next image."""
        self._cards.append(card)
        if len(self._cards) == self._size:
            self._write()

    def finish(self) -> None:
        """Write the last page, or the only page of an empty gallery."""
        if self._cards or self._written == 0:
            self._write()

    def _write(self) -> None:
        first = self._written * self._size + 1
        self._written += 1
        self._site.write_page(self._written, self._cards, first=first)
        self._cards = []


def settle_files(output: Storage, named: Iterable[str]) -> list[str]:
    """Remove the pictures and details that only an earlier gallery named, and return named files that do not exist.

    All other files stay, also those in a linked folder: they may be used elsewhere.
    """
    wanted = set(named)
    found = set(output.walk())
    leftovers = [
        path
        for path in found - wanted
        if path.endswith(CONTENT.get(path.rpartition("/")[0], "/"))  # no file ends in a slash
    ]
    with ThreadPoolExecutor(_REMOVERS) as pool:
        for _ in pool.map(output.remove, leftovers):
            pass
    return [path for path in sorted(wanted - found) if not output.exists(path)]


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
