"""One update of the weights, without Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from soak import SOAK
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from training_cases import CLASSES
from transformers import DPTConfig, DPTForSemanticSegmentation

from wsss_ray.config import StudentConfig
from wsss_ray.config.train import Optimizer
from wsss_ray.models.device import Compute
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.spec import IGNORE
from wsss_ray.storage.storage import Storage
from wsss_ray.training.checkpoint import read_checkpoint, restore_snapshot, take_snapshot, write_checkpoint
from wsss_ray.training.updates import Schedule, Updater
from wsss_ray.training.worker import sharing_options

CPU = Compute(device=torch.device("cpu"), tier="float32")


def make_updater(
    *,
    accumulation: int = 1,
    seed: int = 0,
    learning_rate: float = 1e-3,
    optimizer: Optimizer = "sgd",
    student: StudentNetwork | None = None,
) -> Updater:
    torch.manual_seed(seed)
    student = student or build_student(StudentConfig(architecture="deeplabv2-tiny", init="none"), CLASSES, weights=None)
    return Updater(
        student,
        compute=CPU,
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=Schedule(iterations=10, power=0.9),
        accumulation=accumulation,
    )


def make_batch(samples: int = 4, *, size: int = 33) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (samples, size, size, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES.num_classes, (samples, size, size)).astype(np.int16)
    labels[0] = IGNORE  # micro-batches and samples count differently
    labels[1, : size // 2] = IGNORE
    return images, labels


def weights(student: StudentNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in student.state_dict().items()}


def test_the_loss_is_the_mean_over_all_valid_pixels_of_each_output() -> None:
    updater = make_updater()
    images, labels = make_batch()
    student = updater.student
    with torch.no_grad():
        outputs = student(torch.from_numpy(images).permute(0, 3, 1, 2))
    targets = student.targets(torch.from_numpy(labels))
    expected = [
        torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE).item()
        for logits, target in zip(outputs, targets, strict=True)
    ]
    assert updater.update(0, images, labels).tolist() == pytest.approx(expected, rel=1e-5)


def test_micro_batches_give_the_same_update() -> None:
    images, labels = make_batch()
    whole, parts = make_updater(), make_updater(accumulation=4)
    losses = [updater.update(0, images, labels) for updater in (whole, parts)]
    assert losses[0].tolist() == pytest.approx(losses[1].tolist(), rel=1e-5)
    for name, value in weights(whole.student).items():
        torch.testing.assert_close(value, weights(parts.student)[name], rtol=1e-4, atol=1e-6)


def test_workers_share_a_network_that_holds_layers_which_it_does_not_use(tmp_path: Path) -> None:
    """DPT's first fusion layer has a residual unit for which there is no input."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    neck = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    settings = DPTConfig(image_size=32, patch_size=8, use_auxiliary_head=False, num_labels=3, **sizes, **neck)
    DPTForSemanticSegmentation(settings).save_pretrained(tmp_path / "dpt")
    processor = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "dpt" / "preprocessor_config.json").write_text(json.dumps(processor))
    config = StudentConfig(architecture=f"transformers:{tmp_path / 'dpt'}", init="pretrained")
    student = build_student(config, CLASSES, weights=tmp_path / "dpt").train()
    updater = make_updater(student=student)
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "group"), 1), rank=0, world_size=1)
    try:
        updater.model = DistributedDataParallel(student, **sharing_options(student.spec.architecture))
        for iteration in range(2):
            assert updater.update(iteration, *make_batch(size=32)).isfinite().all()
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not SOAK, reason="in `make soak`: compiling takes minutes")
def test_a_compiled_network_makes_the_same_updates() -> None:
    """A compiled network at all scales, as with --compile."""
    images, labels = make_batch()
    plain, compiled = make_updater(), make_updater()
    compiled.model = torch.compile(compiled.student)
    for iteration in range(3):
        losses = [updater.update(iteration, images, labels) for updater in (plain, compiled)]
        assert losses[1].tolist() == pytest.approx(losses[0].tolist(), rel=1e-4)
    for name, value in weights(plain.student).items():
        torch.testing.assert_close(weights(compiled.student)[name], value, rtol=1e-3, atol=1e-5)


def test_a_batch_without_a_valid_pixel_leaves_the_loss_at_zero() -> None:
    updater = make_updater()
    images, labels = make_batch()
    losses = updater.update(0, images, np.full_like(labels, IGNORE))
    assert losses.tolist() == [0.0] * len(updater.student.output_sizes(8, 8))
    assert all(torch.isfinite(value).all() for value in weights(updater.student).values())


def test_the_rates_of_all_groups_fall_by_the_formula() -> None:
    updater = make_updater(learning_rate=0.5)
    updater.update(4, *make_batch())
    expected = 0.5 * (1 - 4 / 10) ** 0.9
    assert updater.learning_rate(4) == pytest.approx(expected)
    first = updater.student.parameter_groups(0.5, 5e-4)
    for group, at_first in zip(updater.optimizer.param_groups, first, strict=True):
        assert group["lr"] == pytest.approx(at_first["lr"] * (1 - 4 / 10) ** 0.9)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_snapshot_goes_on_to_the_same_weights(optimizer: Optimizer) -> None:
    images, labels = make_batch()
    straight = make_updater(optimizer=optimizer)
    for iteration in range(2):
        straight.update(iteration, images, labels)
    snapshot = take_snapshot(2, straight.student, straight.optimizer)
    straight.update(2, images, labels)
    resumed = make_updater(seed=7, optimizer=optimizer)
    restore_snapshot(snapshot, resumed.student, resumed.optimizer)
    resumed.update(2, images, labels)
    for name, value in weights(straight.student).items():
        assert torch.equal(value, weights(resumed.student)[name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resume_keeps_the_memory_order_of_the_optimizer_s_state(optimizer: Optimizer, tmp_path: Path) -> None:
    """Of another order than the weights, it would keep the optimizer off its fused path on a GPU."""

    def channels_last(seed: int) -> Updater:
        made = build_student(StudentConfig(architecture="deeplabv2-tiny", init="none"), CLASSES, weights=None)
        return make_updater(seed=seed, optimizer=optimizer, student=made.to(memory_format=torch.channels_last))

    def orders(updater: Updater) -> dict[tuple[str, str], tuple[int, ...]]:
        return {
            (name, key): tuple(step for step, size in zip(value.stride(), value.shape, strict=True) if size > 1)
            for name, parameter in updater.student.named_parameters()
            for key, value in updater.optimizer.state.get(parameter, {}).items()
        }

    straight, resumed = channels_last(0), channels_last(7)
    straight.update(0, *make_batch())
    output = Storage(str(tmp_path))
    write_checkpoint(output, take_snapshot(1, straight.student, straight.optimizer), keep=1)
    restore_snapshot(read_checkpoint(output, 1), resumed.student, resumed.optimizer)
    found = orders(resumed)
    assert found == orders(straight)
    assert any(len(strides) == 4 and strides[1] == 1 for strides in found.values()), "nothing is channels last"
