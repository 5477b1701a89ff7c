"""Train the demo's tiny Grounding DINO on drawn scenes:

    python -m tools.demo_models.train_detector --scenes DIR --work DIR --output DIR

`--scenes` holds the drawn training scenes, `--work` the log and the checkpoint (run the command again to continue),
`--output` receives a directory for `from_pretrained`. A batch holds scenes of one resized size, as in the labelling
job, each with its own prompt: the classes present, sometimes absent ones, and the dishes if there is a table.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_convert, box_iou
from transformers import GroundingDinoProcessor, MMGroundingDinoForObjectDetection

from tools.demo_models.detection_loss import Target, cell_centers, proposal_loss, set_loss
from tools.demo_models.tiny_detector import build_detector, build_processor
from tools.demo_models.training_data import SceneData, SceneSample
from tools.demo_models.training_loop import Schedule, train, training_options, training_parser
from wsss_ray.demo.scenes import CLASSES, PHRASES
from wsss_ray.demo.shapes import DISHES

THRESHOLD = 0.3
"""The labelling job's default threshold, used in validation."""
CALIBRATED_SCORE = 0.2
"""The score after training that calibration moves to the threshold, chosen on validation scenes."""
STRIDES = (16, 32)
_CLS, _SEP, _FULL_STOP = 101, 102, 1012


class Prompts:
    """Encode prompts as token ids, with the tokens of each phrase."""

    def __init__(self, processor: GroundingDinoProcessor) -> None:
        self._ids = [processor.tokenizer(phrase, add_special_tokens=False).input_ids for phrase in PHRASES]

    def encode(self, prompts: list[list[int]]) -> tuple[dict[str, torch.Tensor], list[dict[int, torch.Tensor]]]:
        """Return the inputs of the model for prompts of phrases (indices into PHRASES), padded to the longest.

        The second result holds, for every prompt, the tokens (T,) float of each phrase: 1 at its tokens, else 0.
        """
        sequences, all_spans = [], []
        for prompt in prompts:
            ids, spans = [_CLS], {}
            for phrase in prompt:
                spans[phrase] = (len(ids), len(ids) + len(self._ids[phrase]))
                ids += [*self._ids[phrase], _FULL_STOP]
            sequences.append([*ids, _SEP])
            all_spans.append(spans)
        length = max(map(len, sequences))
        input_ids = torch.tensor([ids + [0] * (length - len(ids)) for ids in sequences])
        mask = (torch.arange(length) < torch.tensor([len(ids) for ids in sequences])[:, None]).long()
        inputs = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(input_ids)}
        position = torch.arange(length)
        tokens = [
            {phrase: ((position >= start) & (position < stop)).float() for phrase, (start, stop) in spans.items()}
            for spans in all_spans
        ]
        return inputs, tokens


def choose_prompt(sample: SceneSample, random: np.random.Generator | None) -> list[int]:
    """Return the phrases of a prompt: the classes present and a table's dishes.

    With a generator, the dishes are sometimes left out, absent phrases are sometimes added, and the order is random.
    """
    present = set(sample.phrases.tolist())
    table, dishes = PHRASES.index("dining table"), {PHRASES.index(dish) for dish in DISHES}
    prompt = present - dishes
    if table in present and (random is None or random.random() < 0.8):
        prompt |= dishes
    if random is None:
        return sorted(prompt)
    if random.random() < 0.4:
        absent = sorted(set(range(len(PHRASES))) - present - prompt)
        prompt |= set(random.choice(absent, size=int(random.integers(1, 4)), replace=False).tolist())
    return random.permutation(sorted(prompt)).tolist()


class Batches:
    """Batches of scenes of one resized size, as a function of the step."""

    def __init__(self, data: SceneData, processor: GroundingDinoProcessor) -> None:
        self._data, self._processor, self.prompts = data, processor, Prompts(processor)
        sizes = data.sizes()
        shapes = sizes // np.gcd(sizes[:, 0], sizes[:, 1])[:, None]
        _, inverse = np.unique(shapes, axis=0, return_inverse=True)
        self._buckets = [np.flatnonzero(inverse == bucket) for bucket in range(inverse.max() + 1)]

    def draw(self, step: int, size: int) -> tuple[dict[str, torch.Tensor], list[Target]]:
        """Return the inputs and targets of a training step, mirrored in half of the cases and with jittered colors."""
        random = np.random.default_rng([2, step])
        shares = np.array([len(bucket) for bucket in self._buckets]) / len(self._data)
        bucket = self._buckets[int(random.choice(len(self._buckets), p=shares))]
        indices = random.choice(bucket, size=size)
        return self.make([_augmented(self._data[int(index)], random) for index in indices], random)

    def make(
        self, samples: list[SceneSample], random: np.random.Generator | None
    ) -> tuple[dict[str, torch.Tensor], list[Target]]:
        """Return the model's inputs for samples of one resized size, and the objects that their prompts name."""
        prompts = [choose_prompt(sample, random) for sample in samples]
        inputs, tokens = self.prompts.encode(prompts)
        images = [sample.image for sample in samples]
        inputs["pixel_values"] = self._processor.image_processor(images=images, return_tensors="pt").pixel_values
        targets = []
        for sample, prompt, phrase_tokens in zip(samples, prompts, tokens, strict=True):
            named = [index for index, phrase in enumerate(sample.phrases.tolist()) if phrase in prompt]
            height, width = sample.image.shape[:2]
            boxes = torch.from_numpy(sample.boxes[named]) / torch.tensor([width, height, width, height])
            targets.append(
                Target(
                    boxes=box_convert(boxes, "xyxy", "cxcywh"),
                    tokens=torch.stack([phrase_tokens[int(sample.phrases[index])] for index in named]),
                )
            )
        return inputs, targets


def _augmented(sample: SceneSample, random: np.random.Generator) -> SceneSample:
    image, boxes = sample.image, sample.boxes.copy()
    if random.random() < 0.5:
        image = image[:, ::-1]
        boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    gain = random.uniform(0.85, 1.15, 3) * random.uniform(0.85, 1.15)
    image = np.clip(image * gain.astype(np.float32), 0, 255).astype(np.uint8)
    return SceneSample(image=image, things=sample.things, phrases=sample.phrases, boxes=boxes)


def detection_loss(
    model: MMGroundingDinoForObjectDetection, inputs: dict[str, torch.Tensor], targets: list[Target]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the sum of the set loss of every decoder layer and the loss of the proposals."""
    length = inputs["input_ids"].shape[1]
    text_mask = inputs["attention_mask"].bool()
    captured: dict[str, Any] = {}

    def capture(logits: torch.Tensor, *_: Any, outputs_class: Any, outputs_coord: Any, **__: Any) -> tuple:
        captured.update(logits=outputs_class[..., :length], boxes=outputs_coord)
        return logits.new_zeros(()), {}, None

    model.loss_function = capture  # the only way to the logits of every decoder layer
    outputs = model(**inputs, labels=[])
    height, width = inputs["pixel_values"].shape[-2:]
    centers = cell_centers([(-(-height // stride), -(-width // stride)) for stride in STRIDES])
    proposals = proposal_loss(
        outputs.enc_outputs_class[..., :length],
        outputs.enc_outputs_coord_logits.sigmoid(),
        text_mask,
        targets,
        centers,
    )
    layers = [
        set_loss(logits, boxes, text_mask, targets)
        for logits, boxes in zip(captured["logits"], captured["boxes"], strict=True)
    ]
    parts = {"proposals": proposals, **{f"layer_{index}": layer for index, layer in enumerate(layers)}}
    return proposals + torch.stack(layers).sum(), {name: float(part.detach()) for name, part in parts.items()}


def validate(model: MMGroundingDinoForObjectDetection, batches: Batches, data: SceneData) -> dict[str, float]:
    """Return recall and precision at IoU 0.5 with the right phrase above the threshold, and recall by phrase."""
    hits: dict[int, list[bool]] = {}
    detected = right = 0
    for index in range(len(data)):
        sample = data[index]
        prompt = choose_prompt(sample, None)
        inputs, (target,) = batches.make([sample], None)
        outputs = model(**inputs)
        _, (tokens,) = batches.prompts.encode([prompt])
        spans = torch.stack([tokens[phrase] for phrase in prompt])
        scores = outputs.logits[0, :, : spans.shape[1]].sigmoid()
        scores, best = (scores[:, None] * spans).amax(dim=-1).max(dim=-1)
        kept = (scores > THRESHOLD).nonzero()[:, 0]
        kept = kept[scores[kept].argsort(descending=True)]
        phrases = torch.tensor(prompt)[best[kept]]
        overlap = box_iou(
            box_convert(outputs.pred_boxes[0, kept], "cxcywh", "xyxy"), box_convert(target.boxes, "cxcywh", "xyxy")
        )
        true = torch.tensor([phrase for phrase in sample.phrases.tolist() if phrase in prompt])
        overlap = overlap * (phrases[:, None] == true[None])
        used = torch.zeros(len(true), dtype=torch.bool)
        for row in overlap:
            free = row.masked_fill(used, 0.0)
            if free.max() >= 0.5:
                used[free.argmax()] = True
        detected, right = detected + len(kept), right + int(used.sum())
        for phrase, hit in zip(true.tolist(), used.tolist(), strict=True):
            hits.setdefault(phrase, []).append(hit)
    classes = [hit for phrase, found in hits.items() if phrase < len(CLASSES) for hit in found]
    return {
        "recall": float(np.mean(classes)),
        "precision": right / max(detected, 1),
        **{PHRASES[phrase]: float(np.mean(found)) for phrase, found in sorted(hits.items())},
    }


def calibrate(model: MMGroundingDinoForObjectDetection) -> None:
    """Raise all logits by one constant, so that CALIBRATED_SCORE becomes THRESHOLD.

    After a short training with the focal loss the scores of found objects are low; their order does not change.
    """
    shift = torch.logit(torch.tensor(THRESHOLD)) - torch.logit(torch.tensor(CALIBRATED_SCORE))
    biases = {id(embed.bias): embed.bias for embed in model.class_embed}  # the layers may share one
    with torch.no_grad():
        for bias in biases.values():
            bias.add_(shift)


def train_detector(
    *, scenes: Path, work: Path, output: Path, schedule: Schedule, batch: int, scene_count: int, validation_count: int
) -> dict[str, float]:
    """Train a detector, write it to `output`, and return the figures of the last validation."""
    processor = build_processor()
    model = build_detector(seed=0)
    held_out = SceneData(scenes, "validation", validation_count)
    batches = Batches(SceneData(scenes, "train", scene_count), processor)
    slow = [p for name, p in model.named_parameters() if "sampling_offsets" in name]
    slow_ids = {id(parameter) for parameter in slow}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in slow_ids], "factor": 1.0},
        {"params": slow, "factor": 0.3},
    ]
    figures = train(
        model,
        groups,
        schedule=schedule,
        directory=work,
        loss_of_step=lambda step: detection_loss(model, *batches.draw(step, batch)),
        validate=lambda: validate(model, batches, held_out),
    )
    calibrate(model)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return figures


def main() -> None:
    parser = training_parser(str(__doc__), steps=5000, batch=8, learning_rate=1e-3)
    train_detector(**training_options(parser.parse_args()))


if __name__ == "__main__":
    main()
