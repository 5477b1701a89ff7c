"""Drawings of the demo's objects: lists of colored polygons in a unit frame.

Coordinates run from -1 to 1, x to the right and y down; an object's half height is about 1. Later parts cover
earlier ones. Every function draws its colors and proportions from the given generator.
"""

import colorsys
from collections.abc import Callable
from itertools import pairwise

import numpy as np

Color = tuple[int, int, int]
Part = tuple[np.ndarray, Color]
"""One polygon: points (N, 2) float64 in the unit frame, and its RGB color."""
Range = tuple[float, float]

DISHES = ("bowl", "plate")
"""Dishes on tables: phrases of the detector, part of the dining table in the ground truth."""


def ellipse(
    center: Range, radii: Range, *, start: float = 0.0, stop: float = 2 * np.pi, turn: float = 0.0
) -> np.ndarray:
    """Return an ellipse or the segment of an arc as a polygon; angles in radians, clockwise from the right."""
    angles = np.linspace(start, stop, 28)
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    cosine, sine = np.cos(turn), np.sin(turn)
    return points @ np.array([[cosine, sine], [-sine, cosine]]) + center


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=float)


def polygon(*points: Range) -> np.ndarray:
    return np.array(points, dtype=float)


def color(
    random: np.random.Generator, hue: Range = (0, 1), saturation: Range = (0.5, 1), value: Range = (0.5, 1)
) -> Color:
    """Return a random RGB color; ranges are within 0 to 1, and a hue may cross either end of the circle."""
    rgb = colorsys.hsv_to_rgb(random.uniform(*hue) % 1.0, random.uniform(*saturation), random.uniform(*value))
    return scaled((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])), 1.0)


def scaled(rgb: Color, factor: float) -> Color:
    """Return the color, darker (factor < 1) or lighter."""
    red, green, blue = (int(np.clip(channel * factor, 0, 255)) for channel in rgb)
    return red, green, blue


def potted_plant(random: np.random.Generator) -> list[Part]:
    terracotta = random.random() < 0.7
    pot = color(random, (0.0, 0.1), (0.5, 0.9), (0.5, 0.85)) if terracotta else color(random, value=(0.6, 0.9))
    width, leaves = random.uniform(0.38, 0.5), int(random.integers(6, 10))
    parts: list[Part] = [(ellipse((0, -0.05), (0.3, 0.35)), color(random, (0.27, 0.4), (0.6, 1), (0.3, 0.5)))]
    for angle in np.linspace(-1.25, 1.25, leaves):
        direction = -np.pi / 2 + angle + random.normal(0, 0.06)
        length = random.uniform(0.42, 0.55)
        center = (np.cos(direction) * length, 0.1 + np.sin(direction) * length)
        leaf = ellipse(center, (length, random.uniform(0.17, 0.24)), turn=direction)
        parts.append((leaf, color(random, (0.25, 0.42), (0.5, 1), (0.35, 0.8))))
    taper = random.uniform(0.6, 0.8)
    body = polygon((-width, 0.2), (width, 0.2), (width * taper, 1), (-width * taper, 1))
    return [*parts, (body, pot), (rectangle(-width * 1.15, 0.12, width * 1.15, 0.34), scaled(pot, 0.8))]


def traffic_light(random: np.random.Generator) -> list[Part]:
    case = color(random, saturation=(0, 0.4), value=(0.12, 0.3))
    if random.random() < 0.25:
        case = color(random, (0.12, 0.15), (0.8, 1), (0.7, 0.9))
    width, bottom = random.uniform(0.3, 0.38), 1.0
    parts: list[Part] = []
    if random.random() < 0.5:
        bottom = 0.66
        parts.append((rectangle(-0.1, 0.6, 0.1, 1.0), scaled(case, 0.8)))
    parts.append((rectangle(-width, -1, width, bottom), case))
    lit, step = int(random.integers(3)), (bottom + 1) / 3
    for index, hue in enumerate([(0.0, 0.02), (0.12, 0.16), (0.33, 0.42)]):
        bright = index == lit or random.random() < 0.3
        lamp = color(random, hue, (0.8, 1), (0.9, 1)) if bright else color(random, hue, (0.7, 1), (0.45, 0.6))
        parts.append((ellipse((0, -1 + (index + 0.5) * step), (width * 0.72, step * 0.4)), lamp))
    return parts


def dining_table(random: np.random.Generator) -> list[Part]:
    """Return a table: the far edge of its top is at y = -0.5, x = -0.85 to 0.85, the near edge at y = 0."""
    wood = color(random, (0.04, 0.12), (0.4, 0.9), (0.4, 0.85))
    if random.random() < 0.2:
        wood = color(random, (0.0, 0.15), (0, 0.2), (0.75, 0.95))
    leg = random.uniform(0.07, 0.1)
    parts: list[Part] = []
    if random.random() < 0.5:
        parts += [(rectangle(x - leg, 0.0, x + leg, 0.55), scaled(wood, 0.5)) for x in (-0.6, 0.6)]
    parts += [(rectangle(x - leg, 0.0, x + leg, 0.75), scaled(wood, 0.7)) for x in (-0.88, 0.88)]
    apron = rectangle(-1, 0.0, 1, random.uniform(0.16, 0.22))
    top = polygon((-0.85, -0.5), (0.85, -0.5), (1, 0.0), (-1, 0.0))
    return [*parts, (apron, scaled(wood, 0.8)), (top, wood)]


def bowl(random: np.random.Generator) -> list[Part]:
    """Return a bowl of half width 1 whose foot is at y = 0.75."""
    glaze = color(random, saturation=(0.1, 0.8), value=(0.6, 1))
    parts: list[Part] = [
        (rectangle(-0.4, 0.5, 0.4, 0.75), scaled(glaze, 0.7)),
        (ellipse((0, -0.2), (1, 0.85), start=0, stop=np.pi), glaze),
        (ellipse((0, -0.2), (1, 0.28)), scaled(glaze, 0.65)),
    ]
    if random.random() < 0.7:
        parts.append((ellipse((0, -0.22), (0.8, 0.32)), color(random)))
    return parts


def plate(random: np.random.Generator) -> list[Part]:
    """Return a plate of half width 1 at y = 0.35 with food on it."""
    china = color(random, saturation=(0, 0.25), value=(0.85, 1))
    parts: list[Part] = [
        (ellipse((0, 0.35), (1, 0.4)), china),
        (ellipse((0, 0.33), (0.72, 0.27)), scaled(china, 0.85)),
    ]
    for x in random.permutation([-0.3, 0.0, 0.3]):
        food = color(random, (-0.02, 0.32), (0.6, 1), (0.5, 0.95))
        parts.append((ellipse((x, 0.0), (0.36, random.uniform(0.38, 0.5))), food))
    return parts


def sail_boat(random: np.random.Generator) -> list[Part]:
    hull = color(random, saturation=(0.3, 1), value=(0.3, 0.8))
    white = random.random() < 0.6
    sail = color(random, saturation=(0, 0.2), value=(0.85, 1)) if white else color(random, value=(0.7, 1))
    parts: list[Part] = [(rectangle(-0.08, -1, 0.08, 0.5), (84, 60, 46))]
    parts.append((polygon((0.06, -0.97), (0.06, 0.44), (random.uniform(0.65, 0.85), 0.44)), sail))
    if random.random() < 0.75:
        jib = polygon((-0.06, -0.85), (-0.06, 0.44), (-random.uniform(0.55, 0.75), 0.44))
        parts.append((jib, scaled(sail, 0.88)))
    parts.append((polygon((-0.98, 0.44), (0.98, 0.44), (0.65, 0.95), (-0.65, 0.95)), hull))
    if random.random() < 0.5:
        parts.append((rectangle(-0.86, 0.54, 0.86, 0.64), scaled(hull, 1.4)))
    return parts


def hot_air_balloon(random: np.random.Generator) -> list[Part]:
    cloth, stripe = color(random, saturation=(0.6, 1), value=(0.6, 1)), color(random, (0, 1), (0.3, 1), (0.7, 1))
    dome = ellipse((0, -0.35), (0.74, 0.65), start=np.pi, stop=2 * np.pi)
    envelope = np.concatenate([dome, polygon((0.74, -0.3), (0.26, 0.5), (-0.26, 0.5), (-0.74, -0.3))])
    parts: list[Part] = [
        (polygon((-0.24, 0.45), (0.24, 0.45), (0.2, 0.74), (-0.2, 0.74)), (70, 56, 46)),
        (rectangle(-0.22, 0.66, 0.22, 1.0), color(random, (0.06, 0.1), (0.5, 0.8), (0.4, 0.6))),
        (envelope, cloth),
    ]
    centers, width = ([0.0], 0.2) if random.random() < 0.5 else ([-0.36, 0.36], 0.14)
    for x in centers:
        top, half = -0.95 + 0.3 * abs(x), width * 0.5
        gore = polygon(
            (x - half, top), (x + half, top), (x + width, -0.35),
            (x * 0.45 + half, 0.48), (x * 0.45 - half, 0.48), (x - width, -0.35),
        )  # fmt: skip
        parts.append((gore, stripe))
    return parts


def stop_sign(random: np.random.Generator) -> list[Part]:
    red = color(random, (-0.02, 0.02), (0.85, 1), (0.65, 0.95))
    corners = np.pi / 8 + np.arange(8) * np.pi / 4
    octagon = np.stack([np.cos(corners), np.sin(corners)], axis=1)
    parts: list[Part] = []
    center = (0.0, 0.0)
    if random.random() < 0.7:
        center = (0.0, -0.3)
        parts.append((rectangle(-0.09, 0.2, 0.09, 1.0), color(random, (0, 1), (0, 0.1), (0.4, 0.7))))
    size = 0.7 if parts else 0.95
    parts += [(octagon * size + center, (238, 238, 238)), (octagon * size * 0.87 + center, red)]
    for x in (-0.51, -0.17, 0.17, 0.51):
        letter = rectangle((x - 0.11) * size, -0.22 * size, (x + 0.11) * size, 0.22 * size) + center
        parts.append((letter, (240, 240, 240)))
    return parts


def umbrella(random: np.random.Generator) -> list[Part]:
    first, second = color(random, value=(0.55, 1)), color(random, (0, 1), (0.2, 1), (0.5, 1))
    if random.random() < 0.5:
        second = scaled(first, 0.75)
    parts: list[Part] = [
        (rectangle(-0.07, -0.1, 0.07, 0.84), (74, 54, 44)),
        (ellipse((0.13, 0.82), (0.2, 0.18), start=0, stop=np.pi), (74, 54, 44)),
    ]
    edges = np.linspace(-1, 1, 6)
    for index, (left, right) in enumerate(pairwise(edges)):
        x = np.linspace(left, right, 9)
        dome = np.stack([x, -0.85 * np.sqrt(np.clip(1 - x**2, 0, 1))], axis=1)
        hem = np.stack([x[::-1], -0.11 * np.sin(np.linspace(0, np.pi, 9))], axis=1)
        parts.append((np.concatenate([dome, hem]), first if index % 2 == 0 else second))
    return parts


def cat(random: np.random.Generator) -> list[Part]:
    coats = [
        ((0.04, 0.1), (0.5, 0.9), (0.6, 0.95)),
        ((0, 1), (0, 0.1), (0.14, 0.3)),
        ((0, 1), (0, 0.1), (0.5, 0.7)),
        ((0.08, 0.12), (0.1, 0.3), (0.8, 1)),
    ]
    hue, saturation, value = coats[int(random.integers(len(coats)))]
    coat = color(random, hue, saturation, value)
    shade = scaled(coat, 0.8)
    parts: list[Part] = [
        (ellipse((0.66, 0.5), (0.45, 0.14), turn=-0.9 + random.uniform(-0.3, 0.3)), shade),
        (ellipse((0.12, 0.45), (0.55, 0.5)), coat),
        *((rectangle(x, 0.6, x + 0.24, 1.0), shade) for x in (-0.38, -0.06, 0.38)),
        (polygon((-0.72, -0.25), (-0.68, -0.95), (-0.25, -0.5)), shade),
        (polygon((0.22, -0.25), (0.18, -0.95), (-0.25, -0.5)), shade),
        (ellipse((-0.25, -0.22), (0.5, 0.46)), coat),
    ]
    iris = color(random, (0.15, 0.4), (0.7, 1), (0.8, 1))
    for x in (-0.45, -0.05):
        parts += [(ellipse((x, -0.27), (0.13, 0.12)), iris), (ellipse((x, -0.27), (0.05, 0.1)), (10, 10, 10))]
    return [*parts, (polygon((-0.33, -0.08), (-0.17, -0.08), (-0.25, 0.03)), (200, 120, 130))]


def mushroom(random: np.random.Generator) -> list[Part]:
    cap = color(random, (-0.02, 0.1), (0.6, 1), (0.5, 0.9))
    stem = color(random, (0.08, 0.14), (0.05, 0.25), (0.8, 1))
    width = random.uniform(0.26, 0.36)
    parts: list[Part] = [
        (polygon((-width, -0.1), (width, -0.1), (width * 1.3, 1), (-width * 1.3, 1)), stem),
        (ellipse((0, 0.0), (0.95, 0.95), start=np.pi, stop=2 * np.pi), cap),
        (ellipse((0, 0.0), (0.95, 0.2)), scaled(stem, 0.75)),
    ]
    if random.random() < 0.7:
        spots = [(-0.5, -0.4), (0.0, -0.65), (0.48, -0.35), (-0.1, -0.3)]
        parts += [(ellipse(spot, (0.15, 0.11)), (244, 238, 226)) for spot in spots]
    return parts


DRAWINGS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "potted plant": potted_plant,
    "traffic light": traffic_light,
    "dining table": dining_table,
    "sail boat": sail_boat,
    "hot air balloon": hot_air_balloon,
    "stop sign": stop_sign,
    "umbrella": umbrella,
    "cat": cat,
    "mushroom": mushroom,
    "bowl": bowl,
    "plate": plate,
}
"""The drawing of every phrase: the nine classes, then the dishes."""
