"""Translate the tensor names of the published Caffe-style DeepLab checkpoints (in the form of deeplab-pytorch).

In those: `layer1` is the stem, `layer2` to `layer5` the stages, `block1` the first block, a bottleneck is `reduce`,
`conv3x3`, `increase` and `shortcut`, each with `conv` and `bn`; `aspp.c0` to `aspp.c3`, or `fc` (DeepLab-v1), is the
classifier. In files of training with several scales, every name begins with `base.`. Only DeepLab-v1's classifier is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from wsss_ray.errors import CheckpointError

_BLOCK = re.compile(r"layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut)\.(conv|bn)\.(\w+)")
_STEM = re.compile(r"layer1\.conv1\.(conv|bn)\.(\w+)")
_BRANCH = re.compile(r"aspp\.c([0-3])\.(weight|bias)")
_FC = re.compile(r"fc\.(weight|bias)")
_PARTS = {"reduce": "1", "conv3x3": "2", "increase": "3"}


def from_caffe_names(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the same tensors by the names of `deeplab.DeepLabV2`; DeepLab-v1's classifier is left out.

    Args:
        state: tensors by their names in the file.
        where: the file, for messages.

    Raises:
        CheckpointError: a name has another form.
    """
    renamed = {}
    for name, tensor in state.items():
        plain = name.removeprefix("base.")
        if _FC.fullmatch(plain):
            continue
        renamed[_rename(plain, where)] = tensor
    return renamed


def _rename(name: str, where: str) -> str:
    if found := _BLOCK.fullmatch(name):
        layer, block, part, kind, leaf = found.groups()
        prefix = f"backbone.layer{int(layer) - 1}.{int(block) - 1}"
        if part == "shortcut":
            return f"{prefix}.downsample.{0 if kind == 'conv' else 1}.{leaf}"
        return f"{prefix}.{kind}{_PARTS[part]}.{leaf}"
    if found := _STEM.fullmatch(name):
        return f"backbone.{found[1]}1.{found[2]}"
    if found := _BRANCH.fullmatch(name):
        return f"aspp.branches.{found[1]}.{found[2]}"
    raise CheckpointError(
        f"{where} has `{name}`, which is not a name of a Caffe-style DeepLab (layer2.block1.reduce.conv.weight, ...). "
        "For torchvision's names use init: imagenet, for students of this package init: checkpoint."
    )
