"""The configuration of a training: presets and ranges."""

from dataclasses import replace

import pytest
from training_cases import configure

from wsss_ray.config import RayConfig, parse
from wsss_ray.config.train import PRESETS, PresetName, TrainConfig
from wsss_ray.training.plan import check_batch


def test_a_preset_gives_what_is_unset_and_flags_win() -> None:
    config = TrainConfig(images="i", output="o", labels="l", preset="voc", crop=100)
    assert config.recipe.crop == 100
    assert (config.recipe.batch_size, config.recipe.iterations) == (10, 20_000)


def test_the_preset_of_the_demo_brings_its_network() -> None:
    config = parse(TrainConfig, ["--images", "i", "--output", "o", "--labels", "l", "--preset", "demo"])
    assert (config.student.architecture, config.student.init) == ("deeplabv2-tiny", "none")
    config = parse(TrainConfig, ["--images", "i", "--output", "o", "--preset", "demo", "--student.init", "none"])
    assert config.student.architecture == "deeplabv2-resnet101"


def test_the_published_recipes() -> None:
    table = {name: (r.learning_rate, r.batch_size, r.accumulation, r.iterations, r.crop) for name, r in PRESETS.items()}
    assert table["voc"] == (2.5e-4, 10, 2, 20_000, 321)
    assert table["voc-imagenet"] == (2.5e-4, 20, 2, 30_000, 321)
    assert table["coco"] == (2.5e-4, 20, 1, 50_000, 321)
    assert table["coco-long"] == (2e-4, 20, 2, 100_000, 321)


@pytest.mark.parametrize("flags", [["--labels", "l"], ["--label-folder", "f"], ["--label-column", "truth"]])
def test_labels_may_be_named_by_a_flag_alone(flags: list[str]) -> None:
    config = parse(TrainConfig, ["--images", "i", "--output", "o", *flags, "--batch-size", "12"])
    assert config.recipe.batch_size == 12
    assert [config.labels, config.label_folder, config.label_column].count(flags[1]) == 1


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_the_shipped_configurations_can_be_read(name: str) -> None:
    config = parse(TrainConfig, ["--config", f"train-{name}", "--images", "i", "--output", "o", "--labels", "l"])
    assert (config.preset, config.classes) == (name, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("crop", 0),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("random_scales", ()),
        ("precision", "float16"),
        ("checkpoint_every", 0),
    ],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"TrainConfig.{field} is"):
        configure("f", "o", **{field: value})


def test_a_batch_that_the_workers_cannot_share() -> None:
    config = configure("f", "o", batch_size=10, accumulation=2, ray=RayConfig(actors=2))
    check_batch(config, 1)
    check_batch(config, 5)
    with pytest.raises(ValueError, match=r"10 samples cannot be shared by 2 workers x 2 micro-batches.*may be 1, 5"):
        check_batch(config, 2)
    with pytest.raises(ValueError, match=r"10 samples cannot be shared by 4 workers: --ray.actors may be 1, 2, 5, 10"):
        check_batch(configure("f", "o", batch_size=10), 4)


@pytest.mark.parametrize(
    ("preset", "workers", "parts"),
    [("voc", 1, 2), ("voc", 2, 1), ("voc", 5, 1), ("coco", 1, 1), ("coco-long", 1, 2), ("coco-long", 4, 1)],
)
def test_micro_batches_are_no_larger_than_the_presets(preset: PresetName, workers: int, parts: int) -> None:
    config = TrainConfig(images="i", labels="l", output="o", preset=preset)
    check_batch(config, workers)
    assert config.micro_batches(workers) == parts
    assert replace(config, accumulation=5).micro_batches(workers) == 5
