"""DenseCRF against dense computations of O(N^2), and against pydensecrf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lattice_by_hand import lattice_matrix
from PIL import Image

from wsss_ray.config.predict import CrfConfig
from wsss_ray.models.crf.crf import dense_crf

HEIGHT, WIDTH = 12, 10
SETTINGS = CrfConfig(xy_width=5, rgb_width=20, prune=0)


def small_case(classes: int = 3) -> tuple[np.ndarray, torch.Tensor]:
    """Two noisy halves of different colours, and probabilities that only roughly know which is which."""
    random = np.random.default_rng(3)
    image = random.normal((60, 90, 120), 12, (HEIGHT, WIDTH, 3))
    image[:, WIDTH // 2 :] += (100, 20, -40)
    scores = random.normal(0, 0.8, (classes, HEIGHT, WIDTH))
    scores[0, :, : WIDTH // 2] += 0.7
    scores[1, :, WIDTH // 2 :] += 0.7
    return image.clip(0, 255).astype(np.uint8), torch.softmax(torch.from_numpy(scores).float(), 0)


def features_of(image: np.ndarray, settings: CrfConfig) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    places = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64)
    colours = image.reshape(-1, 3) / settings.rgb_width
    return places / settings.position_width, np.hstack([places / settings.xy_width, colours])


def gaussian_matrix(features: np.ndarray) -> np.ndarray:
    distances = ((features[:, None] - features[None]) ** 2).sum(-1)
    return np.exp(-distances / 2)


def mean_field(image: np.ndarray, probabilities: torch.Tensor, settings: CrfConfig, kernel_of) -> np.ndarray:
    """The mean field in float64 with whole N x N kernels."""
    unary = np.log(probabilities.double().numpy().reshape(len(probabilities), -1).clip(1e-5, 1))
    kernels = []
    weights = (settings.position_weight, settings.bilateral_weight)
    for weight, features in zip(weights, features_of(image, settings), strict=True):
        kernel = kernel_of(features)
        norm = 1 / np.sqrt(kernel.sum(1))
        kernels.append(weight * norm[:, None] * kernel * norm)
    beliefs = np.exp(unary) / np.exp(unary).sum(0)
    for _ in range(settings.iterations):
        energy = unary + sum(beliefs @ kernel.T for kernel in kernels)
        beliefs = np.exp(energy - energy.max(0))
        beliefs /= beliefs.sum(0)
    return beliefs.reshape(probabilities.shape)


@pytest.mark.parametrize("iterations", [1, 10])
def test_it_is_the_mean_field_over_the_whole_matrix_of_the_lattice(iterations: int) -> None:
    image, probabilities = small_case()
    settings = replace(SETTINGS, iterations=iterations)
    found = dense_crf(image, probabilities, settings).numpy()
    np.testing.assert_allclose(found, mean_field(image, probabilities, settings, lattice_matrix), atol=2e-4)


def test_it_comes_near_the_mean_field_with_exact_gaussians() -> None:
    image, probabilities = small_case()
    exact = mean_field(image, probabilities, SETTINGS, gaussian_matrix)
    found = dense_crf(image, probabilities, SETTINGS).numpy()
    assert np.abs(found - exact).mean() < 0.03
    assert (found.argmax(0) == exact.argmax(0)).mean() >= 0.97
    before = (probabilities.numpy().argmax(0) == exact.argmax(0)).mean()
    assert before < 0.9, "the case leaves something to do"


def test_outlines_follow_the_colours_of_the_picture() -> None:
    image, probabilities = small_case(classes=2)
    truth = np.zeros((HEIGHT, WIDTH), int)
    truth[:, WIDTH // 2 :] = 1
    assert (probabilities.argmax(0).numpy() == truth).mean() < 0.9
    assert (dense_crf(image, probabilities, SETTINGS).argmax(0).numpy() == truth).all()
    grey = np.full_like(image, 128)
    assert not (dense_crf(grey, probabilities, SETTINGS).argmax(0).numpy() == truth).all()


def real_case(shared: Path) -> tuple[np.ndarray, torch.Tensor]:
    """A photo, and smooth probabilities of 21 classes of which six are likely somewhere."""
    folder = shared / "data" / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages"
    image = np.array(Image.open(sorted(folder.glob("*.jpg"))[0]).convert("RGB").resize((160, 120)))
    coarse = torch.randn(1, 21, 6, 8, generator=torch.Generator().manual_seed(1)) * 2
    coarse[:, 6:] -= 9
    scores = torch.nn.functional.interpolate(coarse, image.shape[:2], mode="bilinear")
    return image, torch.softmax(scores, 1)[0]


def test_classes_left_out_are_zero_and_change_almost_no_label(shared: Path) -> None:
    image, probabilities = real_case(shared)
    all_classes = dense_crf(image, probabilities, CrfConfig(prune=0))
    fewer = dense_crf(image, probabilities, CrfConfig())
    left_out = probabilities.amax((1, 2)) < CrfConfig().prune
    assert left_out.sum() >= 5
    assert (fewer[left_out] == 0).all()
    assert all_classes[left_out].max() < 2 * CrfConfig().prune, "they would not have grown"
    assert (fewer.argmax(0) == all_classes.argmax(0)).float().mean() >= 0.999
    torch.testing.assert_close(fewer.sum(0), torch.ones(image.shape[:2]))


def test_the_likeliest_class_stays_whatever_the_threshold() -> None:
    image, _ = small_case()
    even = torch.full((200, HEIGHT, WIDTH), 1 / 200)
    even[7] += 0.001
    found = dense_crf(image, even, replace(SETTINGS, prune=0.5))
    assert (found[7] == 1).all()
    assert found.sum() == HEIGHT * WIDTH


def test_a_kernel_without_weight_is_off() -> None:
    image, probabilities = small_case()
    nothing = replace(SETTINGS, position_weight=0, bilateral_weight=0)
    torch.testing.assert_close(dense_crf(image, probabilities, nothing), probabilities)


def test_what_does_not_belong_together_is_refused() -> None:
    image, probabilities = small_case()
    with pytest.raises(ValueError, match="do not belong to an image"):
        dense_crf(image, probabilities.transpose(1, 2), SETTINGS)
    with pytest.raises(ValueError, match="uint8 RGB"):
        dense_crf(image.astype(np.float32), probabilities, SETTINGS)
    with pytest.raises(ValueError, match="larger widths"):
        dense_crf(image, probabilities, replace(SETTINGS, xy_width=1e-7, rgb_width=1e-7))


def test_it_is_the_published_code_s(shared: Path) -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pip install pydensecrf2 to compare with it")
    image, probabilities = real_case(shared)
    height, width = image.shape[:2]
    reference = densecrf.DenseCRF2D(width, height, 21)
    unary = -np.log(probabilities.numpy().reshape(21, -1).clip(1e-5, 1))
    reference.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    reference.addPairwiseGaussian(sxy=1, compat=3)
    reference.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(image), compat=4)
    published = np.array(reference.inference(10)).reshape(21, height, width)
    found = dense_crf(image, probabilities, CrfConfig(prune=0)).numpy()
    # A vertex that rounding moves to a point's simplex or not lets a few pixels differ more than rounding would.
    assert np.abs(found - published).mean() < 1e-6
    assert (found.argmax(0) == published.argmax(0)).mean() >= 0.9999
