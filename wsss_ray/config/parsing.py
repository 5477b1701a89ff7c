"""Read a configuration from files and flags: the only module that knows the command-line library (tyro)."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from wsss_ray.addresses import refuse_credentials
from wsss_ray.config import builtin
from wsss_ray.config.shared import FieldError
from wsss_ray.config.strict_yaml import Located, compose
from wsss_ray.errors import suggest

ConfigT = TypeVar("ConfigT")


class ConfigError(ValueError):
    """A configuration file that cannot be used; the text says where and what is valid."""


def parse(config_type: type[ConfigT], argv: Sequence[str] | None = None, *, program: str | None = None) -> ConfigT:
    """Return the configuration of the `--config` files, a later one over an earlier one, and of the flags, over all.

    Prints help or the error and exits, as a command line does (status 2 for bad input).

    Args:
        config_type: the configuration's class.
        argv: the flags; those of this process if None.
        program: name of the command, for help and errors; this process's if None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    description = (
        f"{inspect.cleandoc(typing.cast(str, config_type.__doc__))}\n\n"
        "--config NAME-OR-FILE reads the same fields from YAML (nested as the flags' dots show): a built-in "
        "configuration (`wsss-ray init` lists them) or a file. It may be given several times; a later one overrides "
        "an earlier one, and flags override all."
    )
    try:
        for argument in arguments:
            refuse_credentials(argument)  # before an error could show it
        paths, arguments = _take_config_flags(arguments)
        default = read_files(config_type, [builtin.find(path) for path in paths])
        return tyro.cli(config_type, prog=program, args=arguments, default=default, description=description)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as ended:
        if ended.code == 2:
            print("error: these flags cannot be used; the lines above say why.", file=sys.stderr)
        raise


def read_files(config_type: type[ConfigT], paths: Sequence[Path]) -> ConfigT:
    """Return the configuration that files give, a later one over an earlier one.

    Fields that neither a file nor a default gives are tyro.MISSING.

    Raises:
        ConfigError: a file cannot be used; names file, line and key.
    """
    written = _Written()
    for path in paths:
        try:
            document = compose(path.read_text(encoding="utf-8"), source=str(path))
            if document is not None:
                _collect(config_type, document, written, prefix="")
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text: {error}.") from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return _build(config_type, written)


def _take_config_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the values of all --config flags, in order, and the other arguments."""
    paths, others = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            path = next(remaining, None)
            if path is None:
                raise ConfigError("--config needs a name or a file after it: `wsss-ray init` lists the built-in names.")
            paths.append(path)
        elif argument.startswith("--config="):
            paths.append(argument.removeprefix("--config="))
        else:
            others.append(argument)
    return paths, others


@dataclasses.dataclass
class _Written:
    """Values that files give for one section."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    sections: dict[str, _Written] = dataclasses.field(default_factory=dict)
    at: dict[str, Located] = dataclasses.field(default_factory=dict)
    """Position of each value, for errors."""


def _collect(config_type: type[Any], mapping: Located, written: _Written, *, prefix: str) -> None:
    """Add a file's values of one section, and of the sections in it, over those of earlier files."""
    hints = typing.get_type_hints(config_type)
    names = [item.name for item in dataclasses.fields(config_type)]
    seen = set()
    for key, value in mapping.entries(f"`{prefix[:-1]}`" if prefix else "a configuration"):
        name = key.text("a key").replace("-", "_")
        if name not in names:
            hint = suggest(name, names, prefix=prefix)
            raise key.error(f"unknown key `{prefix}{name}`.{hint} Valid: {', '.join(names)}.")
        if name in seen:
            raise key.error(f"`{prefix}{name}` is given twice: remove one.")
        seen.add(name)
        written.at[name] = value
        if dataclasses.is_dataclass(hints[name]):
            section = written.sections.setdefault(name, _Written())
            _collect(typing.cast(type, hints[name]), value, section, prefix=f"{prefix}{name}.")
        else:
            written.values[name] = _convert(value, hints[name], prefix + name)


def _build(config_type: type[ConfigT], written: _Written, base: object = None) -> ConfigT:
    """Return the dataclass of what is written, the rest from `base`, the default of the section, if there is one."""
    hints = typing.get_type_hints(config_type)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(config_type):  # type: ignore[arg-type]
        default = _default(item, base)
        if item.name in written.sections:
            section = hints[item.name]
            inner = default if isinstance(default, section) else None
            arguments[item.name] = _build(section, written.sections[item.name], inner)
        else:
            arguments[item.name] = written.values.get(item.name, default)
    try:
        return config_type(**arguments)
    except ValueError as error:
        located = written.at.get(error.field) if isinstance(error, FieldError) else None
        located = located or next(iter(written.at.values()), None)
        raise ConfigError(f"{located.position}: {error}" if located else str(error)) from error


def _default(item: dataclasses.Field[Any], base: object | None) -> Any:
    """Return a field's value in the default of its section, else its own default; tyro.MISSING if it has neither."""
    if base is not None:
        return getattr(base, item.name)
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return tyro.MISSING if item.default is dataclasses.MISSING else item.default


def _convert(value: Located, hint: Any, key: str) -> Any:
    """Return a value of the field's type; ValueError with file, line and key if it is none."""
    if typing.get_origin(hint) is dict:
        inner = typing.get_args(hint)[1]
        entries = value.entries(f"`{key}`")
        return {name.text("a key"): _convert(item, inner, f"{key}.{name.text('a key')}") for name, item in entries}
    plain = value.plain(f"`{key}`")
    try:
        return _fit(plain, hint)
    except TypeError:
        raise value.error(f"`{key}` is {plain!r}: it must be {_words(hint)}.") from None


def _fit(value: Any, hint: Any) -> Any:
    """Return the value if it is of the type, a whole number as the float that the type wants; else TypeError."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if isinstance(value, str) and value in inner:
            return value
    elif origin in (typing.Union, types.UnionType):
        for option in inner:
            try:
                return _fit(value, option)
            except TypeError:
                continue
    elif origin is tuple:
        if isinstance(value, tuple):
            return tuple(_fit(item, inner[0]) for item in value)
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    raise TypeError


def _words(hint: Any) -> str:
    """Return what a type accepts, in words for an error."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(inner)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(option) for option in inner)
    if origin is tuple:
        return f"a list, each item {_words(inner[0])}"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    return names[hint]
