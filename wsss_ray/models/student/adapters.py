"""Segmentation networks of torchvision and transformers as students: wrappers with logits at the image's size.

transformers is imported where it is used: this takes seconds, and a DeepLab does not need it.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from wsss_ray.classes import ClassSet, UnknownTagError
from wsss_ray.errors import CheckpointError
from wsss_ray.models.student.sources import segmentation_name
from wsss_ray.models.student.spec import Preprocessing, StudentSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TORCHVISION_CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Classes of all of torchvision's published segmentation weights, after the background."""


_NOT_THE_NETWORK = {
    *("architectures", "auto_map", "id2label", "label2id", "transformers_version", "dtype", "torch_dtype"),
    *("attn_implementation", "quantization_config", "backbone", "use_pretrained_backbone", "backbone_kwargs"),
}
"""Keys of a transformers configuration that name classes, versions, code, kernels or other weights."""


class Adapter(nn.Module, ABC):
    """A library's network; normalized images (N, 3, H, W) to logits (N, C, H, W) float32."""

    head_rate = 10.0
    """The backbone is pretrained, so the head learns faster."""

    def __init__(self, model: nn.Module, head: tuple[str, ...]) -> None:
        """Wrap a model; `head` has the names of its children that form the classifier."""
        super().__init__()
        self.model = model
        self.head = tuple(f"model.{name}." for name in head)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, C, H, W) of normalized images (N, 3, H, W)."""
        logits = self.logits(images).float()
        return functional.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)

    def train(self, mode: bool = True) -> Adapter:
        """Set training mode, but keep the loaded statistics of batch normalization: workers share a batch."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits at the network's own resolution."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the image's size."""
        return height, width


class TorchvisionNetwork(Adapter):
    """A model of torchvision.models.segmentation, without its auxiliary classifier."""

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits at the network's own resolution."""
        return self.model(images)["out"]


class TransformersNetwork(Adapter):
    """A model that AutoModelForSemanticSegmentation builds; all but the backbone is the classifier."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a model of the library."""
        backbones = (model.base_model_prefix, "backbone")
        super().__init__(model, tuple(name for name, _ in model.named_children() if name not in backbones))

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits at the network's own resolution."""
        return self.model(pixel_values=images).logits


def build_adapter(spec: StudentSpec) -> Adapter:
    """Return the network of a `torchvision:NAME` or `transformers:NAME` spec, randomly initialized.

    Raises:
        ValueError: the spec describes no such network.
    """
    kind, _, name = spec.architecture.partition(":")
    if kind == "torchvision":
        model = get_model(segmentation_name(name), weights=None, weights_backbone=None, num_classes=spec.num_classes)
        return TorchvisionNetwork(model, ("classifier",))
    if kind != "transformers" or spec.settings is None:
        raise ValueError(f"there is no student with architecture {spec.architecture!r}.")
    from transformers import AutoConfig, AutoModelForSemanticSegmentation  # noqa: PLC0415 - see above

    settings = _network_alone(json.loads(spec.settings))  # the file may come from anyone
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ValueError(f"the settings of the student {spec.architecture} lack a model_type.")
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    config.num_labels = spec.num_classes
    model = AutoModelForSemanticSegmentation.from_config(config, trust_remote_code=False)
    return TransformersNetwork(model)


def describe_transformers(spec: StudentSpec, directory: Path) -> tuple[StudentSpec, tuple[str, ...]]:
    """Return the spec with settings and preprocessing of a checkpoint's directory, and the checkpoint's class names.

    Raises:
        CheckpointError: the directory has no `config.json`.
    """
    from transformers import AutoConfig  # noqa: PLC0415 - see above

    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} is not a transformers checkpoint: it lacks config.json.")
    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    names = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    spec = dataclasses.replace(
        spec, settings=_settings(config), preprocessing=_preprocessing(directory, spec.preprocessing)
    )
    return spec, names


def transformers_state(directory: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint's directory by the names of `TransformersNetwork`, from safetensors only.

    Raises:
        CheckpointError: the weights are absent, damaged or incomplete.
    """
    from transformers import AutoModelForSemanticSegmentation  # noqa: PLC0415 - see above

    try:
        # the library renames tensors of older files as it loads them
        model, loaded = AutoModelForSemanticSegmentation.from_pretrained(
            directory, use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights in {directory} cannot be read: {error}") from error
    # the classifier may be missing: it then starts at random, as for other classes
    head = TransformersNetwork(model).head
    missing = sorted(name for name in loaded["missing_keys"] if not f"model.{name}".startswith(head))
    if missing:
        raise CheckpointError(
            f"the weights in {directory} lack {len(missing)} tensors of the backbone ({', '.join(missing[:3])}, ...): "
            "use the weights that belong to its config.json, or set student.init to none."
        )
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("auxiliary_head.")}
    return {f"model.{name}": value.float() for name, value in state.items()}


def torchvision_classes_fit(class_set: ClassSet) -> bool:
    """Return whether the classes are those of torchvision's published weights, in the same order."""
    try:
        return tuple(map(class_set.canonical, TORCHVISION_CATEGORIES)) == class_set.names
    except UnknownTagError:
        return False


def from_segmentation(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's segmentation weights by the names of `TorchvisionNetwork`; no auxiliary classifier."""
    return {f"model.{name}": value for name, value in state.items() if not name.startswith("aux_classifier.")}


def from_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's classification weights by the names of a backbone, without the classifier."""
    kept = {name: value for name, value in state.items() if not name.startswith(("fc.", "classifier."))}
    return {name.removeprefix("features."): value for name, value in kept.items()}


def _settings(config: PretrainedConfig) -> str:
    """Return a model's configuration as JSON: what `from_config` needs, without the origin."""
    values = _network_alone(json.loads(config.to_json_string()))
    if "use_auxiliary_head" in values:  # it would be computed but not trained
        values["use_auxiliary_head"] = False
    return json.dumps({**values, "model_type": config.model_type}, sort_keys=True)


def _network_alone(values: Any) -> Any:
    """Return a configuration without keys, at any depth, that load weights or code or name the origin."""
    if isinstance(values, list):
        return [_network_alone(value) for value in values]
    if not isinstance(values, dict):
        return values
    kept = {key: value for key, value in values.items() if key not in _NOT_THE_NETWORK and not key.startswith("_")}
    return {key: _network_alone(value) for key, value in kept.items()}


def _preprocessing(directory: Path, default: Preprocessing) -> Preprocessing:
    """Return the preprocessing of the checkpoint's image processor, or the default where it has none."""
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        return default
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    order = "bgr" if values.get("do_flip_channel_order") else "rgb"
    if values.get("do_normalize", "image_mean" in values):
        mean, std = values["image_mean"], values["image_std"]
    else:
        mean, std = [0.0] * 3, [1.0] * 3
    if order == "bgr":
        mean, std = mean[::-1], std[::-1]
    scale = 1 / values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    return Preprocessing(
        channel_order=cast(Any, order),
        mean=cast(Any, tuple(float(value) * scale for value in mean)),
        std=cast(Any, tuple(float(value) * scale for value in std)),
    )
