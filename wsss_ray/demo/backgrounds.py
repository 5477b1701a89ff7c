"""Draw backgrounds of the demo's scenes: meadow, water, room or a plain wall, with texture and soft clutter."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wsss_ray.demo.shapes import color


def noise(random: np.random.Generator, height: int, width: int, grain: int) -> np.ndarray:
    """Return smooth noise (height, width) float32 of about unit deviation, with blobs of about `grain` pixels."""
    coarse = random.standard_normal((max(2, height // grain), max(2, width // grain))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _gradient(random: np.random.Generator, height: int, width: int, first: tuple, second: tuple) -> np.ndarray:
    """Return a linear gradient (height, width, 3) float32 between two colors, mostly downwards."""
    angle = np.pi / 2 + random.normal(0, 0.4)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = np.cos(angle) * columns / width + np.sin(angle) * rows / height
    ramp = ((ramp - ramp.min()) / (np.ptp(ramp) + 1e-6))[..., None]
    return np.asarray(first, np.float32) * (1 - ramp) + np.asarray(second, np.float32) * ramp


def _textured(random: np.random.Generator, base: np.ndarray, strength: float) -> np.ndarray:
    """Return the picture with brightness noise of a random grain, at most `strength` gray levels."""
    grain = int(random.choice([8, 16, 32]))
    amount = random.uniform(0.2, 1) * strength
    return base + amount * noise(random, base.shape[0], base.shape[1], grain)[..., None]


def _sky(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    hue = (0.5, 0.65) if random.random() < 0.7 else (0.0, 0.12)
    sky = _gradient(
        random, height, width, color(random, hue, (0.1, 0.5), (0.6, 0.95)), color(random, hue, (0, 0.3), (0.75, 1))
    )
    clouds = np.clip(noise(random, height, width, 40), 0, 1)[..., None] * random.uniform(0, 0.7)
    return sky * (1 - clouds) + 240 * clouds


def _horizon(random: np.random.Generator, height: int, width: int, waviness: float) -> np.ndarray:
    """Return a mask (height, width), true below a horizon at 40 to 70 % of the height."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    wave = noise(random, 2, width, 48)[:1] * waviness
    return rows > random.uniform(0.4, 0.7) * height + wave


def _meadow(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    hue = (0.2, 0.4) if random.random() < 0.6 else (0.06, 0.14)
    ground = _gradient(
        random,
        height,
        width,
        color(random, hue, (0.15, 0.5), (0.4, 0.75)),
        color(random, hue, (0.15, 0.55), (0.35, 0.7)),
    )
    below = _horizon(random, height, width, random.uniform(0, 10))[..., None]
    return np.where(below, _textured(random, ground, 16), _sky(random, height, width))


def _water(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    hue = (0.48, 0.64)
    water = _gradient(
        random, height, width, color(random, hue, (0.2, 0.5), (0.5, 0.8)), color(random, hue, (0.3, 0.6), (0.35, 0.65))
    )
    ripples = np.repeat(noise(random, height, max(2, width // 8), 3), 8, axis=1)
    ripples = np.pad(ripples, ((0, 0), (0, max(0, width - ripples.shape[1]))), mode="edge")[:, :width]
    water = water + random.uniform(3, 12) * ripples[..., None]
    return np.where(_horizon(random, height, width, 0)[..., None], water, _sky(random, height, width))


def _room(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    paint = color(random, saturation=(0, 0.35), value=(0.55, 0.95))
    wall = _gradient(random, height, width, paint, tuple(0.85 * np.asarray(paint)))
    columns = np.arange(width)
    if random.random() < 0.5:  # wallpaper
        wall = wall * (1 + random.uniform(0.03, 0.1) * (columns // random.integers(6, 20) % 2))[None, :, None]
    planks = color(random, (0.04, 0.12), (0.1, 0.5), (0.35, 0.7))
    floor = _gradient(random, height, width, planks, tuple(0.8 * np.asarray(planks)))
    rows = np.arange(height)
    stripe = (rows // random.integers(8, 24) % 2)[:, None] + (columns // random.integers(20, 60) % 2)[None, :]
    floor = floor * (1 + random.uniform(0, 0.1) * (stripe % 2))[..., None]
    below = _horizon(random, height, width, 0)[..., None]
    return np.where(below, _textured(random, floor, 8), _textured(random, wall, 6))


def _plain(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    first, second = (color(random, saturation=(0, 0.45), value=(0.35, 0.9)) for _ in range(2))
    return _textured(random, _gradient(random, height, width, first, second), 22)


def _add_clutter(random: np.random.Generator, picture: Image.Image) -> None:
    """Draw up to six translucent boxes, discs and bars that belong to no class."""
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(int(random.integers(0, 7))):
        x, y = random.uniform(0, picture.width), random.uniform(0, picture.height)
        extent = random.uniform(8, 0.25 * min(picture.size))
        fill = (*color(random, saturation=(0, 0.6), value=(0.3, 0.9)), int(random.integers(60, 190)))
        corners = (x, y, x + extent * random.uniform(0.5, 1.8), y + extent)
        kind = random.integers(3)
        if kind == 0:
            draw.rectangle(corners, fill=fill)
        elif kind == 1:
            draw.ellipse(corners, fill=fill)
        else:
            end = (x + random.normal(0, 60), y + random.normal(0, 60))
            draw.line([(x, y), end], fill=fill, width=int(random.integers(2, 7)))


def draw_background(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a background (height, width, 3) float32 in 0 to 255, a little out of focus."""
    kinds = [_meadow, _water, _room, _plain]
    picture = kinds[int(random.choice(4, p=[0.3, 0.2, 0.3, 0.2]))](random, height, width)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    _add_clutter(random, image)
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 2.0)))
    return np.asarray(image).astype(np.float32)
