"""Small sets to train on: colored rectangles of the demo's classes, with labels in the form of a labelling run."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from made_runs import Made, write_run
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import RayConfig, StudentConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.models.device import Compute
from wsss_ray.models.student.building import build_student
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.storage import Storage
from wsss_ray.training.augmentation import Augmentation
from wsss_ray.training.feed import Feed
from wsss_ray.training.order import Order, TrainingSample
from wsss_ray.training.sources import open_labels, survey
from wsss_ray.training.updates import Schedule, Updater

CLASSES = ClassSet.load("demo")
HEIGHT, WIDTH = 60, 80


def batch(order: Order, iteration: int) -> list[TrainingSample]:
    """Return all samples of an iteration (counted from 0), by slot."""
    stretch, offset = divmod(iteration, order.length)
    return [samples[offset] for samples in order.slots(stretch, range(order.batch_size))]


def draw(index: int, *, truth: bool = True, failed: bool = False) -> Made:
    """Return a gray image with one rectangle in the color of its class, and its label."""
    random = np.random.default_rng(index)
    entry = CLASSES.classes[index % len(CLASSES.classes)]
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8) + random.integers(0, 20, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    top, left = random.integers(0, 20, 2)
    picture[top : top + 30, left : left + 40] = entry.color
    label[top : top + 30, left : left + 40] = entry.id
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return Made(
        image_id=f"image-{index:03d}",
        label=None if failed else label,
        tags=[entry.name],
        truth=label if truth else None,
        image=stream.getvalue(),
        error="segment: broken" if failed else None,
        size=(HEIGHT, WIDTH),
    )


def write_set(folder: Path | str, made: list[Made], *, images_per_unit: int = 4, storage: object = None) -> None:
    """Write image shards to <folder>/images and a run of labels to <folder>/labels: two shards."""
    half = (len(made) // 2 + images_per_unit - 1) // images_per_unit * images_per_unit
    shards = [part for part in (made[:half], made[half:]) if part]
    write_run(
        Storage(f"{folder}/images", storage),
        Storage(f"{folder}/labels", storage),
        shards,
        classes=CLASSES,
        images_per_unit=images_per_unit,
        exif="ignore",
    )


class KillingAugmentation(Augmentation):
    """An augmentation that kills its process, like a file that crashes a decoder."""

    def __call__(self, *arguments: object, **options: object) -> NoReturn:  # type: ignore[override]
        """Kill this process."""
        os._exit(1)


def configure(folder: Path | str, output: Path | str, **fields: object) -> TrainConfig:
    """Return a short training of the tiny student on a set that `write_set` wrote."""
    config = TrainConfig(
        images=f"{folder}/images",
        labels=f"{folder}/labels",
        output=str(output),
        classes="demo",
        preset="demo",
        iterations=6,
        batch_size=4,
        crop=65,
        optimizer="sgd",
        checkpoint_every=2,
        status_seconds=60,
        student=StudentConfig(architecture="deeplabv2-tiny", init="none"),
        ray=RayConfig(actors=1),
    )
    return replace(config, **fields)


def losses_of_a_loop(config: TrainConfig) -> list[float]:
    """Return the loss of every iteration of a training on the CPU in one process, without Ray."""
    recipe, images = config.recipe, Storage(config.images, config.storage)
    shards = read_shard_set(images)
    labels = open_labels(config, shards)
    order = Order(
        rows=[unit.rows for unit in shards.units],
        left_out=survey(labels, images, shards, unusable=config.unusable, selection=ImageSelection()).left_out,
        seed=config.seed,
        batch_size=recipe.batch_size,
        window=config.shuffle_window,
    )
    torch.manual_seed(config.seed)
    student = build_student(config.student, CLASSES, weights=None).to(memory_format=torch.channels_last)
    red, green, blue = (round(value) for value in student.spec.preprocessing.mean)
    feed = Feed(
        images=images,
        units=shards.units,
        labels=labels,
        order=order,
        augmentation=Augmentation(
            crop=recipe.crop, scales=recipe.random_scales, flip=config.flip, fill=(red, green, blue)
        ),
        spec=student.spec,
        unusable=config.unusable,
    )
    updater = Updater(
        student,
        compute=Compute(device=torch.device("cpu"), tier="float32"),
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        schedule=Schedule(iterations=recipe.iterations, power=config.power),
        accumulation=recipe.accumulation,
    )
    losses: list[float] = []
    for stretch in order.stretches(0, recipe.iterations):
        for table in feed.read(stretch, range(recipe.batch_size)):
            ready = feed.augment(table.to_pylist()[0]["samples"])
            batches = (-1, recipe.batch_size, recipe.crop, recipe.crop)
            pixels = np.frombuffer(ready["images"], np.uint8).reshape(*batches, 3)
            targets = np.frombuffer(ready["labels"], np.int16).reshape(batches)
            for batch in zip(pixels, targets, strict=True):
                losses.append(float(updater.update(len(losses), *batch).sum()))
    return losses
