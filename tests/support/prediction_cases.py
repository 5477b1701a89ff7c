"""Drawn scenes with truth as rows of image shards, and tiny students with random weights."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from made_runs import Made, image_row

from wsss_ray.classes import ClassSet
from wsss_ray.config import StudentConfig
from wsss_ray.demo.scenes import draw_scene
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.shards.schemas import IMAGE_SCHEMA

DAMAGED = "scene-4"
"""Id of an image that is truncated."""
CLASSES = ClassSet.load("demo")


def make_student(seed: int, classes: ClassSet = CLASSES) -> StudentNetwork:
    """Return a student with random weights and a head with large logits."""
    torch.manual_seed(seed)
    config = StudentConfig(architecture="deeplabv2-tiny", init="none", scales=(1.0, 0.5))
    student = build_student(config, classes, weights=None)
    head = next(group for group in student.parameter_groups(1.0, 0.0) if group["name"] == "head")
    with torch.no_grad():
        for parameter in head["params"]:
            parameter.mul_(20)
    return student.eval()


def draw_rows() -> pa.Table:
    """Return six scenes of three sizes in IMAGE_SCHEMA, with tags and truth; one is damaged, one has no tag."""
    palette = CLASSES.palette()
    rows = []
    for seed in range(6):
        scene = draw_scene(seed)
        height, width = [(96, 128), (128, 96), (90, 130)][seed % 3]
        truth = scene.semantic[:height, :width]
        present = [CLASSES.by_id[i].name for i in np.unique(truth).tolist() if i]
        image = simplejpeg.encode_jpeg(np.ascontiguousarray(scene.image[:height, :width]), quality=95)
        made = Made(
            image_id=f"scene-{seed}",
            label=truth,
            truth=truth,
            tags=[] if seed == 1 else present or ["cat"],
            image=image[: len(image) // 2] if f"scene-{seed}" == DAMAGED else image,
        )
        rows.append(image_row(made, palette))
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
