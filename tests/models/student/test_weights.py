"""Initial weights of a student: ImageNet, Caffe, a checkpoint, random; and refused weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from caffe_deeplab import caffe_deeplab
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.resnet import Bottleneck

from wsss_ray.classes import ClassSet
from wsss_ray.config import StudentConfig
from wsss_ray.models.student.backbone import FORMS, ResNetForm
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.caffe_weights import from_caffe_names
from wsss_ray.models.student.deeplab import DeepLabV2
from wsss_ray.models.student.files import encode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.sources import weights_source
from wsss_ray.models.student.spec import CAFFE, IMAGENET

ANIMALS = ClassSet.from_names(["cat", "dog"])
OTHERS = ClassSet.from_names(["cat", "cow"])
MORE = ClassSet.from_names(["cat", "dog", "cow"])
NARROW = ResNetForm(block=Bottleneck, blocks=(2, 3, 4, 2), width=8)
RESNET_18 = StudentConfig(architecture="deeplabv2-resnet18", init="imagenet")
TINY = StudentConfig(architecture="deeplabv2-tiny", init="none")


@pytest.fixture
def caffe(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Sequential:
    """A network of the published form with 4 classes; ResNet-50 is made as narrow and shallow for the test."""
    monkeypatch.setitem(FORMS, "resnet50", NARROW)
    torch.manual_seed(0)
    return caffe_deeplab(NARROW.blocks, width=NARROW.width, classes=4)


def config(architecture: str, init: str, weights: Path, **fields: object) -> StudentConfig:
    return StudentConfig(architecture=architecture, init=init, weights=str(weights), **fields)


def start(made: StudentConfig, class_set: ClassSet = ANIMALS) -> StudentNetwork:
    return build_student(made, class_set, weights=None if made.weights is None else Path(made.weights))


@pytest.mark.parametrize("prefix", ["", "base."])
def test_caffe_names_carry_the_whole_network_over(caffe: torch.nn.Sequential, prefix: str) -> None:
    """Features and logits are the same numbers, whichever module computes them."""
    state = {f"{prefix}{name}": value for name, value in caffe.state_dict().items()}
    network = DeepLabV2("deeplabv2-resnet50", "caffe", 4).eval()
    network.load_state_dict(from_caffe_names(state, "file"), strict=True)
    images = torch.randn(1, 3, 70, 49) * 50
    with torch.no_grad():
        expected = images
        for layer in (caffe.layer1, caffe.layer2, caffe.layer3, caffe.layer4, caffe.layer5):
            expected = layer(expected)
        features = network.backbone(images)
        assert torch.equal(features, expected)
        assert features.abs().mean() > 0.01
        assert torch.allclose(network.aspp(features), caffe.aspp(expected), atol=1e-4)


def test_a_caffe_checkpoint_starts_a_student_of_other_classes(caffe: torch.nn.Sequential, tmp_path: Path) -> None:
    """As published: without counters of batches, with the classifier of DeepLab-v1, read as tensors alone."""
    state = {name: value for name, value in caffe.state_dict().items() if not name.endswith("num_batches_tracked")}
    state = {name: value for name, value in state.items() if not name.startswith("aspp.")}
    state |= {"fc.weight": torch.zeros(91, 256, 1, 1), "fc.bias": torch.zeros(91)}
    torch.save(state, tmp_path / "coco.pth")
    student = start(config("deeplabv2-resnet50", "caffe", tmp_path / "coco.pth"))
    assert (student.spec.geometry, student.spec.preprocessing) == ("caffe", CAFFE)
    block = student.network.backbone.layer3[1]
    assert torch.equal(block.conv2.weight, caffe.layer4.block2.conv3x3.conv.weight)
    assert torch.equal(block.bn3.running_var, caffe.layer4.block2.increase.bn.running_var)
    assert not block.bn3.weight.requires_grad
    assert student.network.aspp.branches[0].weight.shape == (3, 256, 3, 3)


def test_imagenet_weights_fill_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    student = start(config("deeplabv2-resnet18", "imagenet", tmp_path / "resnet18.pth"))
    assert (student.spec.geometry, student.spec.preprocessing) == ("torchvision", IMAGENET)
    expected = classifier.state_dict()
    backbone = student.network.backbone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.items())
    assert set(expected) - set(backbone) == {"fc.weight", "fc.bias"}


def test_geometry_can_be_overruled() -> None:
    assert start(TINY).network.backbone.geometry == "torchvision"
    student = start(StudentConfig(architecture="deeplabv2-tiny", init="none", geometry="caffe"))
    assert student.spec.geometry == student.network.backbone.geometry == "caffe"
    assert start(StudentConfig(architecture="deeplabv2-resnet18", init="none")).spec.geometry == "caffe"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[ClassSet], tuple[Path, dict[str, Tensor]]]:
    def write(class_set: ClassSet) -> tuple[Path, dict[str, Tensor]]:
        torch.manual_seed(5)
        student = build_student(TINY, class_set, weights=None)
        path = tmp_path / "student.safetensors"
        path.write_bytes(encode_student(student))
        return path, student.network.state_dict()

    return write


@pytest.mark.parametrize(("class_set", "kept"), [(ANIMALS, True), (OTHERS, False), (MORE, False)])
def test_a_checkpoint_keeps_its_head_for_the_same_classes(
    checkpoint: Callable[[ClassSet], tuple[Path, dict[str, Tensor]]], class_set: ClassSet, kept: bool
) -> None:
    path, expected = checkpoint(ANIMALS)
    torch.manual_seed(6)
    student = start(config("deeplabv2-tiny", "checkpoint", path, scales=(1.0, 0.75)), class_set)
    state = student.network.state_dict()
    assert state.keys() == expected.keys()
    same = {
        name for name in state if state[name].shape == expected[name].shape and torch.equal(state[name], expected[name])
    }
    assert same >= {name for name in state if not name.startswith("aspp.")}
    assert ("aspp.branches.0.weight" in same) == kept
    assert student.spec.class_names == ("background", *class_set.names)
    assert (student.spec.scales, student.spec.geometry) == ((1.0, 0.75), "torchvision")
    assert student.network.aspp.branches[0].weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_nothing_is_fetched_to_start_from_nothing() -> None:
    assert weights_source(TINY) is None


@pytest.mark.parametrize(
    ("fields", "uri", "digits"),
    [
        ({}, "https://download.pytorch.org/models/resnet101-63fe2227.pth", "63fe2227"),
        ({"weights": "IMAGENET1K_V2"}, "https://download.pytorch.org/models/resnet101-cd907fc2.pth", "cd907fc2"),
        ({"weights": "s3://b/r.pth", "sha256": "ab" * 32}, "s3://b/r.pth", "ab" * 32),
        (
            {"architecture": "torchvision:deeplabv3_resnet50"},
            "https://download.pytorch.org/models/resnet50-0676ba61.pth",
            "0676ba61",
        ),
        (
            {"architecture": "torchvision:lraspp_mobilenet_v3_large", "init": "pretrained"},
            "https://download.pytorch.org/models/lraspp_mobilenet_v3_large-d234d4ea.pth",
            "d234d4ea",
        ),
    ],
)
def test_torchvisions_weights_by_name(fields: dict[str, str], uri: str, digits: str) -> None:
    source = weights_source(StudentConfig(**({"init": "imagenet"} | fields)))
    assert source is not None
    assert (source.kind, source.uri, source.sha256) == ("file", uri, digits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "IMAGENET1K_V7"}, "no weights 'IMAGENET1K_V7' of resnet101: choose one of IMAGENET1K_V1"),
        ({"architecture": "torchvision:unet"}, "no segmentation model 'unet': choose one of deeplabv3"),
        ({"architecture": "transformers:nvidia/mit-b0", "init": "none"}, "needs student.revision"),
        ({"architecture": "transformers:no such place", "init": "none"}, "nor a hub id"),
    ],
)
def test_weights_that_do_not_exist_are_named(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights_source(StudentConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "deeplabv3"}, "architecture is 'deeplabv3': it must be one of deeplabv2-resnet101"),
        ({"architecture": "torchvision:"}, "architecture is"),
        ({"architecture": "deeplabv2-tiny"}, "init is 'imagenet': deeplabv2-tiny takes none, checkpoint"),
        ({"init": "caffe"}, "init caffe needs a file or URI"),
        ({"init": "none", "weights": "a.pth"}, "init is none, which takes no weights"),
        ({"scales": (0.5, 1.0)}, "the first of them 1"),
        ({"scales": (1.0, 0.5, 0.5)}, "different scales"),
        ({"scales": (1.0, 9.0)}, "from 0.1 to 2"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"revision": "main"}, "40 hexadecimal digits"),
        ({"architecture": "torchvision:fcn_resnet50", "geometry": "caffe"}, "only DeepLab-v2 has one"),
    ],
)
def test_configurations_that_contradict_themselves(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudentConfig(**fields)


def test_weights_of_another_network_are_refused(
    checkpoint: Callable[[ClassSet], tuple[Path, dict[str, Tensor]]], tmp_path: Path
) -> None:
    path, _ = checkpoint(ANIMALS)
    with pytest.raises(ValueError, match="holds a deeplabv2-tiny, not a deeplabv2-resnet18"):
        start(config("deeplabv2-resnet18", "checkpoint", path))
    save_file({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"other.safetensors does not fit the student .*99 missing \(backbone.conv1.weight"
    ):
        start(config("deeplabv2-resnet18", "imagenet", tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match=r"has `layer1.0.conv1.weight`, which is not a name of a Caffe-style DeepLab"):
        start(config("deeplabv2-resnet50", "caffe", tmp_path / "other.safetensors"))


def test_an_old_torch_reads_pickles_only_by_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(ValueError, match=r"resnet18\.pth is refused: in torch 2\.9\.1 .*student\.sha256"):
        start(config("deeplabv2-resnet18", "imagenet", path))
    start(config("deeplabv2-resnet18", "imagenet", path, sha256="0" * 64))  # who fetches it holds it against this


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights for the student at .*gone\.pth"):
        start(config("deeplabv2-resnet18", "imagenet", tmp_path / "gone.pth"))
    with pytest.raises(ValueError, match="init imagenet needs weights"):
        build_student(RESNET_18, ANIMALS, weights=None)
