"""Prompts: the tags of an image as text for the detector, with the class of every token.

A detector of the Grounding DINO family reads phrases that end with full stops (`dog . potted plant .`) and scores every
query against every token. A box belongs to the class of its best token (paper, 3.1). The classes of tokens are recorded
while the token ids are built, phrase by phrase, so that equal words in different phrases ("hot dog", "dog") are not
confused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from wsss_ray.classes import ClassEntry, ClassSet
from wsss_ray.classes.entry import clean_phrase

NO_CLASS = -1
"""Class id and phrase index of a token that belongs to no class."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text for the detector: [CLS], then the tokens of each phrase and a full stop, then [SEP].

    Equal prompts compare equal and have equal hashes. The three tuples of tokens have the same length.
    """

    text: str
    """The text in lower case; tokenizing it gives `input_ids`."""
    input_ids: tuple[int, ...]
    """Token ids, [CLS] and [SEP] included, not padded."""
    token_class_ids: tuple[int, ...]
    """Class id (of the class set) of each token; -1 for [CLS], full stops, [SEP] and unknown tokens."""
    token_phrases: tuple[int, ...]
    """Index into `phrases` of each token; -1 where `token_class_ids` is -1."""
    phrases: tuple[str, ...]
    """The phrases, in order."""


@dataclass(frozen=True, kw_only=True)
class _Phrase:
    text: str
    entry: ClassEntry
    token_ids: tuple[int, ...]


class PromptBuilder:
    """Builds the prompts of images. All phrases of the class set are tokenized once, when it is created."""

    def __init__(self, class_set: ClassSet, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int = 256) -> None:
        """Tokenize and check every phrase of the class set.

        Args:
            class_set: the classes.
            tokenizer: the detector's tokenizer.
            max_tokens: largest number of tokens in a prompt, [CLS], full stops and [SEP] included.

        Raises:
            ValueError: the tokenizer knows no token of a phrase, a phrase is longer than `max_tokens` allows, or it has
                the tokens of a phrase of another class. The text names class, phrase and, for a class set from a file,
                its line.
        """
        self._class_set = class_set
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._phrases = _tokenize(class_set, tokenizer, max_tokens)

    def build(self, tags: Iterable[str]) -> list[Prompt]:
        """Return the prompts of one image: usually one; none without tags; several where one would be too long.

        Classes are in the order of the class set, whatever the order of `tags`. Each has its phrases and then, where
        assist words are on, its assist words.

        Args:
            tags: names or aliases of classes.

        Raises:
            UnknownTagError: a tag is not in the class set.
        """
        tagged = {self._class_set.canonical(tag) for tag in tags}
        groups: list[list[_Phrase]] = []
        length = self._max_tokens
        for phrase in self._phrases:
            if phrase.entry.name not in tagged:
                continue
            added = len(phrase.token_ids) + 1
            if length + added > self._max_tokens:
                groups.append([])
                length = 2  # [CLS] and [SEP]
            groups[-1].append(phrase)
            length += added
        return [_join(group, self._tokenizer) for group in groups]


def _tokenize(class_set: ClassSet, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[_Phrase]:
    """Return the phrases of all classes with their token ids, without repeated phrases of a class."""
    named = [(entry, text) for entry in class_set.classes for text in class_set.phrases_of(entry.name)]
    if not named:
        return []
    encoded = tokenizer([text for _, text in named], add_special_tokens=False)["input_ids"]
    unknown = {tokenizer.unk_token_id}
    delimiters = {_full_stop(tokenizer), tokenizer.cls_token_id, tokenizer.sep_token_id}
    phrases: dict[tuple[int, ...], _Phrase] = {}
    for (entry, text), token_ids in zip(named, map(tuple, encoded), strict=True):
        assert delimiters.isdisjoint(token_ids), f"{text!r} has a delimiter though it is lower case and clean"
        if set(token_ids) <= unknown:
            raise _error(entry, text, "has no token that the detector knows")
        if len(token_ids) + 3 > max_tokens:  # [CLS], full stop, [SEP]
            raise _error(entry, text, f"has {len(token_ids)} tokens; the detector reads at most {max_tokens - 3}")
        first = phrases.setdefault(token_ids, _Phrase(text=text, entry=entry, token_ids=token_ids))
        if first.entry is not entry:
            raise _error(entry, text, f"has the same tokens as '{first.text}' of class '{first.entry.name}'")
    return list(phrases.values())


def _error(entry: ClassEntry, text: str, problem: str) -> ValueError:
    """Return the error for a phrase, with its position in the class set's file."""
    for key, texts in (("phrases", entry.phrases), ("assist", entry.assist)):
        for written in texts:
            if clean_phrase(written) == text:
                return ValueError(
                    f"{entry.position(key, written)}: the phrase '{text}' of class '{entry.name}' {problem}: "
                    f"write it in other words under `{key}` of that class."
                )
    raise AssertionError(f"phrase {text!r} is not of class {entry.name!r}")


def _join(phrases: Sequence[_Phrase], tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Return the prompt of these phrases."""
    full_stop = _full_stop(tokenizer)
    input_ids = [tokenizer.cls_token_id]
    class_ids = [NO_CLASS]
    indices = [NO_CLASS]
    for index, phrase in enumerate(phrases):
        for token_id in phrase.token_ids:
            known = token_id != tokenizer.unk_token_id  # as in the published code, [UNK] belongs to no phrase
            input_ids.append(token_id)
            class_ids.append(phrase.entry.id if known else NO_CLASS)
            indices.append(index if known else NO_CLASS)
        input_ids.append(full_stop)
        class_ids.append(NO_CLASS)
        indices.append(NO_CLASS)
    texts = tuple(phrase.text for phrase in phrases)
    return Prompt(
        text=" . ".join(texts) + " .",
        input_ids=(*input_ids, tokenizer.sep_token_id),
        token_class_ids=(*class_ids, NO_CLASS),
        token_phrases=(*indices, NO_CLASS),
        phrases=texts,
    )


def _full_stop(tokenizer: PreTrainedTokenizerBase) -> int:
    full_stop = tokenizer.convert_tokens_to_ids(".")
    assert full_stop != tokenizer.unk_token_id, "the detector's vocabulary has no full stop"
    return int(full_stop)
