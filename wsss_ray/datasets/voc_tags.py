"""Image tags of VOC: from `cls_labels.npy`, the split list, XML annotations or the truth masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.cls_labels import read_cls_labels, tags_of_vector
from wsss_ray.datasets.files import Files
from wsss_ray.datasets.items import TagReader, first_few
from wsss_ray.datasets.manifest import read_bytes
from wsss_ray.datasets.paths import UnreadableError, check_folder, read_inside
from wsss_ray.datasets.voc_list import ListEntry
from wsss_ray.storage.storage import Storage

_XML_READERS = 16
_MAX_XML_BYTES = 10_000_000

TagsOf = Callable[[ListEntry], tuple[str, ...] | None]


def choose_tags(
    config: ShardConfig,
    class_set: ClassSet,
    tree: Storage,
    entries: Sequence[ListEntry],
    tags: TagReader,
    *,
    has_truth: bool,
) -> tuple[str, TagsOf]:
    """Return where the tags are from, in words, and a function that returns an image's tags (None: from its mask).

    `auto` takes cls_labels where the configuration names a file, else the classes of the list where it has some, else
    XML where every image has one, else the masks.
    """
    kind = config.voc_tags
    names = tuple(entry.name for entry in sorted(class_set.classes, key=lambda entry: entry.id))
    if kind == "cls_labels" and not config.tags:
        raise ValueError("--voc-tags cls_labels needs --tags, the path of cls_labels.npy.")
    if kind in ("xml", "masks") and config.tags:
        raise ValueError(f"--tags names a file, but --voc-tags {kind} does not read one: leave one of them out.")
    if config.tags:
        return f"{config.tags}", _from_cls_labels(config, names, entries, tags)
    if kind == "auto" and entries[0].class_numbers is not None:
        return "the split list", lambda entry: tags.read(_numbered(entry, names), entry.where)
    if kind in ("auto", "xml"):
        annotated = {name.removesuffix(".xml") for name in tree.list("Annotations") if name.endswith(".xml")}
        missing = [entry.voc_id for entry in entries if entry.voc_id not in annotated]
        if not missing:
            return "XML annotations", _from_xml(tree, entries, tags)
        if kind == "xml":
            raise ValueError(
                f"{len(missing)} of {len(entries)} images have no XML in {tree.describe('Annotations')}: "
                f"{first_few(missing)}. --voc-tags masks takes tags from the truth masks, --tags from cls_labels.npy."
            )
    if not has_truth:
        raise ValueError(
            f"{tree.uri} has neither an XML for every image nor truth masks: give --tags with the path of "
            "cls_labels.npy, or a list with classes."
        )
    return "the truth masks", lambda _: None


def _numbered(entry: ListEntry, names: tuple[str, ...]) -> list[str]:
    numbers = entry.class_numbers or ()
    if any(number >= len(names) for number in numbers):
        raise ValueError(f"{entry.where}: class {max(numbers)}: the class set has {len(names)}, counted from 0.")
    return [names[number] for number in numbers]


def _from_cls_labels(
    config: ShardConfig, names: tuple[str, ...], entries: Sequence[ListEntry], tags: TagReader
) -> TagsOf:
    assert config.tags
    vectors = read_cls_labels(read_bytes(config.tags, config.storage, what="cls_labels.npy"), config.tags)
    missing = [entry.voc_id for entry in entries if entry.voc_id not in vectors]
    if missing:
        raise ValueError(
            f"{config.tags} has no tags for {len(missing)} of {len(entries)} images: {first_few(missing)}."
        )

    def tags_of(entry: ListEntry) -> tuple[str, ...]:
        where = f"{config.tags}: {entry.voc_id}"
        return tags.read(tags_of_vector(vectors[entry.voc_id], names, where), where)

    return tags_of


def _from_xml(tree: Storage, entries: Sequence[ListEntry], tags: TagReader) -> TagsOf:
    files = Files(tree)

    def read(entry: ListEntry) -> tuple[str, ...]:
        path = f"Annotations/{entry.voc_id}.xml"
        try:
            data = read_inside(tree, path, size=files.size(path), max_bytes=_MAX_XML_BYTES)
        except UnreadableError as error:
            raise ValueError(f"{tree.describe(path)}: {error}.") from error
        return read_xml_tags(data, tree.describe(path))

    check_folder(tree, "Annotations")
    files.size("Annotations/")  # lists the folder once, before the threads need it
    with ThreadPoolExecutor(_XML_READERS) as pool:
        names = dict(zip((entry.voc_id for entry in entries), pool.map(read, entries), strict=True))
    return lambda entry: tags.read(names[entry.voc_id], tree.describe(f"Annotations/{entry.voc_id}.xml"))


def read_xml_tags(data: bytes, where: str) -> tuple[str, ...]:
    """Return the names of all objects in a VOC annotation, `difficult` ones too; parts (head, hand) are no tags.

    Args:
        data: the XML file.
        where: its path, for messages.

    Raises:
        ValueError: it is no VOC annotation, or has a DTD, which could make a parser read other files or fill memory.
    """
    if len(data) > _MAX_XML_BYTES:
        raise ValueError(f"{where}: {len(data)} bytes are too many for a VOC annotation.")
    try:
        root = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ValueError(f"{where}: refused: the XML has a DTD or entities ({type(error).__name__}).") from error
    except (defusedxml.ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{where}: not valid XML: {error}.") from error
    if root.tag != "annotation":
        raise ValueError(f"{where}: not a VOC annotation: its root is <{root.tag}>, not <annotation>.")
    names = [(element.findtext("name") or "").strip() for element in root.findall("object")]
    if not all(names):
        raise ValueError(f"{where}: an <object> has no <name>.")
    return tuple(names)
