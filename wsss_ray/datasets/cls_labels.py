"""Image tags of a `cls_labels.npy`, read as hostile input."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import tokenize
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import numpy as np

_NUMBER_TYPES = frozenset(["b1", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
_MAX_NPY_BYTES = 200_000_000
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RecursionError, MemoryError),
    *(SyntaxError, tokenize.TokenError),  # numpy parses the header as Python
)
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_cls_labels(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the vectors of a `cls_labels.npy`: image id to (classes,) numbers, each 0 or 1.

    The file is a pickled dict. It cannot run code: only the few globals and opcodes that numpy writes are allowed, and
    the globals are replaced by plain records, so numpy itself never reads the file's state. Memory is bounded by the
    file's size.

    Raises:
        ValueError: it is no such file, or it needs anything else.
    """
    if len(data) > _MAX_NPY_BYTES:
        raise ValueError(f"{where}: {len(data)} bytes are too many for a cls_labels.npy.")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = _HEADER_READERS[version](stream)
        content = _load(stream) if dtype.hasobject and shape == () else None
        if not isinstance(content, _Array):
            raise TypeError(f"it holds an array {shape} of {dtype}")
        return {_key(key): _vector(key, value) for key, value in content.objects().items()}
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where}: refused: {error}.") from error
    except _UNREADABLE as error:
        raise ValueError(
            f"{where} is not a cls_labels.npy (a dict of image ids and vectors of 0 and 1): {error}."
        ) from error


def tags_of_vector(vector: np.ndarray, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the names of the classes for which a vector holds 1; `names` are the class set's in the order of ids."""
    if len(vector) != len(names):
        raise ValueError(
            f"{where}: {len(vector)} values, but the class set has {len(names)} classes: give the --classes that the "
            "file was made for."
        )
    return tuple(name for name, value in zip(names, vector, strict=True) if value)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r:.50} is not an image id")
    return key


def _vector(key: str, value: Any) -> np.ndarray:
    if not isinstance(value, _Array):
        raise TypeError(f"the value of {key!r:.50} is not an array")
    vector = value.numbers()
    if not np.isin(vector, (0, 1)).all():
        raise ValueError(f"the vector of {key!r:.50} holds other values than 0 and 1")
    return vector


class _Dtype:
    """The type of an array, as the file states it."""

    def __init__(self, text: Any = None, *_: Any) -> None:
        self.text = text
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if self.text not in _NUMBER_TYPES or self.order not in {"<", ">", "|", "="}:
            raise ValueError(f"arrays of type {self.order!r:.20}{self.text!r:.20} are not read")
        return np.dtype(self.text).newbyteorder(self.order)


class _Array:
    """An array, as the file states it."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state)

    def objects(self) -> Mapping[Any, Any]:
        """Return the one object of an array without dimensions."""
        _, shape, dtype, _, content = self.state
        if shape != () or dtype.text not in {"O", "O8"} or len(content) != 1 or not isinstance(content[0], dict):
            raise ValueError("it does not hold one dict")
        return content[0]

    def numbers(self) -> np.ndarray:
        """Return the values of an array of one dimension, not copied: many arrays may share the bytes."""
        _, shape, dtype, _, content = self.state
        if isinstance(content, str):  # as Python 2 wrote bytes
            content = content.encode("latin1")
        values = np.frombuffer(content, dtype=dtype.resolve())
        if len(shape) != 1 or math.prod(shape) != len(values):
            raise ValueError(f"an array says its shape is {shape!r:.50} and holds {len(values)} values")
        return values


class _NumpyArrayType:
    """Replaces `numpy.ndarray` where the file names it as an argument; it cannot be called."""


_KNOWN_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _NumpyArrayType,
    ("numpy", "dtype"): _Dtype,
}
_OPCODES = frozenset(
    [
        *("PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
        *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    ]
)
"""Opcodes of numpy's pickles, protocols 2 to 5."""


def _load(stream: io.BytesIO) -> Any:
    """Unpickle the rest of a file, once its opcodes are checked."""
    start = stream.tell()
    memoized = 0
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"the file has the opcode {opcode.name}, which no cls_labels.npy needs")
        if opcode.name in {"BINPUT", "LONG_BINPUT"} and cast("int", argument) > memoized + 1:
            raise pickle.UnpicklingError(f"the file memoizes {memoized} objects and then number {argument}")
        memoized += opcode.name in {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
    stream.seek(start)
    return _Unpickler(stream, max_bytes=len(stream.getbuffer())).load()


class _Unpickler(pickle.Unpickler):
    """Loads no globals but numpy's own."""

    def __init__(self, stream: io.BytesIO, *, max_bytes: int) -> None:
        super().__init__(stream, encoding="latin1")
        self._bytes_left = max_bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._latin1
        try:
            return _KNOWN_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the file needs {module}.{name}, which no cls_labels.npy needs") from None

    def persistent_load(self, _: Any) -> NoReturn:
        raise pickle.UnpicklingError("the file refers to objects outside itself")

    def _latin1(self, text: str, encoding: str) -> bytes:
        """Replace `_codecs.encode`, by which pickles of protocol 2 carry bytes; in all, at most the file's size."""
        self._bytes_left -= len(text)
        if encoding != "latin1" or self._bytes_left < 0:
            raise pickle.UnpicklingError(f"the file needs the codec {encoding!r:.50}, or for too many bytes")
        return text.encode("latin1")
