"""The student: preprocessing, scales, loss, learning rates, prediction."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.classes import ClassSet
from wsss_ray.config import StudentConfig
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.deeplab import DeepLabV2
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.spec import CAFFE, IGNORE, StudentSpec

CLASSES = ClassSet.from_names(["cat", "dog"])


def build(architecture: str = "deeplabv2-tiny", scales: tuple[float, ...] | None = None) -> StudentNetwork:
    torch.manual_seed(0)
    return build_student(StudentConfig(architecture=architecture, init="none", scales=scales), CLASSES, weights=None)


class Echo(nn.Module):
    """A network whose logits are its input, so that tests can inspect the input."""

    head = ("none.",)
    head_rate = 10.0

    def forward(self, images: Tensor) -> Tensor:
        return images

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


def echo(scales: tuple[float, ...], **preprocessing: object) -> StudentNetwork:
    spec = StudentSpec.of(CLASSES, architecture="echo", geometry=None, scales=scales)
    return StudentNetwork(
        dataclasses.replace(spec, preprocessing=dataclasses.replace(spec.preprocessing, **preprocessing)), Echo()
    )


def test_full_size_student_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = DeepLabV2("deeplabv2-resnet101", "caffe", 21)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in network.parameters())
    assert (round(trained / 1e6, 2), round(whole / 1e6, 2)) == (43.94, 44.05)
    assert [branch.dilation for branch in network.aspp.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert all(branch.weight.shape == (21, 2048, 3, 3) for branch in network.aspp.branches)


def test_classifier_starts_as_published() -> None:
    student = build("deeplabv2-resnet18")
    for branch in student.network.aspp.branches:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert abs(branch.weight.mean().item()) < 1e-3
        assert not branch.bias.any()


def test_classifier_sums_its_branches() -> None:
    network = DeepLabV2("deeplabv2-tiny", "caffe", 3)
    features = torch.randn(1, network.backbone.channels, 30, 30)
    expected = torch.zeros(1, 3, 30, 30)
    for branch, rate in zip(network.aspp.branches, (6, 12, 18, 24), strict=True):
        nn.init.normal_(branch.bias)
        expected += functional.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)
    assert torch.allclose(network.aspp(features), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["deeplabv2-resnet18", "deeplabv2-tiny"])
def test_every_trained_parameter_is_in_one_group(architecture: str) -> None:
    student = build(architecture)
    groups = {group["name"]: group for group in student.parameter_groups(1e-3, 5e-4)}
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    if architecture == "deeplabv2-tiny":  # nothing in it has learned before
        expected = {"base": (1e-3, 5e-4), "norm": (1e-3, 0.0), "head": (1e-3, 5e-4), "head_bias": (2e-3, 0.0)}
    else:
        expected = {"base": (1e-3, 5e-4), "head": (1e-2, 5e-4), "head_bias": (2e-2, 0.0)}
    assert rates == expected
    members = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(members) == sorted(id(value) for value in student.parameters() if value.requires_grad)
    assert [value.shape[0] for value in groups["head_bias"]["params"]] == [3] * 4
    assert [value.ndim for value in groups["head"]["params"]] == [4] * 4
    assert all(value.ndim == 4 for value in groups["base"]["params"])


def test_outputs_are_the_scales_and_their_maximum() -> None:
    student = echo((1.0, 0.75, 0.5), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images = torch.rand(2, 3, 21, 10) * 255
    full, three_quarters, half, highest = student(images)
    assert torch.equal(full, images)
    assert torch.equal(
        three_quarters, functional.interpolate(images, scale_factor=0.75, mode="bilinear", align_corners=False)
    )
    assert (three_quarters.shape[2:], half.shape[2:]) == ((15, 7), (10, 5))
    ups = [functional.interpolate(part, size=(21, 10), mode="bilinear") for part in (three_quarters, half)]
    assert torch.equal(highest, torch.stack([full, *ups]).amax(0))
    assert student.output_sizes(21, 10) == [tuple(part.shape[2:]) for part in (full, three_quarters, half, highest)]


def test_one_scale_is_one_output() -> None:
    student = echo((1.0,))
    assert len(student(torch.zeros(1, 3, 4, 4))) == len(student.output_sizes(4, 4)) == 1


def test_preprocessing_in_either_channel_order() -> None:
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    rgb = echo((1.0,), mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 3.0))(images)[0]
    assert rgb.flatten().tolist() == [9.0, 9.0, 9.0]
    bgr = echo((1.0,), mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), channel_order="bgr")(images)[0]
    assert bgr.flatten().tolist() == [27.0, 18.0, 9.0]
    caffe = echo((1.0,), **dataclasses.asdict(CAFFE))(images)[0]
    expected = [30 - 104.008, 20 - 116.669, 10 - 122.675]  # blue, green, red minus the published means
    assert caffe.flatten().tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [(321, 321), (97, 65), (513, 129), (41, 31)])
def test_targets_are_pillows_nearest(size: tuple[int, int]) -> None:
    student = build()
    labels = np.random.default_rng(0).integers(0, 3, (2, *size), dtype=np.uint8)
    targets = student.targets(torch.from_numpy(labels))
    assert len(targets) == 3
    for target, (height, width) in zip(targets, student.output_sizes(*size), strict=True):
        assert target.dtype == torch.int64
        expected = [
            np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)) for label in labels
        ]
        assert np.array_equal(target.numpy(), np.stack(expected))


def test_loss_is_the_hand_computed_cross_entropy() -> None:
    student = build(scales=(1.0, 0.5))
    torch.manual_seed(1)
    outputs = [torch.randn(2, 3, *size) for size in ((3, 2), (2, 1), (3, 2))]
    targets = [torch.randint(IGNORE, 3, (2, *output.shape[2:])) for output in outputs]
    expected = []
    for output, target in zip(outputs, targets, strict=True):
        total = 0.0
        for image in range(2):
            for row in range(output.shape[2]):
                for column in range(output.shape[3]):
                    truth = int(target[image, row, column])
                    scores = np.exp(output[image, :, row, column].double().numpy())
                    total -= 0.0 if truth == IGNORE else float(np.log(scores[truth] / scores.sum()))
        expected.append(total)
    assert any(bool((target == IGNORE).any()) for target in targets)
    assert student.loss_sums(outputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_ignored_pixels_is_no_nan() -> None:
    student = build()
    outputs = student(torch.rand(2, 3, 33, 40) * 255)
    sums = student.loss_sums(outputs, student.targets(torch.full((2, 33, 40), IGNORE)))
    assert sums.tolist() == [0.0] * 3
    sums.sum().backward()
    gradients = [value.grad for value in student.parameters() if value.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("architecture", ["deeplabv2-resnet18", "deeplabv2-tiny"])
def test_autocast_and_channels_last_train_the_same_student(architecture: str) -> None:
    images = (torch.rand(2, 3, 64, 48) * 255).to(torch.uint8)
    labels = torch.randint(IGNORE, 3, (2, 64, 48))
    losses = []
    for fast in (False, True):
        student = build(architecture)
        batch = images
        if fast:
            student, batch = student.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            outputs = student(batch)
            assert {output.dtype for output in outputs} == {torch.float32}
            sums = student.loss_sums(outputs, student.targets(labels))
        assert sums.dtype == torch.float32
        sums.sum().backward()
        assert all(value.grad.isfinite().all() for value in student.parameters() if value.requires_grad)
        losses.append(sums.detach())
    assert torch.allclose(losses[0], losses[1], rtol=0.05)
    assert not torch.equal(losses[0], losses[1])


def test_probabilities_have_the_images_own_sizes() -> None:
    student = build().eval()
    generator = np.random.default_rng(0)
    sizes = [(40, 31), (1, 1), (40, 31), (3, 70)]
    images = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    found = student.predict(images)
    assert [tuple(value.shape) for value in found] == [(3, *size) for size in sizes]
    assert all(torch.allclose(value.sum(0), torch.ones(())) and value.dtype == torch.float32 for value in found)
    alone = student.predict([images[2]])[0]
    assert torch.allclose(found[2], alone, atol=1e-6)
    assert not torch.allclose(found[0], alone, atol=1e-3)
    with torch.no_grad():
        logits = student(torch.from_numpy(images[3]).permute(2, 0, 1)[None])[-1]
    expected = functional.interpolate(logits, size=(3, 70), mode="bilinear").softmax(1)[0]
    assert torch.allclose(found[3], expected, atol=1e-6)


def test_flip_averages_with_the_mirrored_image() -> None:
    student = build().eval()
    image = np.random.default_rng(0).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    plain, mirrored = student.predict([image])[0], student.predict([image[:, ::-1].copy()])[0]
    expected = (plain + mirrored.flip(2)) / 2
    assert torch.allclose(student.predict([image], flip=True)[0], expected, atol=1e-6)
    assert not torch.allclose(plain, expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_predict_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="image 0 is uint8 of shape"):
        build().eval().predict([np.zeros(shape, np.uint8)])
