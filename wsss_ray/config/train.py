"""Configuration of the training job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.models import Device, Precision
from wsss_ray.config.shared import Input, RayConfig, StorageConfig, given, require
from wsss_ray.config.student import StudentConfig

Optimizer = Literal["sgd", "adamw"]
PresetName = Literal["voc", "voc-imagenet", "coco", "coco-long", "demo"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings that a preset gives, each of which a flag overrides."""

    iterations: int
    """Updates of the weights."""
    batch_size: int
    """Samples of one update, over all workers and micro-batches."""
    accumulation: int
    """Micro-batches of one worker in an update."""
    crop: int
    """Side of the training crops, in pixels."""
    learning_rate: float
    """Learning rate of the backbone at the first update."""
    optimizer: Optimizer = "sgd"
    random_scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Factors; each sample is resized by one of them before the crop."""


PRESETS: dict[PresetName, Recipe] = {
    "voc": Recipe(iterations=20_000, batch_size=10, accumulation=2, crop=321, learning_rate=2.5e-4),
    "voc-imagenet": Recipe(iterations=30_000, batch_size=20, accumulation=2, crop=321, learning_rate=2.5e-4),
    "coco": Recipe(iterations=50_000, batch_size=20, accumulation=1, crop=321, learning_rate=2.5e-4),
    "coco-long": Recipe(iterations=100_000, batch_size=20, accumulation=2, crop=321, learning_rate=2e-4),
    "demo": Recipe(
        iterations=2500,
        batch_size=4,
        accumulation=1,
        crop=145,
        learning_rate=3e-3,
        optimizer="adamw",
        random_scales=(0.75, 1.0, 1.25),
    ),
}
"""DeepLab-v2's published settings, and those of the embedded demo."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a segmentation network (the student) on labels.

    The labels are those of a run, PNGs of another method, or the ground truth.
    Ray Data feeds the samples, and Ray Train runs the workers. A batch is that of all workers together, and the
    samples and their order depend only on the seed, so one worker or eight train the same network. A rerun of the
    same command continues from the last checkpoint.
    """

    images: str
    """Directory or `s3://` prefix of image shards, as `wsss-ray shard` writes them."""
    output: str
    """Run directory or `s3://` prefix for checkpoints, metrics and student.safetensors."""
    labels: str | None = None
    """Run directory of `wsss-ray label` or `wsss-ray predict` over these shards."""
    label_folder: str | None = None
    """Instead of `labels`: a folder of label PNGs (class ids, as displayed) named by image id, of any method."""
    label_column: Literal["label", "truth"] = "label"
    """label: train on `labels` or `label_folder`. truth: on the ground truth in the image shards (the upper bound)."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file. It must share the shards' names and ids."""
    unusable: Literal["error", "leave-out"] = "error"
    """Images whose label is missing, or whose label or pixels cannot be read: an error that names the first, or left
    out and counted. Images that failed in labelling are left out and counted either way."""
    only: str | None = None
    """File with one image id per line, by path or URI: train on these images only. Unset: on all."""
    exclude: str | None = None
    """File with one image id per line, by path or URI: do not train on these images."""
    preset: PresetName = "voc"
    """Recipe: gives the settings below that are unset. voc: from COCO weights (student.init caffe or checkpoint).
    voc-imagenet, coco, coco-long: from ImageNet weights. demo: the embedded demo's small network (deeplabv2-tiny, init
    none, unless `student` is set) from random weights."""
    iterations: int | None = None
    """Updates of the weights. Unset: the preset's."""
    batch_size: int | None = None
    """Samples of one update, over all workers and micro-batches together. Unset: the preset's."""
    accumulation: int | None = None
    """Micro-batches in which each worker computes its part of an update: less memory, the same result. Unset: the
    fewest that are no larger than the preset's."""
    crop: int | None = None
    """Side of the training crops, in pixels. Unset: the preset's."""
    learning_rate: float | None = None
    """Learning rate of the backbone at the first update; it falls polynomially to 0. Unset: the preset's."""
    power: float = 0.9
    """Exponent of the polynomial decay of the learning rate."""
    optimizer: Optimizer | None = None
    """sgd (as published), or adamw, which suits transformers and small networks with random weights. Unset: the
    preset's."""
    momentum: float = 0.9
    """Momentum of SGD; first beta of AdamW, whose second is 0.999."""
    weight_decay: float = 5e-4
    """Weight decay; biases have none."""
    random_scales: tuple[float, ...] | None = None
    """Factors; each sample is resized by one of them before the crop. Unset: the preset's."""
    flip: bool = True
    """Mirror half of the samples, chosen at random."""
    shuffle_window: int = 1024
    """Images in the window within which samples are shuffled. Units are shuffled over the whole set."""
    seed: int = 0
    """Seed of the order of samples, their augmentation and the initial weights."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """The network."""
    device: Device = "auto"
    """auto: CUDA where the worker has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA (float32 where the GPU has no native bfloat16), float32 on CPU. The loss is
    always float32."""
    compile: bool = False
    """Compile the network with torch.compile: faster steps after some minutes."""
    channels_last: bool = True
    """Memory order of the network, faster on GPUs."""
    validation: str | None = None
    """Image shards with ground truth to measure the mIoU on during training. Unset: none is measured."""
    validation_every: int = 1000
    """Iterations between validations; there is always one at the end."""
    validation_limit: int | None = None
    """Validate on the first N images, rounded up to whole units. Unset: on all."""
    checkpoint_every: int = 500
    """Iterations between checkpoints, which an interruption costs at most."""
    keep_checkpoints: int = 2
    """Checkpoints to keep."""
    worker_failures: int = 8
    """Deaths of workers after which the run ends with an error; the loss of a preempted node does not count."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster; `actors` is the number of training workers: unset, one per GPU, else one."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return given(
            ("--images", self.images, "folder"),
            ("--labels", self.labels, "run"),
            ("--label-folder", self.label_folder, "folder"),
            ("--validation", self.validation, "folder"),
            ("--student.weights", self.student.weights, "file"),
        )

    def __post_init__(self) -> None:
        """Complete the preset, and check ranges."""
        if self.preset == "demo" and self.student == StudentConfig():
            object.__setattr__(self, "student", StudentConfig(architecture="deeplabv2-tiny", init="none"))
        counts = ("iterations", "batch_size", "accumulation", "crop", "validation_limit")
        for name in counts:
            require(self, name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in ("shuffle_window", "validation_every", "checkpoint_every", "keep_checkpoints"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "learning_rate", self.learning_rate is None or self.learning_rate > 0, "more than 0")
        require(self, "power", self.power >= 0, "0 or more")
        require(self, "momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        require(self, "weight_decay", self.weight_decay >= 0, "0 or more")
        scales = self.random_scales
        fits = scales is None or (bool(scales) and all(0.1 <= scale <= 10 for scale in scales))
        require(self, "random_scales", fits, "factors from 0.1 to 10")
        require(self, "seed", self.seed >= 0, "0 or more")
        require(self, "worker_failures", self.worker_failures >= 0, "0 or more")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")
        require(self, "precision", self.precision != "float16", "auto, float32, tf32 or bfloat16 (float16 overflows)")

    def micro_batches(self, workers: int) -> int:
        """Return the micro-batches of each worker in an update, for a number of workers that share the batch evenly."""
        if self.accumulation is not None:
            return self.accumulation
        preset = PRESETS[self.preset]
        largest, share = -(-preset.batch_size // preset.accumulation), self.recipe.batch_size // workers
        return next((n for n in range(1, share) if share % n == 0 and share // n <= largest), max(share, 1))

    @property
    def recipe(self) -> Recipe:
        """Return the preset, with the settings that are given here instead of its own."""
        preset = PRESETS[self.preset]
        return Recipe(
            iterations=self.iterations or preset.iterations,
            batch_size=self.batch_size or preset.batch_size,
            accumulation=self.accumulation or preset.accumulation,
            crop=self.crop or preset.crop,
            learning_rate=self.learning_rate or preset.learning_rate,
            optimizer=self.optimizer or preset.optimizer,
            random_scales=self.random_scales or preset.random_scales,
        )
