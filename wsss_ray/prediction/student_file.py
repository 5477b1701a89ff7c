"""Find a student: its file, digest, network and classes, without reading its weights."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.addresses import is_uri, local_path
from wsss_ray.classes import ClassEntry, ClassSet
from wsss_ray.classes.entry import voc_color
from wsss_ray.config import StorageConfig
from wsss_ray.models.student.header import STUDENT_FILE, read_spec
from wsss_ray.models.student.spec import StudentSpec
from wsss_ray.storage.storage import Storage
from wsss_ray.storage.weights import weights_digest

_LARGEST_HEADER = 100_000_000
"""Longest header, in bytes, that safetensors accepts."""


@dataclass(frozen=True, kw_only=True)
class KnownStudent:
    """Facts about a student that the driver of a job needs."""

    uri: str
    """Its file: an absolute path, or a URI."""
    digest: str
    """Digest of its file, for a run's identity."""
    sha256: str | None
    """SHA-256 in the file beside it, to verify the student with; None if there is no such file."""
    spec: StudentSpec
    classes: ClassSet


def find_student(name: str, config: StorageConfig) -> KnownStudent:
    """Return the student in the output of a training, or in a file `*.safetensors`.

    Raises:
        ValueError: there is none, or it cannot be used; the text says what to give.
    """
    given = name.rstrip("/")
    folder, _, file = given.rpartition("/") if given.endswith(".safetensors") else (given, "", STUDENT_FILE)
    storage = Storage(folder or ("/" if given.startswith("/") else "."), config)
    uri = storage.describe(file)
    try:
        spec = _read_spec(storage, file, uri)
    except FileNotFoundError:
        raise ValueError(
            f"there is no student {uri}: --student takes the output of wsss-ray train, which writes {STUDENT_FILE} "
            "when it ends, or such a file."
        ) from None
    if not is_uri(uri):
        uri = str(local_path(uri).absolute())
    digest, sha256 = weights_digest(uri, config=config), _read_digest(storage, f"{file}.sha256")
    if sha256 is not None and not is_uri(uri) and digest != sha256:
        raise ValueError(
            f"{uri} is damaged: its SHA-256 is not that in the file {file}.sha256 beside it. Train it again, or remove "
            "that file if it belongs to another student."
        )
    return KnownStudent(uri=uri, digest=digest, sha256=sha256, spec=spec, classes=_class_set(spec, where=uri))


def _read_digest(storage: Storage, path: str) -> str | None:
    try:
        return storage.read(path).decode(errors="replace").strip()
    except FileNotFoundError:
        return None


def _read_spec(storage: Storage, file: str, uri: str) -> StudentSpec:
    with storage.open(file) as stream:
        start = stream.read(8)
        length = min(int.from_bytes(start, "little"), _LARGEST_HEADER)
        return read_spec(start + stream.read(length), where=uri)


def _class_set(spec: StudentSpec, *, where: str) -> ClassSet:
    """Return the student's class set: names, ids and colors. Its phrases are only the names."""
    palette = spec.palette_bytes()
    entries = []
    for name, class_id in zip(spec.class_names[1:], spec.class_ids[1:], strict=True):
        red, green, blue = voc_color(class_id) if palette is None else palette[3 * class_id : 3 * class_id + 3]
        entries.append(ClassEntry(name=name, id=class_id, phrases=(name,), color=(red, green, blue)))
    classes = ClassSet(
        name=spec.class_set,
        classes=tuple(entries),
        background_id=spec.background_id,
        ignore_id=spec.ignore_id,
        assist_words=False,
    )
    if classes.label_space_digest != spec.label_space:
        raise ValueError(f"{where} is damaged: its classes do not have the digest that it states. Train it again.")
    return classes
