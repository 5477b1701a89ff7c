"""The demo's Grounding DINO: a small vocabulary and configuration, in a directory that `from_pretrained` loads."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

SHORTEST_EDGE = 192
LONGEST_EDGE = 320
MAX_TEXT_TOKENS = 128
WORD_PIECES = [
    *("pot", "##ted", "plant", "traffic", "light", "din", "##ing", "table", "sail", "boat", "hot", "air"),
    *("ball", "##oon", "stop", "sign", "um", "##bre", "##lla", "cat", "mush", "##room", "bowl", "plate"),
]


def vocabulary() -> list[str]:
    """Return the word pieces by id; ids that Grounding DINO hard-codes are those of bert-base-uncased.

    [PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103, '.' 1012 and '?' 1029 keep their ids; the pieces of the
    demo's names come last. The pieces a-z, 0-9 and their continuations are included, so that any name can be tokenized.
    """
    pieces = [f"[unused{index}]" for index in range(999)]
    for index, special in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}.items():
        pieces[index] = special
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    pieces += characters  # '!' is 999 as in BERT, which puts '.' at 1012 and '?' at 1029
    pieces += [f"##{character}" for character in "abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces += WORD_PIECES
    assert pieces[1012] == "."
    assert pieces[1029] == "?"
    assert len(set(pieces)) == len(pieces)
    return pieces


def build_processor() -> GroundingDinoProcessor:
    """Return the processor: shortest edge 192 pixels, longest at most 320, ImageNet normalization."""
    tokenizer = BertTokenizer(
        vocab={piece: index for index, piece in enumerate(vocabulary())},
        do_lower_case=True,
        model_max_length=MAX_TEXT_TOKENS,
    )
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": SHORTEST_EDGE, "longest_edge": LONGEST_EDGE})
    return GroundingDinoProcessor(image_processor, tokenizer)


def build_detector(*, seed: int, **changes: Any) -> MMGroundingDinoForObjectDetection:
    """Return a tiny detector with random weights; `changes` replace fields of the model's configuration.

    Patches of 8 pixels, features at strides 16 and 32, two encoder and two decoder layers, 32 queries.
    """
    settings: dict[str, Any] = {
        "backbone_config": SwinConfig(
            image_size=256,
            patch_size=8,
            embed_dim=40,
            depths=[2, 2, 2],
            num_heads=[2, 4, 8],
            window_size=6,
            mlp_ratio=3.0,
            drop_path_rate=0.0,
            out_indices=[2, 3],
        ),
        "text_config": BertConfig(
            vocab_size=len(vocabulary()),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=MAX_TEXT_TOKENS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        "d_model": 96,
        "num_queries": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 192,
        "decoder_ffn_dim": 192,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "num_feature_levels": 2,
        "max_text_len": MAX_TEXT_TOKENS,
        "dropout": 0.0,
        "fusion_droppath": 0.0,
        "auxiliary_loss": True,
        "two_stage": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MMGroundingDinoForObjectDetection(MMGroundingDinoConfig(**(settings | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("vision_param", "text_param")):
                parameter.fill_(0.1)  # with the published 1e-4 the text has no effect for thousands of steps
    return model.eval()
