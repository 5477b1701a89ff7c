"""YAML values that know their file and line, so that an error can name the line to mend.

Only plain YAML is read (`yaml.SafeLoader`), and nothing is constructed from it: text, whole numbers, yes/no, lists and
mappings are taken from the parse tree, one by one, by a reader that says what it expects.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

import yaml
from yaml.constructor import SafeConstructor


@dataclass(frozen=True, kw_only=True)
class Located:
    """One YAML value and where it stands."""

    node: yaml.Node
    """The value's node in the parse tree."""
    source: str
    """Name of the file, as errors show it."""

    @property
    def line(self) -> int:
        """Line in the file, from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.source}:{self.line}"

    def error(self, message: str) -> ValueError:
        """A ValueError whose text begins with the place, for the caller to raise."""
        return ValueError(f"{self.place}: {message}")

    @property
    def is_null(self) -> bool:
        """Whether nothing is written here (`key:` and no value)."""
        return bool(self.node.tag == "tag:yaml.org,2002:null")

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    def _scalar(self, kind: str) -> str | None:
        """The written value where this is a scalar that YAML takes for `kind` (str, int, bool), else None."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag == f"tag:yaml.org,2002:{kind}":
            return str(self.node.value)
        return None

    def text(self, what: str) -> str:
        """The text, with runs of white space as one space; `what` names it in the error."""
        value = self._scalar("str")
        if value is None:
            if isinstance(self.node, yaml.ScalarNode) and self.node.value:
                raise self.error(f"YAML does not read `{self.node.value}` as text: put {what} in quotes.")
            raise self.error(f"{what} must be text, not {self._kind()}.")
        if not (value := " ".join(value.split())):
            raise self.error(f"{what} is empty: write its text or remove it.")
        return value

    def integer(self, what: str) -> int:
        """The whole number; `what` names it in the error."""
        value = self._scalar("int")
        if value is None or not re.fullmatch(r"[-+]?[0-9]+", value):
            raise self.error(f"{what} must be a whole number, not {self._kind()}.")
        return int(value)

    def boolean(self, what: str) -> bool:
        """The truth value; `what` names it in the error."""
        value = self._scalar("bool")
        if value is None:
            raise self.error(f"{what} must be true or false, not {self._kind()}.")
        return bool(SafeConstructor.bool_values[value.lower()])

    def items(self, what: str) -> list[Located]:
        """The list's items; `what` names it in the error."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"{what} must be a list, such as [one, two], not {self._kind()}.")
        return [Located(node=node, source=self.source) for node in self.node.value]

    def entries(self, what: str, *, keys: Collection[str] | None = None) -> list[tuple[Located, Located]]:
        """The mapping's keys and values, in order; text keys only, each once, and of `keys` if given."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"{what} must hold `key: value` lines, not {self._kind()}.")
        pairs = [tuple(Located(node=node, source=self.source) for node in pair) for pair in self.node.value]
        first_lines: dict[str, int] = {}
        for key, _ in pairs:
            name = key.text("a key")
            if keys is not None and name not in keys:
                near = difflib.get_close_matches(name, keys, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise key.error(f"unknown key `{name}` in {what}.{hint} Valid: {', '.join(keys)}.")
            if name in first_lines:
                raise key.error(f"`{name}` is given twice in {what}, first on line {first_lines[name]}: remove one.")
            first_lines[name] = key.line
        return [(key, value) for key, value in pairs]

    def _kind(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return f"`{self.node.value}`" if self.node.value else "nothing"
        return "a list" if self.is_list else "a mapping"


def compose(text: str, *, source: str) -> Located:
    """The document's top value; ValueError with file and line where it is not YAML, or empty."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        raise ValueError(f"{place}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {error}") from error
    if node is None:
        raise ValueError(f"{source}:1: the file is empty.")
    return Located(node=node, source=source)
