"""The published labelling, one image at a time, written from the digest of the paper and not from the package.

Nothing here imports the package. It is slow and plain on purpose: PIL resizes by the published rule, the prompt is one
string that the tokenizer reads, a box's phrase is the run of tokens around its best token, masks come from
`SamPredictor` and are painted in query order.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from segment_anything import SamPredictor

VOC_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
VOC_ASSIST_WORDS = {
    "diningtable": ["bowl", "plate", "food", "fruit", "glass", "dishes"],
    "horse": ["halter", "saddle"],
    "tvmonitor": ["tv", "monitor"],
}
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(kw_only=True)
class Reference:
    """What the published code makes of one photo."""

    label: np.ndarray  # (H, W) uint8
    boxes: np.ndarray  # (N, 4) XYXY relative to the photo
    scores: np.ndarray  # (N,)
    class_ids: list[int]
    masks: np.ndarray  # (N, H, W) bool
    network_size: tuple[int, int]


def read_rgb(photo: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file, read by OpenCV."""
    return cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)


def voc_phrases(tags: list[str]) -> dict[str, int]:
    """Phrases of VOC tags (the data set's spellings), in prompt order, with their class ids."""
    phrases = {}
    for tag in tags:
        phrases[tag] = VOC_NAMES.index(tag) + 1
        for word in VOC_ASSIST_WORDS.get(tag, []):
            phrases[word] = VOC_NAMES.index(tag) + 1
    return phrases


def network_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Shortest side `shortest`, unless the longest would exceed `longest`: then the short side is rounded to fit."""
    short, long = sorted([height, width])
    if shortest * long > longest * short:
        shortest = round(longest * short / long)
    if width < height:
        return int(shortest * height / width), shortest
    return shortest, int(shortest * width / height)


def phrase_around(best: int, input_ids: list[int], tokenizer) -> str:
    """The text of the run of tokens around `best`, up to the next separator on either side."""
    separators = {
        tokenizer.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]", ".", "[MASK]", "[UNK]", "[PAD]")
    }
    run = []
    left = best
    while left >= 0 and input_ids[left] not in separators:
        run.insert(0, input_ids[left])
        left -= 1
    right = best + 1
    while run and right < len(input_ids) and input_ids[right] not in separators:
        run.append(input_ids[right])
        right += 1
    return tokenizer.decode(run)


def detect(
    photo: Path, phrases: dict[str, int], *, separator: str, network, tokenizer, edges, box_threshold: float
) -> tuple[np.ndarray, np.ndarray, list[int], tuple[int, int]]:
    """Relative XYXY boxes, scores and class ids of one photo in query order, and the network's input size."""
    image = Image.open(photo).convert("RGB")
    size = network_size(image.height, image.width, *edges)
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32) / 255
    pixels = torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)[None]
    text = tokenizer([(separator.join(phrases) + separator.rstrip()).lower()], return_tensors="pt")
    with torch.no_grad():
        outputs = network(pixel_values=pixels, input_ids=text["input_ids"], attention_mask=text["attention_mask"])
    input_ids = text["input_ids"][0].tolist()
    boxes, scores, class_ids = [], [], []
    for logits, (x, y, w, h) in zip(outputs.logits[0].sigmoid(), outputs.pred_boxes[0].numpy(), strict=True):
        if logits.max() <= box_threshold:
            continue
        class_id = phrases.get(phrase_around(int(logits.argmax()), input_ids, tokenizer))
        if class_id is None:
            continue
        boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        scores.append(float(logits.max()))
        class_ids.append(class_id)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), class_ids, size


def paint(masks: np.ndarray, class_ids: list[int]) -> np.ndarray:
    """Label map of (N, H, W) masks: each over those before it, background 0."""
    label = np.zeros(masks.shape[1:], np.uint8)
    for mask, class_id in zip(masks, class_ids, strict=True):
        label[mask] = class_id
    return label


def label_photo(photo: Path, phrases: dict[str, int], *, sam, **detector) -> Reference:
    """Label one photo with the prompts of `phrases`; `detector` holds the other arguments of `detect`."""
    boxes, scores, class_ids, size = detect(photo, phrases, **detector)
    image = read_rgb(photo)
    height, width = image.shape[:2]
    masks = np.zeros((0, height, width), bool)
    if class_ids:
        predictor = SamPredictor(sam)
        predictor.set_image(image)
        pixels = torch.from_numpy(boxes) * torch.tensor([width, height, width, height])
        pixels = predictor.transform.apply_boxes_torch(pixels, (height, width))
        predicted, _, _ = predictor.predict_torch(
            point_coords=None, point_labels=None, boxes=pixels, multimask_output=False
        )
        masks = predicted[:, 0].numpy()
    return Reference(
        label=paint(masks, class_ids),
        boxes=boxes,
        scores=scores,
        class_ids=class_ids,
        masks=masks,
        network_size=size,
    )
