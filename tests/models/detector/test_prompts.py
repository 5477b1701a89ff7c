"""Prompts: token ids equal to the tokenizer's, the class of every token, splitting, and refused phrases."""

import re
import string
from pathlib import Path

import pytest
from transformers import BertTokenizer

from wsss_ray.classes import BUILT_IN, ClassSet, UnknownTagError
from wsss_ray.models.detector.prompts import Prompt, PromptBuilder

CLS, SEP, STOP, UNKNOWN = 101, 102, 1012, 100


def make_tokenizer() -> BertTokenizer:
    """A small vocabulary with BERT's ids for special tokens and '.'; it has no '#'."""
    pieces = [f"[unused{index}]" for index in range(999)]
    for index, special in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}.items():
        pieces[index] = special
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    pieces += ["[unused-hash]" if character == "#" else character for character in characters]
    pieces += [f"##{character}" for character in string.ascii_lowercase]
    pieces += ["pot", "##ted", "plant", "hot", "dog", "din", "##ing", "table", "person", "tv", "monitor", "bowl"]
    assert pieces[STOP] == "."
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, do_lower_case=True)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return make_tokenizer()


def one_prompt(tags: list[str], class_set: ClassSet, tokenizer: BertTokenizer) -> Prompt:
    (prompt,) = PromptBuilder(class_set, tokenizer).build(tags)
    return prompt


def test_ids_classes_and_phrases_of_tokens_by_hand(tokenizer: BertTokenizer) -> None:
    class_set = ClassSet.from_names(["person", "cow", "potted plant"])
    prompt = one_prompt(["potted plant", "person"], class_set, tokenizer)
    person, pot, ted, plant = tokenizer.convert_tokens_to_ids(["person", "pot", "##ted", "plant"])
    assert UNKNOWN not in {person, pot, ted, plant}
    assert prompt == Prompt(
        text="person . potted plant .",
        input_ids=(CLS, person, STOP, pot, ted, plant, STOP, SEP),
        token_class_ids=(-1, 1, -1, 3, 3, 3, -1, -1),
        token_phrases=(-1, 0, -1, 1, 1, 1, -1, -1),
        phrases=("person", "potted plant"),
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_ids_are_those_of_the_joined_text(name: str, tokenizer: BertTokenizer) -> None:
    class_set = ClassSet.load(name, assist_words=True)
    for tags in (class_set.names[:1], class_set.names[::3], class_set.names):
        prompts = PromptBuilder(class_set, tokenizer).build(tags)
        for prompt in prompts:
            assert tuple(tokenizer(prompt.text)["input_ids"]) == prompt.input_ids
            assert prompt.text == prompt.text.lower()
            assert prompt.text.endswith(" .")
            assert prompt.input_ids[-2:] == (STOP, SEP)
            assert len(prompt.input_ids) == len(prompt.token_class_ids) == len(prompt.token_phrases) <= 256
        expected = [phrase for tag in class_set.names if tag in tags for phrase in class_set.phrases_of(tag)]
        assert [phrase for prompt in prompts for phrase in prompt.phrases] == expected


def test_published_voc_prompt_has_the_same_tokens(tokenizer: BertTokenizer) -> None:
    tags = ["tvmonitor", "person", "diningtable", "horse"]
    (prompt,) = PromptBuilder(ClassSet.load("voc-raw"), tokenizer).build(tags)
    published = "diningtable.bowl.plate.food.fruit.glass.dishes.horse.halter.saddle.person.tvmonitor.tv.monitor."
    assert prompt.input_ids == tuple(tokenizer(published)["input_ids"]), "spaces around the stops change no token"
    assert prompt.text == published.replace(".", " . ").rstrip()


def test_published_coco_prompt_joins_by_spaced_stops(tokenizer: BertTokenizer) -> None:
    assert one_prompt(["tv", "hot dog"], ClassSet.load("coco"), tokenizer).text == "hot dog . tv ."


def test_neither_order_nor_case_nor_repetition_of_tags_matters(tokenizer: BertTokenizer) -> None:
    class_set = ClassSet.load("voc")
    first = PromptBuilder(class_set, tokenizer).build(["dog", "tv monitor", "person"])
    second = PromptBuilder(class_set, tokenizer).build(["Person", "TVMONITOR", "dog", "person"])
    assert first == second
    assert len({*first, *second}) == 1  # they serve as keys of a cache


def test_assist_words_follow_their_class_only_where_it_is_tagged(tokenizer: BertTokenizer) -> None:
    class_set = ClassSet.load("voc", assist_words=True)
    table = class_set.by_name["dining table"].id
    prompt = one_prompt(["person", "dining table"], class_set, tokenizer)
    assert prompt.phrases == ("dining table", "bowl", "plate", "food", "fruit", "glass", "dishes", "person")
    bowl = prompt.input_ids.index(tokenizer.convert_tokens_to_ids("bowl"))
    assert (prompt.token_class_ids[bowl], prompt.token_phrases[bowl]) == (table, 1)
    assert one_prompt(["person"], class_set, tokenizer).phrases == ("person",)
    assert one_prompt(["dining table"], ClassSet.load("voc"), tokenizer).phrases == ("dining table",)


def test_equal_words_in_two_phrases_keep_their_own_class(tokenizer: BertTokenizer) -> None:
    prompt = one_prompt(["dog", "hot dog"], ClassSet.from_names(["dog", "hot dog"]), tokenizer)
    assert prompt.token_class_ids == (-1, 1, -1, 2, 2, -1, -1)


def test_no_tags_are_no_prompt(tokenizer: BertTokenizer) -> None:
    assert PromptBuilder(ClassSet.load("voc"), tokenizer).build([]) == []


def test_an_unknown_tag_is_refused(tokenizer: BertTokenizer) -> None:
    with pytest.raises(UnknownTagError, match="Near: person"):
        PromptBuilder(ClassSet.load("voc"), tokenizer).build(["persn"])


@pytest.mark.parametrize(("max_tokens", "sizes"), [(9, [3, 1]), (8, [2, 2]), (7, [2, 2]), (6, [1, 1, 1, 1])])
def test_a_long_prompt_is_split_between_phrases(max_tokens: int, sizes: list[int], tokenizer: BertTokenizer) -> None:
    class_set = ClassSet.from_names(["person", "potted", "tv", "hot dog"])  # 2, 3, 2, 3 tokens with their full stops
    prompts = PromptBuilder(class_set, tokenizer, max_tokens=max_tokens).build(class_set.names)
    assert [len(prompt.phrases) for prompt in prompts] == sizes
    assert tuple(phrase for prompt in prompts for phrase in prompt.phrases) == class_set.names
    for prompt in prompts:
        assert len(prompt.input_ids) <= max_tokens
        assert tuple(tokenizer(prompt.text)["input_ids"]) == prompt.input_ids
        assert max(prompt.token_phrases) == len(prompt.phrases) - 1
    assert sorted({i for prompt in prompts for i in prompt.token_class_ids}) == [-1, 1, 2, 3, 4]


def test_all_of_coco_at_256_tokens_keeps_every_class_once(tokenizer: BertTokenizer) -> None:
    class_set = ClassSet.load("coco")
    prompts = PromptBuilder(class_set, tokenizer).build(class_set.names)
    assert len(prompts) > 1
    assert max(len(prompt.input_ids) for prompt in prompts) <= 256
    assert {i for prompt in prompts for i in prompt.token_class_ids} == {-1, *range(1, 81)}


def test_delimiters_within_a_name_become_spaces(tokenizer: BertTokenizer) -> None:
    prompt = one_prompt(["St. Dog?"], ClassSet.from_names(["St. Dog?", "person"]), tokenizer)
    assert prompt.text == "st dog ."
    assert prompt.input_ids.count(STOP) == 1


def test_special_tokens_in_a_name_are_plain_text(tokenizer: BertTokenizer) -> None:
    prompt = one_prompt(["dog [SEP]"], ClassSet.from_names(["dog [SEP]"]), tokenizer)
    assert prompt.input_ids.count(SEP) == 1
    assert tuple(tokenizer(prompt.text)["input_ids"]) == prompt.input_ids


def test_an_unknown_token_stands_for_no_class(tokenizer: BertTokenizer) -> None:
    prompt = one_prompt(["# dog"], ClassSet.from_names(["# dog"]), tokenizer)
    assert prompt.input_ids == (CLS, UNKNOWN, tokenizer.convert_tokens_to_ids("dog"), STOP, SEP)
    assert prompt.token_class_ids == (-1, -1, 1, -1, -1)


def test_a_phrase_repeated_by_its_class_is_prompted_once(tmp_path: Path, tokenizer: BertTokenizer) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("classes: {t\u00e9a: {phrases: [t\u00e9a, tea, dog]}}", encoding="utf-8")
    assert one_prompt(["t\u00e9a"], ClassSet.load(str(path)), tokenizer).phrases == ("t\u00e9a", "dog")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- dog\n- '##'\n", 2, "the phrase '##' of class '##' has no token that the detector knows"),
        ("- dog\n- \u732b \u72ac\n", 2, "has no token that the detector knows"),
        ("- dog\n- '\u200b'\n", 2, "has no token that the detector knows"),
        ("classes:\n  dog:\n    phrases:\n    - dog\n    - '#.#'\n", 5, "the phrase '# #' of class 'dog' has no"),
        ("classes:\n  dog:\n    assist: ['#']\n", 3, "write it in other words under `assist` of that class"),
        ("- t\u00e9a\n- tea\n", 2, "'tea' of class 'tea' has the same tokens as 't\u00e9a' of class 't\u00e9a'"),
        ("- dog\n- " + "a " * 40, 2, "has 40 tokens; the detector reads at most 37"),
    ],
)
def test_phrases_the_detector_cannot_read_are_refused_with_their_line(
    tmp_path: Path, text: str, line: int, message: str, tokenizer: BertTokenizer
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    class_set = ClassSet.load(str(path))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        PromptBuilder(class_set, tokenizer, max_tokens=40)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_assist_words_that_are_off_are_not_checked(tmp_path: Path, tokenizer: BertTokenizer) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("classes: {dog: {assist: ['#']}}", encoding="utf-8")
    PromptBuilder(ClassSet.load(str(path), assist_words=False), tokenizer)
    with pytest.raises(ValueError, match="phrase '#'"):
        PromptBuilder(ClassSet.load(str(path)), tokenizer)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_phrases_pass_the_check(name: str, tokenizer: BertTokenizer) -> None:
    PromptBuilder(ClassSet.load(name, assist_words=True), tokenizer)


def test_phrases_are_tokenized_once_for_all_images(tokenizer: BertTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer would take a third of a millisecond an image, while the device waits."""
    builder = PromptBuilder(ClassSet.load("voc"), tokenizer)
    expected = builder.build(["dog", "person"])
    monkeypatch.setattr(BertTokenizer, "__call__", None)  # any call would fail
    assert builder.build(["person", "dog"]) == expected
