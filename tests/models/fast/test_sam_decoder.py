"""The mask decoder for boxes of many images against the package's, image by image."""

import pytest
import random_models
import torch
from sam_cases import LIKE_VIT_B
from segment_anything.modeling import Sam
from torch import Tensor

from wsss_ray.models.fast.sam_decoder import BoxDecoder
from wsss_ray.models.sam.loading import load_sam


@pytest.fixture(scope="module", params=["small", "like ViT-B", "published size"])
def sam(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sam:
    config = {
        "small": random_models.SAM_CONFIG,
        "like ViT-B": LIKE_VIT_B,
        "published size": random_models.SAM_CONFIG
        | {
            "image_size": 1024,
            "patch_size": 16,
            "prompt_embed_dim": 256,
            "decoder_mlp_dim": 2048,
            "decoder_num_heads": 8,
            "iou_head_hidden_dim": 256,
        },
    }[request.param]
    sam = load_sam("tiny", random_models.write_sam(tmp_path_factory.mktemp("sam"), seed=1, config=config))
    torch.manual_seed(7)
    for name, parameter in sam.mask_decoder.named_parameters():
        if name.endswith("bias"):  # many are zero as initialised, which would hide those of folded projections
            parameter.normal_(0, 0.2)
    return sam


def decode_by_package(sam: Sam, features: Tensor, image_of_box: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """One image after the other, as `SamPredictor.predict_torch` calls the modules."""
    logits, scores = [], []
    for image in image_of_box.unique():
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes[image_of_box == image], masks=None)
        low, iou = sam.mask_decoder(
            image_embeddings=features[image : image + 1],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits.append(low[:, 0])
        scores.append(iou[:, 0])
    return torch.cat(logits), torch.cat(scores)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_boxes_of_several_images_are_the_packages(sam: Sam, chunk: int) -> None:
    side = sam.image_encoder.img_size
    grid = sam.prompt_encoder.image_embedding_size
    torch.manual_seed(1)
    image_of_box = torch.tensor([0, 0, 1, 2, 2, 2, 2])
    with torch.inference_mode():
        features = torch.randn(3, sam.prompt_encoder.embed_dim, *grid) / 2
        boxes = torch.rand(7, 4) * side
        boxes[4] = torch.tensor([-0.5, -0.2, 1.7, 2.0]) * side  # outside
        boxes[5, 2:] = boxes[5, :2]  # a point
        decoder = BoxDecoder(sam)
        tokens = decoder.tokens_of_images(features)
        parts = [
            decoder.decode(tokens, image_of_box[start : start + chunk], boxes[start : start + chunk])
            for start in range(0, 7, chunk)
        ]
        logits, scores = (torch.cat(values) for values in zip(*parts, strict=True))
        expected, expected_scores = decode_by_package(sam, features, image_of_box, boxes)
    assert expected.std() > 0.05
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-5)
