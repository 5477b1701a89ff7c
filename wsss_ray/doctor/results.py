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
    """All findings of one node, or those that several nodes share."""

    nodes: tuple[str, ...]
    """Addresses of the nodes."""
    findings: tuple[CheckResult, ...]

    @property
    def name(self) -> str:
        """The node's address, with the number of the others."""
        others = len(self.nodes) - 1
        return self.nodes[0] + (f" and {others} more" if others else "")


def merge(nodes: Iterable[tuple[str, Sequence[CheckResult]]]) -> list[NodeResults]:
    """Return the findings by node, equal ones as one entry: a large cluster has few kinds of nodes."""
    groups: dict[tuple[CheckResult, ...], list[str]] = {}
    for node, findings in nodes:
        groups.setdefault(tuple(findings), []).append(node)
    return [NodeResults(nodes=tuple(names), findings=findings) for findings, names in groups.items()]


def format_results(groups: Sequence[NodeResults]) -> str:
    """Return a table of all findings, then what to do about the warnings and errors."""
    lines, advice = [], []
    for group in groups:
        lines.append(f"node {group.name}")
        width = max(len(finding.check) for finding in group.findings)
        for finding in group.findings:
            lines.append(f"  {finding.state:<7}  {finding.check:<{width}}  {finding.found}")
            if finding.advice:
                advice.append(f"{finding.state}: {finding.check} on {group.name}: {finding.advice}")
    return "\n".join([*lines, *dict.fromkeys(advice)])
