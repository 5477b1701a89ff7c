"""Swin's layers with the attention of a GPU against those of transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import SwinConfig
from transformers.models.swin.modeling_swin import SwinLayer

from wsss_ray.models.fast.swin_device import WindowAttention, use_device_windows


def layer(shift: int) -> SwinLayer:
    torch.manual_seed(0)
    config = SwinConfig(embed_dim=32, window_size=4, num_heads=[4], drop_path_rate=0.0)
    made = SwinLayer(config, 32, (9, 14), 4, shift_size=shift)
    for parameter in made.parameters():
        parameter.detach().normal_(0, 0.3)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(8, 12), (9, 14), (5, 5)])
@pytest.mark.parametrize("shift", [0, 2])
def test_windows_attend_as_by_transformers(shift: int, size: tuple[int, int]) -> None:
    """Sizes that are multiples of the window and that are padded, for two images, twice: the mask is kept."""
    stock, ours = layer(shift), nn.ModuleList([layer(shift)])
    use_device_windows(ours)
    assert isinstance(ours[0].attention, WindowAttention)
    for seed in range(2):
        torch.manual_seed(seed)
        hidden = torch.randn(2, size[0] * size[1], 32)
        expected, _ = stock(hidden, size)
        found, _ = ours[0](hidden, size)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    without = layer(0)(hidden, size)[0]
    assert torch.equal(without, expected) == (shift == 0), "the shift must matter"
