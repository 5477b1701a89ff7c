"""Strides, dilations and sizes of the student's ResNets, against torchvision's and a table written by hand."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from wsss_ray.config.student import Geometry
from wsss_ray.models.student.backbone import FORMS, Backbone, FrozenBatchNorm, ResNetForm
from wsss_ray.models.student.deeplab import DeepLabV2

BLOCKS = {"resnet101": (3, 4, 23, 3), "resnet50": (3, 4, 6, 3), "resnet18": (2, 2, 2, 2), "tiny": (1, 1, 1, 1)}
# dilation of the first block of each stage, and of the others
DILATIONS = {"caffe": ((1, 1, 2, 4), (1, 1, 2, 4)), "torchvision": ((1, 1, 1, 2), (1, 1, 2, 4))}


def build(name: str, geometry: Geometry) -> Backbone:
    with torch.device("meta"):
        return Backbone(FORMS[name], geometry)


@pytest.mark.parametrize("geometry", ["caffe", "torchvision"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_has_the_stride_and_dilation_of_its_geometry(name: str, geometry: Geometry) -> None:
    backbone = build(name, geometry)
    assert backbone.conv1.stride == (2, 2)
    assert (backbone.maxpool.kernel_size, backbone.maxpool.stride, backbone.maxpool.padding) == (3, 2, 1)
    assert backbone.maxpool.ceil_mode == (geometry == "caffe")
    bottleneck = name in ("resnet101", "resnet50")
    for stage, count in enumerate(BLOCKS[name]):
        layer = backbone.get_submodule(f"layer{stage + 1}")
        assert isinstance(layer, nn.Sequential)
        assert len(layer) == count
        for index, block in enumerate(layer):
            dilation = DILATIONS[geometry][index > 0][stage]
            convolutions = [getattr(block, f"conv{place}") for place in range(1, 4 if bottleneck else 3)]
            strides = [convolution.stride for convolution in convolutions]
            halves = stage == 1 and index == 0  # the only stage that halves, at output stride 8
            first, second = ((2, 2), (1, 1)) if halves else ((1, 1), (1, 1))
            if bottleneck and geometry == "torchvision":
                first, second = second, first
            assert strides == [first, second, (1, 1)][: len(strides)]
            for convolution in convolutions:
                if convolution.kernel_size == (3, 3):
                    assert convolution.dilation == convolution.padding == (dilation, dilation)
                else:
                    assert (convolution.dilation, convolution.padding) == ((1, 1), (0, 0))
            if index == 0 and block.downsample is not None:
                assert block.downsample[0].stride == ((2, 2) if halves else (1, 1))
            assert (block.downsample is not None) == (index == 0 and (stage > 0 or bottleneck))


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_torchvision_geometry_computes_what_torchvision_computes(name: str) -> None:
    """Up to layer2 for the basic block, whose dilation torchvision does not know."""
    torch.manual_seed(0)
    dilated = [False, True, True] if name == "resnet50" else None
    theirs = torchvision.models.get_model(name, weights=None, replace_stride_with_dilation=dilated).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    ours = Backbone(FORMS[name], "torchvision")
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(state, strict=True)
    last = "layer4" if name == "resnet50" else "layer2"
    found: dict[str, Tensor] = {}
    for key, network in (("theirs", theirs), ("ours", ours)):
        network.get_submodule(last).register_forward_hook(
            lambda _module, _inputs, output, key=key: found.__setitem__(key, output)
        )
    images = torch.randn(2, 3, 65, 50)
    with torch.no_grad():
        theirs(images)
        ours(images)
    assert torch.equal(found["ours"], found["theirs"])


@pytest.mark.parametrize("geometry", ["caffe", "torchvision"])
@pytest.mark.parametrize(("height", "width"), [(321, 321), (240, 160), (1, 2), (8, 9), (16, 17), (24, 25), (33, 31)])
def test_output_size_is_the_size_of_the_output(geometry: Geometry, height: int, width: int) -> None:
    network = DeepLabV2("deeplabv2-tiny", geometry, 3)
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, height, width))
    assert logits.shape == (1, 3, *network.output_size(height, width))


def test_output_sizes_of_the_published_crop() -> None:
    assert [build("resnet18", "caffe").output_size(side, side)[0] for side in (321, 240, 160)] == [41, 31, 21]
    assert [build("resnet18", "torchvision").output_size(side, side)[0] for side in (321, 240, 160)] == [41, 30, 20]


def test_frozen_batch_norm_never_learns() -> None:
    norm = FrozenBatchNorm(2)
    norm.running_mean = torch.tensor([1.0, -1.0])
    norm.running_var = torch.tensor([4.0, 1.0])
    parent = nn.Sequential(norm).train()
    assert not norm.training
    values = torch.full((3, 2, 4, 4), 5.0)
    output = parent(values)
    assert torch.allclose(output[:, 0], torch.tensor(2.0), atol=1e-4)  # (5 - 1) / 2
    assert torch.allclose(output[:, 1], torch.tensor(6.0), atol=1e-4)
    assert norm.running_mean.tolist() == [1.0, -1.0]
    assert not any(parameter.requires_grad for parameter in norm.parameters())


def test_features_of_a_deep_random_network_stay_in_range() -> None:
    torch.manual_seed(0)
    deep = ResNetForm(block=Bottleneck, blocks=(3, 4, 23, 3), width=8)
    with torch.no_grad():
        features = Backbone(deep, "caffe")(torch.randn(1, 3, 64, 64))
    assert 0.1 < features.std().item() < 10


def test_tiny_normalises_each_image_alone() -> None:
    """So that a batch split over workers trains as a whole one."""
    torch.manual_seed(0)
    network = DeepLabV2("deeplabv2-tiny", "caffe", 3).train()
    images = torch.randn(2, 3, 40, 48)
    with torch.no_grad():
        assert torch.allclose(network(images)[1:], network(images[1:]), atol=1e-5)
