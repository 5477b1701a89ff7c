"""Files that claim or unpack to gigabytes are refused before the memory is taken, as images and as labels and truth."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest

SIDE = 40_000  # 1.6 gigapixels: 200 MB at one bit, 4.8 GB as RGB


def png(*, depth: int, colour: int, channels: int) -> bytes:
    """A valid PNG of zeros, whose file has a thousandth of its pixels' bytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + SIDE * channels * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(SIDE)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, SIDE, SIDE, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    return (
        b"\xff\xd8"
        + frame
        + b"\xff\xda"
        + struct.pack(">H", 12)
        + b"\3\1\0\2\x11\3\x11\0\x3f\0"
        + bytes(50)
        + b"\xff\xd9"
    )


def bmp() -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def tiff() -> bytes:
    entries = [(256, SIDE), (257, SIDE), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, SIDE), (279, 10)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return (
        b"II*\0"
        + struct.pack("<I", 18)
        + zlib.compress(b"")[:10].ljust(10, b"\0")
        + struct.pack("<H", 9)
        + directory
        + bytes(4)
    )


FILES: dict[str, Callable[[], bytes]] = {
    "palette": lambda: png(depth=1, colour=3, channels=1),
    "grey": lambda: png(depth=1, colour=0, channels=1),
    "jpeg": jpeg,
    "bmp": bmp,
    "tiff": tiff,
}
SCRIPT = """
import json, resource, sys
from pathlib import Path
from wsss_ray.classes import ClassSet
from wsss_ray.images.decoding import decode_image, decode_row, read_size
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_label, decode_truth
from wsss_ray.datasets.paths import UnreadableError, read_inside
from wsss_ray.storage.storage import Storage
from wsss_ray.labels.inputs import find_pngs
palette = ClassSet.load("voc").palette()
readers = {
    "size": lambda data: read_size(data, exif="apply"),
    "image": lambda data: decode_image(data, exif="apply"),
    "label": decode_label,
    "truth": lambda data: decode_truth(data, size=(1, 1), allowed_ids=[1], ignore_id=255, palette=palette),
    "row": lambda data: decode_row({"image": data, "height": 9_999, "width": 9_999}, exif="apply"),
}
folder = Path(sys.argv[1])
told = {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(folder.glob("bomb-*")):
    for name, read in readers.items():
        try:
            read(path.read_bytes())
            told[f"{path.name} as {name}"] = "read"
        except ImageError as error:
            told[f"{path.name} as {name}"] = str(error)
try:
    read_inside(Storage(str(folder)), "sparse.png", size=(folder / "sparse.png").stat().st_size, max_bytes=200_000_000)
except UnreadableError as error:
    told["sparse.png"] = str(error)
told["a label folder"] = find_pngs(Storage(str(folder)), what="labels").read(None, ["sparse"], [0])[0].problem
print(json.dumps([told, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """What a fresh process said of every file read every way, and the MiB by which its memory grew at most."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in FILES.items():
        (folder / f"bomb-{name}").write_bytes(make())
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(8 * 2**30)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reasons, mebibytes = json.loads(done.stdout)
    return reasons, mebibytes


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("use", ["size", "image", "row", "label", "truth"])
def test_bombs_are_refused_for_their_pixels(told: tuple[dict[str, str], float], name: str, use: str) -> None:
    assert told[0][f"bomb-{name} as {use}"].startswith("too many pixels")


def test_a_file_above_the_limit_is_not_read(told: tuple[dict[str, str], float]) -> None:
    assert told[0]["sparse.png"].startswith("too large: 8589934592 bytes")
    assert re.fullmatch(
        r"too large: /.*/sparse\.png has 8589934592 bytes, the limit is 200000000", told[0]["a label folder"]
    )


def test_no_memory_was_taken(told: tuple[dict[str, str], float]) -> None:
    assert told[1] < 30  # the files themselves have 0.6 MB, the smallest picture of them 200
