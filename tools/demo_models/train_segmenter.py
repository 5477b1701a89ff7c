"""Train the demo's tiny SAM on drawn scenes:

    python -m tools.demo_models.train_segmenter --scenes DIR --work DIR --output DIR

`--scenes` holds the drawn training scenes, `--work` the log and the checkpoint (run the command again to continue),
`--output` receives `model.safetensors` and `config.json`. Boxes are jittered, because those of a detector are not
exact. A table's mask leaves out the dishes on it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torchvision.transforms.v2.functional import resize

from tools.demo_models.training_data import SceneData, SceneSample
from tools.demo_models.training_loop import Schedule, train, training_options, training_parser
from wsss_ray.demo.scenes import PHRASES
from wsss_ray.models.sam.tiny import TINY_SAM_CONFIG, build_tiny_sam

MAX_BOXES = 5
"""Boxes per image in a training step."""


def prepare(
    sample: SceneSample, image_size: int, random: np.random.Generator | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return an image (3, h, w) float of longest side `image_size`, boxes (N, 4), masks (N, h/2, w/2), phrases (N,).

    With a generator: mirrored in half of the cases, colors and boxes jittered, at most MAX_BOXES objects.
    """
    chosen = np.arange(len(sample.boxes))
    image, things, boxes = sample.image, sample.things, sample.boxes.copy()
    if random is not None:
        chosen = random.permutation(chosen)[:MAX_BOXES]
        extent = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        jitter = random.normal(0, 0.035, boxes.shape) * extent * (random.random((len(boxes), 1)) < 0.7)
        boxes += np.clip(jitter, -8, 8).astype(np.float32)
        if random.random() < 0.5:
            image, things = image[:, ::-1], things[:, ::-1]
            boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, image.shape[1])
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, image.shape[0])
    masks = np.stack([things == index + 1 for index in chosen])
    scale = image_size / max(image.shape[:2])
    height, width = (int(side * scale + 0.5) for side in image.shape[:2])
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    pixels = resize(pixels, [height, width], antialias=True).float()
    if random is not None:
        gain = torch.from_numpy(random.uniform(0.85, 1.15, (3, 1, 1))).float()
        pixels = (pixels * gain * float(random.uniform(0.85, 1.15))).clamp(0, 255)
    half = [(height + 1) // 2, (width + 1) // 2]
    targets = resize(torch.from_numpy(masks).float(), half, antialias=True)
    return pixels, torch.from_numpy(boxes[chosen]) * scale, targets, torch.from_numpy(sample.phrases[chosen])


def predict(
    model: Sam, images: list[torch.Tensor], boxes: list[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return for every image the mask logits (N, 4, s, s) of all four mask tokens and their predicted IoU (N, 4)."""
    embeddings = model.image_encoder(torch.stack([model.preprocess(image) for image in images]))
    results = []
    for embedding, image_boxes in zip(embeddings, boxes, strict=True):
        sparse, dense = model.prompt_encoder(points=None, boxes=image_boxes, masks=None)
        results.append(
            model.mask_decoder.predict_masks(
                image_embeddings=embedding[None],
                image_pe=model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
            )
        )
    return results


def mask_loss(
    logits: torch.Tensor, quality: torch.Tensor, targets: torch.Tensor, boxes: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return the sums of the cross entropy, dice and quality losses of an image's masks, and of the IoU of token 0.

    logits (N, 4, h, w) without the padding; quality (N, 4); targets (N, h, w) in 0 to 1; boxes (N, 4) XYXY in
    pixels of the logits. The entropy has full weight in and near the box, and little elsewhere.
    """
    targets = targets[:, None]
    height, width = logits.shape[-2:]
    margin = 0.15 * (boxes[:, 2:] - boxes[:, :2]) + 2
    low, high = (boxes[:, :2] - margin)[:, :, None], (boxes[:, 2:] + margin)[:, :, None]
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    near_x = (columns > low[:, 0]) & (columns < high[:, 0])
    near_y = (rows > low[:, 1]) & (rows < high[:, 1])
    weight = torch.where(near_y[:, :, None] & near_x[:, None, :], 1.0, 0.05)[:, None]
    weight = weight / weight.sum(dim=(-2, -1), keepdim=True)
    token = torch.tensor([1.0, 0.25, 0.25, 0.25])
    token = token / token.sum()
    targets_all = targets.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, targets_all, reduction="none")
    probability = logits.sigmoid()
    hardness = (probability.detach() - targets_all).abs().sqrt()
    entropy_loss = ((entropy * hardness * weight).sum(dim=(-2, -1)) * token).sum(-1)
    overlap = (probability * targets).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    dice_loss = ((1 - (2 * overlap + 1) / (total + 1)) * token).sum(-1)
    with torch.no_grad():
        predicted, true = logits > 0, targets > 0.5
        iou = (predicted & true).sum(dim=(-2, -1)) / (predicted | true).sum(dim=(-2, -1)).clamp(min=1)
    quality_loss = ((quality - iou).square() * token).sum(-1)
    return entropy_loss.sum(), dice_loss.sum(), quality_loss.sum(), iou[:, 0].sum()


def validate(model: Sam, data: SceneData) -> dict[str, float]:
    """Return the mean mask IoU from exact boxes (token 0, half resolution), the share above 0.75, and it by phrase."""
    found: dict[int, list[float]] = {}
    for index in range(len(data)):
        image, boxes, targets, phrases = prepare(data[index], model.image_encoder.img_size, None)
        logits, _ = predict(model, [image], [boxes])[0]
        predicted, true = logits[:, 0, : targets.shape[1], : targets.shape[2]] > 0, targets > 0.5
        iou = (predicted & true).sum(dim=(1, 2)) / (predicted | true).sum(dim=(1, 2)).clamp(min=1)
        for phrase, value in zip(phrases.tolist(), iou.tolist(), strict=True):
            found.setdefault(phrase, []).append(value)
    values = np.concatenate(list(found.values()))
    per_phrase = {PHRASES[phrase]: float(np.mean(ious)) for phrase, ious in sorted(found.items())}
    return {"iou": float(values.mean()), "good": float((values > 0.75).mean()), **per_phrase}


def train_segmenter(
    *,
    scenes: Path,
    work: Path,
    output: Path,
    schedule: Schedule,
    batch: int,
    scene_count: int,
    validation_count: int,
    config: dict[str, Any],
) -> dict[str, float]:
    """Train a segmenter, write it to `output`, and return the figures of the last validation."""
    torch.manual_seed(0)
    model = build_tiny_sam(config)
    data, held_out = SceneData(scenes, "train", scene_count), SceneData(scenes, "validation", validation_count)

    def loss_of_step(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        random = np.random.default_rng([1, step])
        indices = random.integers(len(data), size=batch)
        images, boxes, targets, _ = zip(
            *(prepare(data[int(index)], config["image_size"], random) for index in indices), strict=True
        )
        sums = torch.zeros(4)
        for (logits, quality), image_boxes, target in zip(
            predict(model, list(images), list(boxes)), boxes, targets, strict=True
        ):
            cropped = logits[..., : target.shape[1], : target.shape[2]]
            sums = sums + torch.stack(mask_loss(cropped, quality, target, image_boxes / 2))
        entropy, dice, quality_loss, iou = sums / sum(len(target) for target in targets)
        parts = {"entropy": entropy, "dice": dice, "quality": quality_loss, "iou": iou}
        return 4 * entropy + dice + quality_loss, {name: float(part.detach()) for name, part in parts.items()}

    figures = train(
        model,
        [{"params": list(model.parameters()), "factor": 1.0}],
        schedule=schedule,
        directory=work,
        loss_of_step=loss_of_step,
        validate=lambda: validate(model, held_out),
    )
    output.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), output / "model.safetensors")
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return figures


def main() -> None:
    parser = training_parser(str(__doc__), steps=6400, batch=4, learning_rate=1.5e-3)
    parser.add_argument("--config", type=json.loads, default={}, help="changes to the configuration, as JSON")
    options = parser.parse_args()
    train_segmenter(**training_options(options), config=TINY_SAM_CONFIG | options.config)


if __name__ == "__main__":
    main()
