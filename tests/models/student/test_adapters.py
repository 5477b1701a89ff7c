"""torchvision's and transformers' segmentation networks as students."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import get_model
from transformers import (
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from wsss_ray.classes import ClassSet
from wsss_ray.config import StudentConfig
from wsss_ray.models.student.adapters import build_adapter, torchvision_classes_fit
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.files import decode_student, encode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.sources import weights_source
from wsss_ray.models.student.spec import IMAGENET

ANIMALS = ClassSet.from_names(["cat", "dog"])
MOBILE = "torchvision:lraspp_mobilenet_v3_large"
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small SegFormer of the classes background, cat and dog."""
    torch.manual_seed(0)
    settings = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label={0: "background", 1: "cat", 2: "dog"},
    )
    directory = tmp_path_factory.mktemp("segformer")
    SegformerForSemanticSegmentation(settings).save_pretrained(directory)
    processor = {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def pretrained(directory: Path, class_set: ClassSet = ANIMALS) -> StudentNetwork:
    config = StudentConfig(architecture=f"transformers:{directory}", init="pretrained")
    source = weights_source(config)
    assert source is not None
    assert (source.kind, source.uri) == ("directory", str(directory))
    return build_student(config, class_set, weights=directory)


def check_that_it_trains_and_comes_back(student: StudentNetwork) -> None:
    images = (torch.rand(2, 3, 64, 48) * 255).to(torch.uint8)
    outputs = student.train()(images)
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 64, 48)]
    targets = student.targets(torch.randint(-1, 3, (2, 64, 48)))
    groups = {group["name"]: group for group in student.parameter_groups(1.0, 0.1)}
    assert groups.keys() >= {"base", "norm", "head"}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(student.parameters()))
    student.loss_sums(outputs, targets).sum().backward()
    assert all(value.grad is not None for group in groups.values() for value in group["params"])
    decoded = decode_student(encode_student(student))
    assert decoded.spec == student.spec
    assert torch.equal(decoded.predict([PICTURE])[0], student.eval().predict([PICTURE])[0])


def test_a_torchvision_student(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = get_model("mobilenet_v3_large", weights=None)
    torch.save(classifier.state_dict(), tmp_path / "mobile.pth")
    config = StudentConfig(architecture=MOBILE, init="imagenet", weights=str(tmp_path / "mobile.pth"))
    student = build_student(config, ANIMALS, weights=tmp_path / "mobile.pth")
    state = student.network.state_dict()
    assert torch.equal(state["model.backbone.0.0.weight"], classifier.state_dict()["features.0.0.weight"])
    check_that_it_trains_and_comes_back(student)


def test_training_does_not_depend_on_who_shares_the_batch() -> None:
    torch.manual_seed(0)
    student = build_student(StudentConfig(architecture=MOBILE, init="none"), ANIMALS, weights=None).train()
    images = torch.rand(2, 3, 64, 48) * 255
    together = student(images)[0]
    torch.testing.assert_close(torch.cat([student(image[None])[0] for image in images]), together)


def test_torchvisions_published_head_serves_voc(tmp_path: Path) -> None:
    """And is new for other classes, even for as many of them."""
    torch.manual_seed(0)
    model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21)
    path = tmp_path / "coco.pth"
    torch.save(model.state_dict(), path)
    config = StudentConfig(architecture=MOBILE, init="pretrained", weights=str(path))
    others = ClassSet.from_names([f"class {number}" for number in range(20)])
    name = "classifier.high_classifier.weight"
    for class_set, kept in ((ClassSet.load("voc"), True), (others, False)):
        assert torchvision_classes_fit(class_set) == kept
        state = build_student(config, class_set, weights=path).network.state_dict()
        assert torch.equal(state["model.classifier.cbr.0.weight"], model.state_dict()["classifier.cbr.0.weight"])
        assert torch.equal(state[f"model.{name}"], model.state_dict()[name]) == kept


def test_a_transformers_student(segformer: Path) -> None:
    student = pretrained(segformer)
    assert student.spec.preprocessing.mean == pytest.approx((127.5, 102.0, 76.5))
    assert student.spec.preprocessing.std == pytest.approx((51.0,) * 3)
    check_that_it_trains_and_comes_back(student)


def test_a_student_with_an_auxiliary_head_goes_without(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=stages)
    settings = UperNetConfig(backbone_config=backbone, hidden_size=8, auxiliary_channels=8, num_labels=5)
    model = UperNetForSemanticSegmentation(settings)
    assert model.auxiliary_head is not None
    model.save_pretrained(tmp_path)
    student = pretrained(tmp_path)
    assert not any("auxiliary" in name for name in student.network.state_dict())
    name = "decode_head.bottleneck.conv.weight"
    assert torch.equal(student.network.state_dict()[f"model.{name}"], model.state_dict()[name])
    check_that_it_trains_and_comes_back(student)


def test_a_transformers_student_computes_what_the_model_does(segformer: Path) -> None:
    model = SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    student = pretrained(segformer).eval()
    images = torch.rand(1, 3, 64, 48) * 255
    pixels = (images / 255 - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / 0.2
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(model(pixels).logits, size=(64, 48), mode="bilinear")
        assert torch.allclose(student(images)[0], expected, atol=1e-5)


def test_a_transformers_head_is_new_for_other_classes(segformer: Path) -> None:
    former = pretrained(segformer).network.state_dict()
    state = pretrained(segformer, ClassSet.from_names(["cat", "cow"])).network.state_dict()
    changed = {name for name in state if not torch.equal(state[name], former[name])}
    assert changed == {"model.decode_head.classifier.weight"}  # the bias starts at zero in both


def test_a_file_does_not_say_where_it_came_from(segformer: Path) -> None:
    settings = pretrained(segformer).spec.settings
    assert settings is not None
    assert str(segformer) not in settings
    assert json.loads(settings)["model_type"] == "segformer"


def test_a_file_cannot_make_the_library_fetch_code_or_weights(segformer: Path) -> None:
    student = pretrained(segformer)
    assert student.spec.settings is not None
    forged = json.loads(student.spec.settings) | {
        "auto_map": {"AutoModelForSemanticSegmentation": "someone/evil--model.Model"},
        "attn_implementation": "someone/evil",
        "_attn_implementation": "someone/evil",
        "backbone_config": {"model_type": "resnet", "use_pretrained_backbone": True, "_commit_hash": "0"},
    }
    spec = dataclasses.replace(student.spec, settings=json.dumps(forged))
    config = build_adapter(spec).model.config
    assert config._attn_implementation in ("eager", "sdpa")
    assert not hasattr(config, "auto_map")
    assert config.backbone_config == {"model_type": "resnet"}


def test_random_transformers_student(segformer: Path) -> None:
    """From the directory's configuration alone, without its weights or processor."""
    config = StudentConfig(architecture=f"transformers:{segformer}", init="none")
    student = build_student(config, ANIMALS, weights=segformer)
    former = pretrained(segformer).network.state_dict()
    name = "model.decode_head.linear_fuse.weight"
    assert not torch.equal(student.network.state_dict()[name], former[name])


def test_an_encoder_alone_starts_a_student(segformer: Path, tmp_path: Path) -> None:
    """As an ImageNet classifier does; a backbone with holes does not."""
    state = load_file(segformer / "model.safetensors")
    (tmp_path / "config.json").write_bytes((segformer / "config.json").read_bytes())
    encoder = {name: value for name, value in state.items() if name.startswith("segformer.")}
    save_file(encoder, tmp_path / "model.safetensors", metadata={"format": "pt"})
    former, found = pretrained(segformer).network.state_dict(), pretrained(tmp_path).network.state_dict()
    assert all(torch.equal(value, former[name]) for name, value in found.items() if name.startswith("model.segformer."))
    encoder.popitem()
    save_file(encoder, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors of the backbone"):
        pretrained(tmp_path)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks config\.json"):
        pretrained(tmp_path)


def test_preprocessing_is_imagenets_without_a_processor(segformer: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((segformer / name).read_bytes())
    assert pretrained(tmp_path).spec.preprocessing == IMAGENET
