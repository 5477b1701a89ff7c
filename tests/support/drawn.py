"""Drawn scenes as encoded images with tags, for runs of the demo's models."""

from __future__ import annotations

import io

from PIL import Image

from wsss_ray.demo.scenes import draw_scene, split_seeds


def drawn_scenes(count: int) -> dict[str, tuple[bytes, list[str]]]:
    """PNG and tags of the first validation scenes, by image id."""
    images = {}
    for seed in split_seeds("validation", count):
        scene, stream = draw_scene(seed), io.BytesIO()
        Image.fromarray(scene.image).save(stream, "PNG")
        images[f"scene-{seed}"] = (stream.getvalue(), list(scene.tags))
    return images
