"""PASCAL VOC: a VOCdevkit tree with a split list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.files import Files
from wsss_ray.datasets.image_ids import image_ids
from wsss_ray.datasets.items import Item, Listing, TagReader, TruthFile, sort_items
from wsss_ray.datasets.manifest import read_text
from wsss_ray.datasets.paths import check_folder, plain_path
from wsss_ray.datasets.source import SOURCES
from wsss_ray.datasets.voc_list import ListEntry, parse_split_list
from wsss_ray.datasets.voc_tags import choose_tags
from wsss_ray.storage.storage import Storage

_LISTS = "ImageSets/Segmentation"
_AUGMENTED, _OFFICIAL = "SegmentationClassAug", "SegmentationClass"


@SOURCES.register("voc")
class VocSource:
    """A VOCdevkit tree with a split list."""

    default_classes = "voc"

    def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
        """Return the images of a split, with their tags and truth masks.

        Raises:
            ValueError: the tree, the list or the tags cannot be used.
        """
        tree = find_tree(config)
        entries = _read_list(config, tree)
        for folder in {str(PurePosixPath(entry.path).parent) for entry in entries}:
            check_folder(tree, folder)
        files = Files(tree)
        sizes = {entry.path: files.size(entry.path) for entry in entries}
        if all(size is None for size in sizes.values()):
            raise ValueError(
                f"none of the {len(entries)} images of the list exists; the first is {tree.describe(entries[0].path)}."
            )
        truths = _find_truths(config, tree, entries, files)
        tags = TagReader(class_set, config.unknown_tags)
        kind, tags_of = choose_tags(config, class_set, tree, entries, tags, has_truth=any(truths.values()))
        ids = image_ids(f"{entry.voc_id}.jpg" for entry in entries)
        items = [
            Item(
                image_id=ids[f"{entry.voc_id}.jpg"],
                path=entry.path,
                size=sizes[entry.path],
                similar=files.similar(entry.path) if sizes[entry.path] is None else None,
                tags=tags_of(entry),
                truth=truths[entry.voc_id],
            )
            for entry in entries
        ]
        return Listing(
            items=sort_items(items),
            images=tree,
            truths=tree,
            exif="ignore",
            dropped_tags=tags.finish(),
            notes=(f"tags from {kind}.",),
        )


def find_tree(config: ShardConfig) -> Storage:
    """Return the folder that holds JPEGImages: the input itself or the one year below it.

    Raises:
        ValueError: there is none, or there are several years.
    """
    root = Storage(config.input, config.storage)
    folders = root.folders()
    if "JPEGImages" in folders:
        return root
    years = [folder for folder in folders if "JPEGImages" in root.folders(folder)]
    if len(years) == 1:
        return root.child(years[0])
    if years:
        raise ValueError(
            f"{root.uri} holds several years ({', '.join(years)}): give one of them, e.g. "
            f"--input {root.describe(years[-1])}."
        )
    hint = f" Did you mean --input {root.describe('VOCdevkit')}?" if "VOCdevkit" in folders else ""
    raise ValueError(
        f"{root.uri} is no VOC tree: it has no JPEGImages folder, nor has one directly below it.{hint} A VOCdevkit or "
        "VOC2012 folder is expected."
    )


def _read_list(config: ShardConfig, tree: Storage) -> list[ListEntry]:
    split = config.split or "train"
    if "/" in split or split.endswith(".txt"):
        return parse_split_list(read_text(split, config.storage, what="split list"), split)
    path = plain_path(f"{_LISTS}/{split}.txt", "--split")
    check_folder(tree, path)
    try:
        text = tree.read(path).decode("utf-8-sig")
    except FileNotFoundError:
        there = [name.removesuffix(".txt") for name in tree.list(_LISTS) if name.endswith(".txt")]
        known = f"it has {', '.join(there)}" if there else f"it has no lists in {_LISTS}"
        raise ValueError(
            f"{tree.uri} has no list {split!r}: {known}. --split takes one of these names or the path of a list file."
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{tree.describe(path)} is not UTF-8 text.") from error
    return parse_split_list(text, tree.describe(path))


def _find_truths(
    config: ShardConfig, tree: Storage, entries: Sequence[ListEntry], files: Files
) -> dict[str, TruthFile | None]:
    """Return each image's truth mask: as configured, else as the list names it, else from the folder that has it."""
    if config.voc_truth == "none":
        return dict.fromkeys((entry.voc_id for entry in entries), None)
    folders: tuple[str, ...] = (_AUGMENTED, _OFFICIAL)
    if config.voc_truth is not None:
        folder = plain_path(config.voc_truth, "--voc-truth")
        folders = (folder,)
        if not any(files.size(f"{folder}/{entry.voc_id}.png") is not None for entry in entries):
            raise ValueError(
                f"{tree.describe(folder)} has a mask for none of the {len(entries)} images, e.g. "
                f"{entries[0].voc_id}.png. Folders here: {', '.join(tree.folders())}. --voc-truth none makes "
                "shards without truth."
            )
    for folder in folders:
        check_folder(tree, folder)
    truths: dict[str, TruthFile | None] = {}
    for entry in entries:
        if entry.truth is not None and config.voc_truth is None:
            truths[entry.voc_id] = TruthFile(path=entry.truth, size=files.size(entry.truth))
            continue
        paths = (f"{folder}/{entry.voc_id}.png" for folder in folders)
        found = ((path, files.size(path)) for path in paths)
        path, size = next(((path, size) for path, size in found if size is not None), ("", None))
        truths[entry.voc_id] = TruthFile(path=path, size=size) if path else None
    return truths
