"""Completion scripts for shells: commands, flags, their choices and the names of built-in configurations."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import tyro

from wsss_ray.config import builtin
from wsss_ray.config.parsing import read_files

SHELLS = ("bash", "zsh", "fish", "tcsh")


def script(configs: Mapping[str, type[Any]], arguments: Sequence[str], *, program: str) -> str:
    """Return the completion script for the shell that the arguments name.

    Args:
        configs: name of each command -> its configuration.
        arguments: what follows `completion` on the command line.
        program: name of the command to complete.

    Raises:
        ValueError: the arguments are not one known shell.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise ValueError(
            f"usage: {program} completion SHELL, of {', '.join(SHELLS)}. In bash: source <({program} completion bash)"
        )
    parts = [_command(name, config) for name, config in configs.items()]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(reduce(or_, parts), prog=program, args=["--tyro-print-completion", arguments[0]])
    return printed.getvalue().replace("complete -F ", "complete -o default -F ")  # bash: files where no choice fits


def _command(name: str, config: Any) -> Any:
    """Return the type that tyro completes for one command: `--config` and the configuration's flags."""
    names: Any = Literal[builtin.names()]
    files = Annotated[names, tyro.conf.arg(help="A built-in configuration or a YAML file.")]
    flags = Annotated[config, tyro.conf.arg(name="")]
    fields: list[Any] = [
        ("config", files, dataclasses.field(default="voc")),
        ("flags", flags, dataclasses.field(default=read_files(config, []))),
    ]
    return Annotated[dataclasses.make_dataclass(name, fields, kw_only=True), tyro.conf.subcommand(name)]
