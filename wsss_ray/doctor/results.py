"""Results of the checks of nodes, and their table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check on one node."""

    check: str
    """What was checked, in one or two words."""
    found: str
    """What was found."""
    state: State = "ok"
    """warning: the job runs, but slower or less safely. error: it would fail."""
    advice: str = ""
    """What to do about a warning or an error."""


@dataclass(frozen=True, kw_only=True)
class NodeResults:
    """All results of one node, or those that several nodes share."""

    nodes: tuple[str, ...]
    """Addresses of the nodes."""
    results: tuple[CheckResult, ...]

    @property
    def name(self) -> str:
        """The node's address, with the number of the others."""
        others = len(self.nodes) - 1
        return self.nodes[0] + (f" and {others} more" if others else "")


def merge(nodes: Iterable[tuple[str, Sequence[CheckResult]]]) -> list[NodeResults]:
    """Return the results by node, equal ones as one entry: a large cluster has few kinds of nodes."""
    groups: dict[tuple[CheckResult, ...], list[str]] = {}
    for node, results in nodes:
        groups.setdefault(tuple(results), []).append(node)
    return [NodeResults(nodes=tuple(names), results=results) for results, names in groups.items()]


def format_results(groups: Sequence[NodeResults]) -> str:
    """Return a table of all results, then what to do about the warnings and errors."""
    lines, advice = [], []
    for group in groups:
        lines.append(f"node {group.name}")
        width = max(len(result.check) for result in group.results)
        for result in group.results:
            lines.append(f"  {result.state:<7}  {result.check:<{width}}  {result.found}")
            if result.advice:
                advice.append(f"{result.state}: {result.check} on {group.name}: {result.advice}")
    return "\n".join([*lines, *dict.fromkeys(advice)])
