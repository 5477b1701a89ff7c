"""Prompts: the tags of an image as text for the detector, with the class of every token beside its id.

A detector of the Grounding DINO family reads phrases closed by full stops (`dog . potted plant .`) and scores every
query against every token. A box belongs to the class of its best token (paper, 3.1), so the classes of tokens are
noted while the ids are built, phrase by phrase: equal words in different phrases ("hot dog", "dog") cannot be confused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from wsss_ray.classes import ClassEntry, ClassSet
from wsss_ray.classes.entry import clean_phrase

NO_CLASS = -1
"""Class id and phrase index of a token that stands for no class."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text for the detector: [CLS], then the tokens of each phrase and a full stop, then [SEP].

    Equal prompts are equal objects and hash alike. The three tuples of tokens have one length.
    """

    text: str
    """What the tokens say, in lower case; tokenising it gives `input_ids`."""
    input_ids: tuple[int, ...]
    """Token ids, [CLS] and [SEP] included, not padded."""
    token_class_ids: tuple[int, ...]
    """Class id (of the class set) of each token; -1 for [CLS], full stops, [SEP] and unknown tokens."""
    token_phrases: tuple[int, ...]
    """Index into `phrases` of each token; -1 in the same places."""
    phrases: tuple[str, ...]
    """The phrases, in order."""


@dataclass(frozen=True, kw_only=True)
class _Phrase:
    text: str
    entry: ClassEntry
    token_ids: tuple[int, ...]


def build_prompts(
    tags: Iterable[str],
    class_set: ClassSet,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int = 256,
    separator: str = " . ",
) -> list[Prompt]:
    """The prompts of one image: usually one; none without tags; several where one would exceed `max_tokens`.

    Classes stand in the class set's order whatever the order of `tags`, each with its phrases and then, where they are
    on, its assist words. `max_tokens` is what the model reads at once, [CLS], full stops and [SEP] included.
    `separator` (a full stop, with spaces or without) changes the text, not the tokens. Raises UnknownTagError for a tag
    of no class, and ValueError for phrases that `check_phrases` refuses.
    """
    assert separator.strip() == ".", f"separator {separator!r} is not a full stop"
    tagged = {class_set.canonical(tag) for tag in tags}
    entries = [entry for entry in class_set.classes if entry.name in tagged]
    groups: list[list[_Phrase]] = []
    length = max_tokens
    for phrase in _tokenise(entries, class_set, tokenizer, max_tokens):
        added = len(phrase.token_ids) + 1
        if length + added > max_tokens:
            groups.append([])
            length = 2  # [CLS] and [SEP]
        groups[-1].append(phrase)
        length += added
    return [_join(group, tokenizer, separator) for group in groups]


def check_phrases(class_set: ClassSet, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int = 256) -> None:
    """Check every phrase of the set against the tokenizer, before the first image is read.

    Raises ValueError, naming class, phrase and, where the set was read from a file, its line, for a phrase of which the
    tokenizer knows nothing, one longer than `max_tokens` allows, and one whose tokens are those of another class's.
    """
    _tokenise(class_set.classes, class_set, tokenizer, max_tokens)


def _tokenise(
    entries: Sequence[ClassEntry], class_set: ClassSet, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[_Phrase]:
    """The phrases of these classes with their token ids; a phrase that its own class repeats is left out."""
    named = [(entry, text) for entry in entries for text in class_set.phrases_of(entry.name)]
    if not named:
        return []
    encoded = tokenizer([text for _, text in named], add_special_tokens=False)["input_ids"]
    unknown = {tokenizer.unk_token_id}
    delimiters = {_full_stop(tokenizer), tokenizer.cls_token_id, tokenizer.sep_token_id}
    phrases: dict[tuple[int, ...], _Phrase] = {}
    for (entry, text), token_ids in zip(named, map(tuple, encoded), strict=True):
        assert delimiters.isdisjoint(token_ids), f"{text!r} holds a delimiter though it is lower case and clean"
        if set(token_ids) <= unknown:
            raise _error(entry, text, "holds no token that the detector knows")
        if len(token_ids) + 3 > max_tokens:  # [CLS], full stop, [SEP]
            raise _error(entry, text, f"has {len(token_ids)} tokens; the detector reads {max_tokens - 3} at most")
        first = phrases.setdefault(token_ids, _Phrase(text=text, entry=entry, token_ids=token_ids))
        if first.entry is not entry:
            raise _error(entry, text, f"reads to the detector like '{first.text}' of class '{first.entry.name}'")
    return list(phrases.values())


def _error(entry: ClassEntry, text: str, problem: str) -> ValueError:
    for key, texts in (("phrases", entry.phrases), ("assist", entry.assist)):
        for written in texts:
            if clean_phrase(written) == text:
                return ValueError(
                    f"{entry.position(key, written)}: the phrase '{text}' of class '{entry.name}' {problem}: "
                    f"write it in other words under `{key}` of that class."
                )
    raise AssertionError(f"phrase {text!r} is not of class {entry.name!r}")


def _join(phrases: Sequence[_Phrase], tokenizer: PreTrainedTokenizerBase, separator: str) -> Prompt:
    full_stop = _full_stop(tokenizer)
    input_ids = [tokenizer.cls_token_id]
    class_ids = [NO_CLASS]
    indices = [NO_CLASS]
    for index, phrase in enumerate(phrases):
        for token_id in phrase.token_ids:
            known = token_id != tokenizer.unk_token_id  # the published code, too, takes [UNK] for no phrase's token
            input_ids.append(token_id)
            class_ids.append(phrase.entry.id if known else NO_CLASS)
            indices.append(index if known else NO_CLASS)
        input_ids.append(full_stop)
        class_ids.append(NO_CLASS)
        indices.append(NO_CLASS)
    texts = tuple(phrase.text for phrase in phrases)
    return Prompt(
        text=separator.join(texts) + separator.rstrip(),
        input_ids=(*input_ids, tokenizer.sep_token_id),
        token_class_ids=(*class_ids, NO_CLASS),
        token_phrases=(*indices, NO_CLASS),
        phrases=texts,
    )


def _full_stop(tokenizer: PreTrainedTokenizerBase) -> int:
    full_stop = tokenizer.convert_tokens_to_ids(".")
    assert full_stop != tokenizer.unk_token_id, "the detector's vocabulary has no full stop"
    return int(full_stop)
