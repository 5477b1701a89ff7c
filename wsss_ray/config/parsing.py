"""From a YAML file and flags to a configuration: the only module that knows the command-line library (tyro)."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typeguard
import tyro
import yaml

from wsss_ray.config import builtin

ConfigT = TypeVar("ConfigT")


class ConfigError(ValueError):
    """A configuration file or flag that cannot be used; the text says where and what is valid."""


def parse(config_type: type[ConfigT], argv: Sequence[str] | None = None, *, program: str | None = None) -> ConfigT:
    """Return the configuration from each `--config`, of which a later one wins, and the flags, which win over all.

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
        "configuration (`wsss-ray init` lists them) or a file. It may be given several times; a later one wins, and "
        "flags win over all."
    )
    try:
        paths, arguments = _take_config_flags(arguments)
        files = [_read_yaml(builtin.find(path)) for path in paths]
        for path, values in zip(paths, files, strict=True):
            _build(config_type, values, where=path, prefix="")  # names the file at fault
        merged: dict[str, Any] = {}
        for values in files:
            merged = _merge(merged, values)
        default = _build(config_type, merged, where=" and ".join(paths), prefix="")
        return tyro.cli(config_type, prog=program, args=arguments, default=default, description=description)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as ended:
        if ended.code == 2:
            print("error: these flags cannot be used; the lines above say why.", file=sys.stderr)
        raise


def unset_defaults(config_type: type[ConfigT]) -> ConfigT:
    """Return the configuration of the defaults, with tyro.MISSING for required fields."""
    return _build(config_type, {}, where="", prefix="")


class _StrictLoader(yaml.SafeLoader):
    """YAML without tags that run code, and without a key that silently wins over an equal one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there already."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key}` is given twice: keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _take_config_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The paths of all --config flags, in order, and the other arguments."""
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


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of two files; those of `above` win."""
    merged = {str(key).replace("-", "_"): value for key, value in below.items()}
    for key, value in above.items():
        name = str(key).replace("-", "_")
        there = merged.get(name)
        merged[name] = _merge(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, not a {type(values).__name__}.")
    return values


def _build(
    config_type: type[ConfigT], values: Mapping[str, Any], *, where: str, prefix: str, base: ConfigT | None = None
) -> ConfigT:
    """Make the dataclass from YAML values, the rest from `base`, the default of a section, where there is one.

    Fields that neither YAML nor a default gives are left to the flags.
    """
    hints = typing.get_type_hints(config_type)
    fields = {item.name: item for item in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean `{prefix}{near[0]}`?" if near else ""
            raise ConfigError(f"{where}: unknown key `{prefix}{key}`.{hint} Valid: {', '.join(fields)}.")
        if name in arguments:
            raise ConfigError(f"{where}: `{prefix}{name}` is given twice.")
        arguments[name] = _convert(
            value, hints[name], where=where, key=prefix + name, base=_default(fields[name], base)
        )
    for item in fields.values():
        if item.name not in arguments:
            arguments[item.name] = _default(item, base)
    try:
        return config_type(**arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if values else str(error)) from error


def _default(item: dataclasses.Field[Any], base: object | None) -> Any:
    """A field's value in the default of its section, else its own default; tyro.MISSING for neither."""
    if base is not None:
        return getattr(base, item.name)
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return tyro.MISSING if item.default is dataclasses.MISSING else item.default


def _convert(value: Any, hint: Any, *, where: str, key: str, base: Any = None) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: `{key}` must hold `key: value` lines, not {value!r}.")
        default = base if isinstance(base, typing.cast(type, hint)) else None
        return _build(typing.cast(type, hint), value, where=where, prefix=f"{key}.", base=default)
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in (hint, *typing.get_args(hint)):
        value = float(value)
    try:
        return typeguard.check_type(value, hint)
    except typeguard.TypeCheckError as error:
        raise ConfigError(f"{where}: `{key}: {value!r}`: {error}.") from error
