"""YAML values that know their file and line, so that an error can name the line to correct.

Only plain YAML is read (`yaml.SafeLoader`). Each value is taken from the parse tree by a reader that says what it
expects, so that no input can construct anything else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from wsss_ray.errors import suggest

DEEPEST = 20
"""Levels of nesting that a file may have."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """One YAML value with its file and line."""

    node: yaml.Node
    """The value's node in the parse tree."""
    source: str
    """Name of the file, as errors show it."""

    @property
    def line(self) -> int:
        """Line in the file, from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def position(self) -> str:
        """`file:line`."""
        return f"{self.source}:{self.line}"

    def error(self, message: str) -> ValueError:
        """Return a ValueError whose text begins with file and line, for the caller to raise."""
        return ValueError(f"{self.position}: {message}")

    @property
    def is_null(self) -> bool:
        """Return whether no value is written (`key:` alone)."""
        return bool(self.node.tag == "tag:yaml.org,2002:null")

    @property
    def is_list(self) -> bool:
        """Return whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode) and self.node.tag == "tag:yaml.org,2002:seq"

    def _scalar(self, kind: str) -> str | None:
        """Return the written text of a scalar that YAML reads as `kind` (str, int, bool, ...), else None."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag == f"tag:yaml.org,2002:{kind}":
            return str(self.node.value)
        return None

    def text(self, what: str) -> str:
        """Return the text, with runs of white space as one space; `what` names it in the error."""
        value = self._scalar("str")
        if value is None:
            if self._scalar("merge"):
                raise self.error("`<<` is not supported: write the keys out.")
            if isinstance(self.node, yaml.ScalarNode) and self.node.value:
                raise self.error(f"YAML does not read `{self.node.value}` as text: put {what} in quotes.")
            raise self.error(f"{what} must be text, not {self.describe()}.")
        if not (value := " ".join(value.split())):
            raise self.error(f"{what} is empty: write its text or remove it.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(f"{what} has an escape that is no character: {value!r:.40}.")
        return value

    def integer(self, what: str) -> int:
        """Return the whole number; `what` names it in the error."""
        value = self._scalar("int")
        if value is None or not re.fullmatch(r"[-+]?[0-9]{1,18}", value):
            raise self.error(f"{what} must be a whole number, not {self.describe()}.")
        return int(value)

    def boolean(self, what: str) -> bool:
        """Return the truth value; `what` names it in the error."""
        value = self._scalar("bool")
        if value is None:
            raise self.error(f"{what} must be true or false, not {self.describe()}.")
        return bool(SafeConstructor.bool_values[value.lower()])

    def plain(self, what: str) -> Any:
        """Return the text, number, truth value or None that is written, or a tuple of such; `what` names it."""
        if self.is_list:
            return tuple(item._plain_scalar(f"an item of {what}") for item in self.items(what))
        return self._plain_scalar(what)

    def _plain_scalar(self, what: str) -> Any:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"{what} must be a value, not {self.describe()}.")
        if self._scalar("timestamp"):
            raise self.error(f"YAML reads `{self.node.value}` as a date: put {what} in quotes.")
        try:
            return SafeConstructor().construct_object(self.node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.error(f"{what} cannot be read: `{str(self.node.value)[:100]}`.") from error

    def items(self, what: str) -> list[Located]:
        """Return the list's items; `what` names it in the error."""
        if not isinstance(self.node, yaml.SequenceNode) or not self.is_list:
            raise self.error(f"{what} must be a list, such as [one, two], not {self.describe()}.")
        return [Located(node=node, source=self.source) for node in self.node.value]

    def entries(self, what: str, *, keys: Collection[str] | None = None) -> list[tuple[Located, Located]]:
        """Return the mapping's keys and values in order; keys are text, unique, and among `keys` if given."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"{what} must hold `key: value` lines, not {self.describe()}.")
        pairs = [tuple(Located(node=node, source=self.source) for node in pair) for pair in self.node.value]
        first_lines: dict[str, int] = {}
        for key, _ in pairs:
            name = key.text("a key")
            if keys is not None and name not in keys:
                raise key.error(f"unknown key `{name}` in {what}.{suggest(name, keys)} Valid: {', '.join(keys)}.")
            if name in first_lines:
                raise key.error(f"`{name}` is given twice in {what}, first on line {first_lines[name]}: remove one.")
            first_lines[name] = key.line
        return [(key, value) for key, value in pairs]

    def describe(self) -> str:
        """Return what is written here, in words for an error."""
        if isinstance(self.node, yaml.ScalarNode):
            return f"`{str(self.node.value)[:100]}`" if self.node.value else "nothing"
        if self.is_list:
            return "a list"
        return "a mapping" if self.node.tag == "tag:yaml.org,2002:map" else f"a value of the tag `{self.node.tag}`"


def compose(text: str, *, source: str) -> Located | None:
    """Return the document's top value, or None for an empty document.

    Args:
        text: the YAML document.
        source: name of the file, as errors show it.

    Raises:
        ValueError: it is not YAML, or nested too deeply; names file and line.
    """
    try:
        _check_depth(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f"{source}:{mark.line + 1}" if mark else source
        raise ValueError(f"{position}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {error}") from error
    return None if node is None else Located(node=node, source=source)


def _check_depth(text: str, source: str) -> None:
    """Raise a ValueError if a value is nested deeper than DEEPEST: building the parse tree recurses for each level."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise ValueError(f"{source}:{line}: more than {DEEPEST} levels are nested.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
