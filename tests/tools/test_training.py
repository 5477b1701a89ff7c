"""Both training scripts, from scenes to a loadable checkpoint in two steps, and the drawn data that they read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from tools.demo_models.tiny_detector import build_processor
from tools.demo_models.train_detector import Prompts, choose_prompt, train_detector
from tools.demo_models.train_segmenter import mask_loss, prepare, train_segmenter
from tools.demo_models.training_data import SceneData
from tools.demo_models.training_loop import Schedule
from wsss_ray.demo.scenes import PHRASES, draw_scene, split_seeds
from wsss_ray.models.sam.tiny import TINY_SAM_CONFIG, build_tiny_sam

SCHEDULE = Schedule(steps=2, learning_rate=1e-3, log_every=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that holds the scenes of the trainings below."""
    directory = tmp_path_factory.mktemp("scenes")
    SceneData(directory, "train", 12)
    return directory


def test_data_are_the_scenes(scenes: Path) -> None:
    data = SceneData(scenes, "train", 12)
    assert len(data) == 12
    scene, sample = draw_scene(split_seeds("train", 12)[5]), data[5]
    assert np.abs(sample.image.astype(int) - scene.image).mean() < 6
    assert [PHRASES[phrase] for phrase in sample.phrases] == [drawn.phrase for drawn in scene.objects]
    assert np.array_equal(sample.boxes, [drawn.box for drawn in scene.objects])
    for place, drawn in enumerate(scene.objects):
        assert np.array_equal(sample.things == place + 1, drawn.mask)
    assert data.sizes()[5].tolist() == list(scene.image.shape[:2])


def test_data_are_drawn_once(scenes: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in scenes.iterdir()}
    SceneData(scenes, "train", 12)
    assert {path.name: path.stat().st_mtime_ns for path in scenes.iterdir()} == before


def test_prompts_mark_their_tokens() -> None:
    plant, cat = PHRASES.index("potted plant"), PHRASES.index("cat")
    processor = build_processor()
    inputs, tokens = Prompts(processor).encode([[plant, cat], [cat]])
    expected = processor.tokenizer(["potted plant. cat.", "cat."], padding=True)
    assert inputs["input_ids"].tolist() == expected.input_ids
    assert inputs["attention_mask"].tolist() == expected.attention_mask
    assert tokens[0][plant].tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert tokens[0][cat].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert tokens[1][cat].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_a_prompt_names_what_is_there(scenes: Path) -> None:
    data = SceneData(scenes, "train", 12)
    for index in range(len(data)):
        sample = data[index]
        prompt = choose_prompt(sample, None)
        present = set(sample.phrases.tolist())
        assert present <= set(prompt)
        assert {PHRASES[phrase] for phrase in set(prompt) - present} <= {"bowl", "plate"}


def test_mask_loss_of_a_perfect_and_of_an_empty_mask() -> None:
    target = torch.zeros(1, 8, 8)
    target[0, 2:6, 2:6] = 1
    box = torch.tensor([[2.0, 2.0, 6.0, 6.0]])
    sure = (target[:, None] * 60 - 30).repeat(1, 4, 1, 1)
    right = mask_loss(sure, torch.ones(1, 4), target, box)
    assert [float(part) for part in right] == pytest.approx([0, 0, 0, 1], abs=1e-4)
    wrong = mask_loss(-sure, torch.ones(1, 4), target, box)
    assert float(wrong[1]) == pytest.approx(1 - 1 / 65, abs=1e-4)
    assert float(wrong[2]) == pytest.approx(1.0)
    assert float(wrong[3]) == 0.0


def test_prepared_boxes_hold_their_masks(scenes: Path) -> None:
    sample = SceneData(scenes, "train", 12)[0]
    image, boxes, masks, phrases = prepare(sample, 224, None)
    assert max(image.shape[1:]) == 224
    assert len(boxes) == len(masks) == len(phrases)
    for (left, top, right, bottom), mask in zip((boxes / 2).round().int().tolist(), masks, strict=True):
        inside = mask[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
        assert float(inside.sum()) == pytest.approx(float(mask.sum()), rel=0.02)


def test_training_writes_a_segmenter_and_resumes(scenes: Path, tmp_path: Path) -> None:
    config = TINY_SAM_CONFIG | {"image_size": 64, "depth": 1, "global_attn_indexes": [0]}

    def train(steps: int) -> None:
        train_segmenter(
            scenes=scenes,
            work=tmp_path / "work",
            output=tmp_path / "out",
            schedule=Schedule(steps=steps, learning_rate=1e-3, log_every=1),
            batch=2,
            scene_count=12,
            validation_count=4,
            config=config,
        )

    train(1)
    train(2)
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    build_tiny_sam(saved).load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 1, 2, 2]


def test_training_writes_a_detector(scenes: Path, tmp_path: Path) -> None:
    figures = train_detector(
        scenes=scenes,
        work=tmp_path / "work",
        output=tmp_path / "out",
        schedule=SCHEDULE,
        batch=2,
        scene_count=12,
        validation_count=4,
    )
    assert figures["step"] == 2
    assert 0 <= figures["validation_recall"] <= 1
    model = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "out")
    trained = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)["model"]
    for name, weight in model.state_dict().items():
        if name.startswith(("class_embed", "model.decoder.class_embed")):
            before, after = trained[name].sigmoid(), weight.sigmoid()
            odds = (after / (1 - after)) / (before / (1 - before))
            assert float(odds) == pytest.approx((0.3 / 0.7) / (0.2 / 0.8), rel=1e-4), name
        else:
            assert torch.equal(weight, trained[name]), name
    AutoProcessor.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 225}, "not a multiple of patch_size"),
        ({"num_heads": 5}, "must be a multiple of num_heads"),
        ({"heads": 3}, "unknown keys \\['heads'\\]"),
    ],
)
def test_a_wrong_segmenter_configuration_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_tiny_sam(TINY_SAM_CONFIG | changes)
