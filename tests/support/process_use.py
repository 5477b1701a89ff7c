"""Which tests start a process or a Ray, from what they use."""

from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest
import ray

from wsss_ray.engine.cluster import connect

TESTS = Path(__file__).resolve().parents[1]
STARTING_MODULES = (subprocess, multiprocessing)
STARTING_CALLS = {ray: {"init", "remote"}}


def starts_processes(item: pytest.Item) -> bool:
    """Return whether a test, its fixtures or the helpers that they call start a process or a Ray.

    The code of the package is not searched: a test that starts a process through it carries the mark `processes`.
    """
    if item.get_closest_marker("processes"):
        return True
    functions = [item.function] if isinstance(item, pytest.Function) else []
    fixtures = getattr(item, "_fixtureinfo", None)
    for definitions in fixtures.name2fixturedefs.values() if fixtures else ():
        functions += [definition.func for definition in definitions]
    return any(_function_starts(getattr(function, "__func__", function), frozenset()) for function in functions)


@functools.cache
def _function_starts(function: FunctionType, above: frozenset[FunctionType]) -> bool:
    function = getattr(function, "__wrapped__", function)
    if function in above or not isinstance(function, FunctionType):
        return False
    names = set(_names(function.__code__))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if value is connect:
            return True
        if isinstance(value, ModuleType):
            if value in STARTING_MODULES or names & STARTING_CALLS.get(value, set()):
                return True
            value = [getattr(value, other) for other in names if _is_of_tests(value) and hasattr(value, other)]
        if any(_function_starts(inner, above | {function}) for inner in _functions_in(value)):
            return True
    return False


def _functions_in(value: object) -> Iterator[FunctionType]:
    """Yield the functions of the tests that a value is or holds: a function, the methods of a class."""
    for member in value if isinstance(value, list) else [value]:
        if isinstance(member, FunctionType) and _is_of_tests(sys.modules.get(member.__module__)):
            yield member
        elif isinstance(member, type) and _is_of_tests(sys.modules.get(member.__module__)):
            yield from (method for method in vars(member).values() if isinstance(method, FunctionType))


def _is_of_tests(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(TESTS)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that a function and the functions within it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
