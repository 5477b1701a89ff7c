"""Paint a scene: objects over a background, with the visible mask of each object."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wsss_ray.demo.backgrounds import draw_background, noise
from wsss_ray.demo.shapes import DISHES, DRAWINGS, Part, scaled

_OVERSAMPLING = 2


class SceneCanvas:
    """A picture that is being painted, with the visible mask of every object on it."""

    def __init__(self, random: np.random.Generator, height: int, width: int) -> None:
        self.random, self.height, self.width = random, height, width
        self.picture = draw_background(random, height, width)
        self.phrases: list[str] = []
        self.masks: list[np.ndarray] = []
        self.areas: list[int] = []
        self.objects = 0

    def paint_object(self, phrase: str) -> None:
        """Paint one object at a random position, unless it would hide too much of another."""
        half = self._half_height()
        aspect = self.random.uniform(0.9, 1.15)
        turn = self.random.normal(0, 0.2 if phrase == "umbrella" else 0.07)
        center = self._center(half * aspect, half, high=phrase == "hot air balloon")
        if self._paint(phrase, center, (half * aspect, half), turn=turn):
            self.objects += 1

    def paint_table(self) -> None:
        """Paint a table at a random position, in most cases with two or three dishes on it."""
        half = max(44.0, 1.25 * self._half_height())
        depth = half * self.random.uniform(0.9, 1.1)
        center = self._center(half, 0.8 * depth)
        if not self._paint("dining table", center, (half, depth)):
            return
        self.objects += 1
        table = len(self.masks) - 1
        if self.random.random() < 0.88:
            dishes = int(self.random.choice([2, 3], p=[0.7, 0.3]))
            for spot in self.random.permutation((np.arange(dishes) + 0.5) / dishes * 1.8 - 0.9):
                radius = half * self.random.uniform(0.75, 0.98) * 0.88 / dishes**0.9
                x = center[0] + half * spot * 0.95 + self.random.normal(0, 0.03) * half
                foot = center[1] - depth * self.random.uniform(0.12, 0.3)
                dish = DISHES[int(self.random.integers(2))]
                rise = radius * self.random.uniform(0.95, 1.25)
                center_y = foot - rise * (0.75 if dish == "bowl" else 0.7)
                self._paint(dish, (x, center_y), (radius, rise), exempt=table)
        self.areas[table] = int(self.masks[table].sum())

    def _half_height(self) -> float:
        return float(np.clip(self.random.uniform(0.17, 0.31) * min(self.height, self.width), 24, 70))

    def _center(self, half_width: float, half_height: float, *, high: bool = False) -> tuple[float, float]:
        """Return a center at which most of the object is inside the picture: high for objects in the sky, else low."""
        margin_x, margin_y = min(0.85 * half_width, self.width / 2), min(0.85 * half_height, self.height / 2)
        x = self.random.uniform(margin_x, self.width - margin_x)
        share = self.random.beta(1.3, 2.2) if high else self.random.beta(2.2, 1.5)
        return x, margin_y + share * (self.height - 2 * margin_y)

    def _paint(
        self,
        phrase: str,
        center: tuple[float, float],
        radii: tuple[float, float],
        *,
        turn: float = 0.0,
        exempt: int | None = None,
    ) -> bool:
        """Paint an object unless it would hide more than 30 % of another (save `exempt`)."""
        parts = DRAWINGS[phrase](self.random)
        mirrored = phrase == "cat" and self.random.random() < 0.5
        polygons = [_transformed(points, center, radii, turn, mirrored) for points, _ in parts]
        rows, columns = self._window(polygons)
        if rows.stop - rows.start < 8 or columns.stop - columns.start < 8:
            return False
        colors, alpha = _rasterise(
            [(points, part[1]) for points, part in zip(polygons, parts, strict=True)], rows, columns
        )
        mask = np.zeros((self.height, self.width), dtype=bool)
        mask[rows, columns] = alpha >= 0.5
        for index, (other, area) in enumerate(zip(self.masks, self.areas, strict=True)):
            if index != exempt and (other & ~mask).sum() < 0.7 * area:
                return False
        self._blend(colors, alpha, rows, columns)
        for other in self.masks:
            np.logical_and(other, ~mask, out=other)
        self.phrases.append(phrase)
        self.masks.append(mask)
        self.areas.append(int(mask.sum()))
        return True

    def _window(self, polygons: Sequence[np.ndarray]) -> tuple[slice, slice]:
        """Return the rows and columns of the picture that the polygons may touch."""
        points = np.concatenate(polygons)
        left, top = np.floor(points.min(axis=0)).astype(int) - 1
        right, bottom = np.ceil(points.max(axis=0)).astype(int) + 2
        return (
            slice(max(0, int(top)), max(0, min(self.height, int(bottom)))),
            slice(max(0, int(left)), max(0, min(self.width, int(right)))),
        )

    def _blend(self, colors: np.ndarray, alpha: np.ndarray, rows: slice, columns: slice) -> None:
        """Blend shaded colors (h, w, 3) into a window of the picture by their coverage (h, w)."""
        height, width = alpha.shape
        light = self.random.uniform(-0.18, 0.18) * np.linspace(-1, 1, width, dtype=np.float32)
        shade = 1 + light + self.random.uniform(0.01, 0.06) * noise(self.random, height, width, 6)
        opaque = alpha[..., None]
        self.picture[rows, columns] = self.picture[rows, columns] * (1 - opaque) + np.clip(
            colors * shade[..., None], 0, 255
        ) * (opaque)

    def finish(self) -> np.ndarray:
        """Return the picture (H, W, 3) uint8 with its exposure and a little sensor noise."""
        random = self.random
        grain = random.uniform(0, 5) * random.standard_normal((self.height, self.width, 1), dtype=np.float32)
        colored = random.uniform(0, 3) * random.standard_normal((self.height, self.width, 3), dtype=np.float32)
        return np.clip(self.picture * random.uniform(0.85, 1.1) + grain + colored, 0, 255).astype(np.uint8)


def _transformed(
    points: np.ndarray, center: tuple[float, float], radii: tuple[float, float], turn: float, mirrored: bool
) -> np.ndarray:
    """Return points (N, 2) of the unit frame in pixels: scaled, mirrored if `mirrored`, turned (radians), moved."""
    cosine, sine = np.cos(turn), np.sin(turn)
    scale = np.array([-radii[0] if mirrored else radii[0], radii[1]])
    return (points * scale) @ np.array([[cosine, sine], [-sine, cosine]]) + np.array(center)


def _rasterise(parts: Sequence[Part], rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return colors (h, w, 3) float32 and coverage (h, w) in 0 to 1 of polygons in a window; edges are darker."""
    size = ((columns.stop - columns.start) * _OVERSAMPLING, (rows.stop - rows.start) * _OVERSAMPLING)
    colors, coverage = Image.new("RGB", size), Image.new("L", size)
    paint, cover = ImageDraw.Draw(colors), ImageDraw.Draw(coverage)
    for points, rgb in parts:
        corners = [tuple(point) for point in (points - (columns.start, rows.start)) * _OVERSAMPLING]
        paint.polygon(corners, fill=rgb)
        paint.line([*corners, corners[0]], fill=scaled(rgb, 0.72), width=2)
        cover.polygon(corners, fill=255)
    inner = np.asarray(coverage.filter(ImageFilter.MinFilter(5)).reduce(_OVERSAMPLING), np.float32) / 255
    alpha = np.asarray(coverage.reduce(_OVERSAMPLING), np.float32) / 255
    masked = Image.composite(colors, Image.new("RGB", size), coverage)
    rgb_mean = np.asarray(masked.reduce(_OVERSAMPLING), np.float32) / np.maximum(alpha, 0.25)[..., None]
    rim = 0.62 + 0.38 * inner[..., None]
    return np.clip(rgb_mean * rim, 0, 255), alpha
