"""Draw the confusion matrix as an image, readable for 2 to some hundred classes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsss_ray.evaluation.result import Evaluation
from wsss_ray.labels.scores import divide

_STOPS = (
    (0.0, (255, 255, 255)),
    (0.05, (254, 224, 144)),
    (0.2, (253, 141, 60)),
    (0.5, (189, 0, 38)),
    (1.0, (60, 0, 40)),
)
"""Color by share, steep for small shares: one per cent must be visible beside ninety. Lightness falls throughout."""
_ABSENT, _GRID, _INK = (225, 225, 225), (205, 205, 205), (20, 20, 20)
_MARGIN = 16
_LINE = 20
_TEXT = 13
_SMALL = 11
_LONGEST = 24
"""Characters of a name before it is cut."""


@dataclass(frozen=True, kw_only=True)
class _ImageLayout:
    """Sizes of the image's parts in pixels."""

    rows: int
    columns: int
    names: int
    """Width of the longest name."""
    top: int
    """Height of the lines of text above the names."""

    @property
    def cell(self) -> int:
        """Return the side of a cell: enough for a number, or a name, or (with very many classes) neither."""
        return 34 if self.columns <= 26 else 15 if self.columns <= 120 else max(3, 1800 // self.columns)

    @property
    def left(self) -> int:
        return _MARGIN + self.names + 8

    @property
    def upper(self) -> int:
        return self.top + self.names + 8

    @property
    def size(self) -> tuple[int, int]:
        width = self.left + self.columns * self.cell + _MARGIN
        return max(width, 520), self.upper + self.rows * self.cell + 3 * _LINE + _MARGIN


def draw_confusion(evaluation: Evaluation) -> bytes:
    """Return the PNG of the confusion matrix, each row divided by its pixels of truth; gray rows have none.

    The last column is the share predicted as no class.
    """
    matrix = evaluation.matrix
    shares = divide(matrix, np.broadcast_to(matrix.sum(axis=1, keepdims=True), matrix.shape))
    rows = [_cut(entry.name) for entry in evaluation.classes]
    columns = [*rows, "ignore"]
    font = ImageFont.load_default(_TEXT)
    layout = _ImageLayout(
        rows=len(rows),
        columns=len(columns),
        names=int(max(font.getlength(name) for name in columns)) + 1,
        top=_MARGIN + 2 * _LINE + 8,
    )
    image = Image.new("RGB", layout.size, (255, 255, 255))
    _paste_cells(image, shares, layout)
    _write_names(image, rows, columns, layout)
    if layout.cell >= 30:
        _write_numbers(image, shares, layout)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN), evaluation.headline, _INK, font=ImageFont.load_default(15))
    draw.text((_MARGIN, _MARGIN + _LINE), "truth down, prediction across, % of the truth's pixels", _INK, font=font)
    _draw_legend(image, layout)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def colors(shares: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 RGB of shares from 0 to 1; gray for NaN."""
    stops = [share for share, _ in _STOPS]
    channels = [np.interp(shares, stops, [color[channel] for _, color in _STOPS]) for channel in range(3)]
    picture = np.stack(channels, axis=-1)
    picture[np.isnan(shares)] = _ABSENT
    return np.rint(picture).astype(np.uint8)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _paste_cells(image: Image.Image, shares: np.ndarray, layout: _ImageLayout) -> None:
    cell = layout.cell
    picture = colors(shares).repeat(cell, axis=0).repeat(cell, axis=1)
    if cell >= 10:
        picture[cell - 1 :: cell] = _GRID
        picture[:, cell - 1 :: cell] = _GRID
    image.paste(Image.fromarray(picture), (layout.left, layout.upper))
    right, bottom = layout.left + layout.columns * cell, layout.upper + layout.rows * cell
    ImageDraw.Draw(image).rectangle((layout.left - 1, layout.upper - 1, right, bottom), outline=_INK)


def _write_names(image: Image.Image, rows: list[str], columns: list[str], layout: _ImageLayout) -> None:
    """Write names at the left and, rotated, on top; every n-th if the cells are small."""
    cell, step = layout.cell, -(-(_TEXT + 1) // layout.cell)
    font = ImageFont.load_default(_TEXT)
    draw = ImageDraw.Draw(image)
    for index in range(0, len(rows), step):
        middle = layout.upper + index * cell + cell // 2
        draw.text((layout.left - 6, middle), rows[index], _INK, font=font, anchor="rm")
    for index in range(0, len(columns), step):
        turned = Image.new("L", (layout.names, _TEXT + 4), 0)
        ImageDraw.Draw(turned).text((0, (_TEXT + 4) // 2), columns[index], 255, font=font, anchor="lm")
        mask = turned.transpose(Image.Transpose.ROTATE_90)
        corner = (layout.left + index * cell + (cell - mask.width) // 2, layout.upper - 6 - mask.height)
        image.paste(_INK, corner, mask)


def _write_numbers(image: Image.Image, shares: np.ndarray, layout: _ImageLayout) -> None:
    """Write percentages into the cells, unless they round to 0."""
    font = ImageFont.load_default(_SMALL)
    draw = ImageDraw.Draw(image)
    light = colors(shares).mean(axis=-1) > 120
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.0005):
        share = 100 * shares[row, column]
        text = "100" if share >= 99.95 else f"{share:.1f}"
        middle = (
            layout.left + column * layout.cell + layout.cell // 2 - 1,
            layout.upper + row * layout.cell + layout.cell // 2 - 1,
        )
        draw.text(middle, text, _INK if light[row, column] else (255, 255, 255), font=font, anchor="mm")


def _draw_legend(image: Image.Image, layout: _ImageLayout) -> None:
    """Draw the color scale below the matrix at the left margin."""
    width = 300
    top = layout.upper + layout.rows * layout.cell + _LINE // 2
    bar = colors(np.linspace(0, 1, width))[None].repeat(_TEXT, axis=0)
    image.paste(Image.fromarray(bar), (_MARGIN + 8, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((_MARGIN + 7, top - 1, _MARGIN + 8 + width, top + _TEXT), outline=_INK)
    font = ImageFont.load_default(_SMALL)
    for share in (0, 5, 20, 50, 100):
        draw.text((_MARGIN + 8 + share / 100 * width, top + _TEXT + 3), f"{share}", _INK, font=font, anchor="ma")
    draw.rectangle((_MARGIN + width + 40, top - 1, _MARGIN + width + 40 + _TEXT, top + _TEXT), _ABSENT, _INK)
    draw.text((_MARGIN + width + 62, top + _TEXT // 2), "not in the truth", _INK, font=font, anchor="lm")
