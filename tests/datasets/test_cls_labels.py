"""cls_labels.npy: the vectors in it, and nothing else that a pickle might do."""

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss_ray.datasets.cls_labels import read_cls_labels, tags_of_vector


def npy(content: Any, *, protocol: int = 4) -> bytes:
    """Bytes of `np.save` of a pickled object, with a chosen pickle protocol."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    return stream.getvalue() + pickle.dumps(np.array(content, dtype=object), protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_, ">f4"])
def test_cls_labels_of_every_kind_are_read(protocol: int, dtype: Any) -> None:
    content = {"2007_000032": np.array([1, 0, 1]).astype(dtype), "ü": np.zeros(3, dtype)}
    vectors = read_cls_labels(npy(content, protocol=protocol), "cls.npy")
    assert {key: vector.tolist() for key, vector in vectors.items()} == {"2007_000032": [1, 0, 1], "ü": [0, 0, 0]}


def test_numpy_itself_writes_what_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {"a": np.ones(2, np.float32)}, allow_pickle=True)  # type: ignore[arg-type]
    assert read_cls_labels((tmp_path / "a.npy").read_bytes(), "a.npy")["a"].tolist() == [1, 1]


def test_real_cls_labels(shared: Path) -> None:
    vectors = read_cls_labels((shared / "data/voc/cls_labels.npy").read_bytes(), "cls_labels.npy")
    assert len(vectors) == 220
    assert {len(vector) for vector in vectors.values()} == {20}
    assert np.flatnonzero(vectors["2007_000063"]).tolist() == [8, 11], "a chair and a dog"


class _Attack:
    """Pickles to a call of its own choosing."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_is_refused_and_does_not(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    for attack in (_Attack(Path.touch, trace), _Attack(eval, f"open({str(trace)!r}, 'w')"), _Attack(np.load, "x")):
        with pytest.raises(ValueError, match=r"^cls.npy: refused: the file needs"):
            read_cls_labels(npy({"a": attack}, protocol=protocol), "cls.npy")
    assert not trace.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cnumpy\nndarray\n(I1\ntR.",  # calls numpy.ndarray
        b"cnumpy\ndtype\n(S'O'\ntRcnumpy\ndtype\n(S'O'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(I1\nI2\nI3\ntR(I1\n(t(dtb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(I1\ntRI5\nb.",
        b"P1\n.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"",
        b"}.",
        b"c_codecs\nencode\n(V\nVbz2\ntR.",
    ],
)
def test_hostile_pickles_end_in_a_plain_error(raw: bytes) -> None:
    header = npy({})[: npy({}).index(b"\n") + 1]
    with pytest.raises(ValueError, match=r"^cls.npy"):
        read_cls_labels(header + raw, "cls.npy")


def test_a_hundred_bytes_take_no_memory() -> None:
    """A pickle that stores object 62,000,000 of its memo: the reader would allocate a gigabyte for the memo."""
    head = npy({})[: npy({}).index(b"\n") + 1]
    script = f"""
import resource
from wsss_ray.datasets.cls_labels import read_cls_labels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for raw in (b"Nr\\x80\\x0b\\xb2\\x03.", b"\\x96" + (10**10).to_bytes(8, "little") + b"."):
    try:
        read_cls_labels({head!r} + b"\\x80\\x05" + raw, "cls.npy")
    except ValueError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *errors, mebibytes = done.stdout.splitlines()
    assert errors[0] == "cls.npy: refused: the file memoizes 0 objects and then number 62000000."
    assert errors[1].startswith("cls.npy")
    assert int(mebibytes) < 20


def test_bytes_are_made_once() -> None:
    """A text of 200 bytes that is encoded a thousand times: a larger file would fill the memory."""
    text = b"X" + (200).to_bytes(4, "little") + b"x" * 200
    calls = b"c_codecs\nencode\nq\x01" + text + b"q\x02X\x06\0\0\0latin1q\x03"
    head = npy({})[: npy({}).index(b"\n") + 1]
    raw = b"\x80\x02]" + calls + b"h\x01h\x02h\x03\x86R" * 1000 + b"."
    with pytest.raises(ValueError, match="too many bytes"):
        read_cls_labels(head + raw, "cls.npy")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a cls_labels.npy"),
        (b"PK\3\4", "not a cls_labels.npy"),
        (npy([1]), "not a cls_labels.npy"),
        (npy({"a": "text"}), "the value of 'a' is not an array"),
        (npy({1: np.ones(2)}), "the key 1 is not an image id"),
        (npy({"a": np.ones((2, 2))}), "its shape is"),
        (npy({"a": np.array([0.5])}), "other values than 0 and 1"),
        (npy({"a": np.array([np.nan])}), "other values than 0 and 1"),
        (npy({"a": np.array(["x"])}), "arrays of type"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^cls.npy.*{message}"):
        read_cls_labels(data, "cls.npy")


def test_plain_arrays_are_refused() -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match="not a cls_labels"):
        read_cls_labels(stream.getvalue(), "cls.npy")


def test_vectors_name_classes_in_the_order_of_ids() -> None:
    assert tags_of_vector(np.array([1, 0, 1]), ("a", "b", "c"), "x") == ("a", "c")
    with pytest.raises(ValueError, match="2 values, but the class set has 3"):
        tags_of_vector(np.zeros(2), ("a", "b", "c"), "x")
