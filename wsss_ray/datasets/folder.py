"""A folder of images at any depth. Tags are from a tag file, the same for all, or from folders named by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsss_ray.classes import ClassSet, UnknownTagError
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.files import Files
from wsss_ray.datasets.image_ids import image_ids
from wsss_ray.datasets.items import Item, Listing, TagReader, TruthFile, first_few, sort_items
from wsss_ray.datasets.manifest import ManifestEntry, read_manifest
from wsss_ray.datasets.paths import has_image_suffix, split_file
from wsss_ray.datasets.source import SOURCES
from wsss_ray.storage.local_files import FileInfo
from wsss_ray.storage.storage import Storage


@SOURCES.register("folder")
class FolderSource:
    """A folder of images, or a single image."""

    default_classes = "voc"

    def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
        """Return the images with their tags: from a tag file, the same for all, or from folders named by class.

        With a tag file these are the files that it names, else all that have an image's suffix. Dot-files and the
        truth's folder are left out; links to folders are not entered.

        Raises:
            ValueError: there is no image, the tag file is malformed, or it has unknown tags.
        """
        truths = None if config.truth is None else Storage(config.truth, config.storage)
        folder = _Folder.find(config, truths)
        if config.tags_for_all and truths is not None and truths.uri == folder.images.uri:
            raise ValueError(
                "--truth is the images' own folder: its masks would be taken for images. List them in --tags."
            )
        tags = TagReader(class_set, config.unknown_tags)
        entries, notes = _entries(config, folder, class_set)
        files = Files(folder.images, folder.files)
        sizes = {entry.path: files.size(entry.path) for entry in entries}
        _refuse_nothing(folder, files, entries, sizes, config)
        ids = image_ids(sizes)
        masks = None if truths is None else _Masks(truths)
        items = [
            Item(
                image_id=ids[entry.path],
                path=entry.path,
                size=sizes[entry.path],
                similar=files.similar(entry.path) if sizes[entry.path] is None else None,
                tags=tags.read(entry.tags, entry.where),
                truth=None if masks is None else masks.of(entry.path),
            )
            for entry in entries
        ]
        if masks is not None and all(item.truth is None for item in items):
            raise ValueError(
                f"{masks.root.uri} has a truth PNG for none of the {len(items)} images: it must hold one under the "
                f"image's own path, e.g. {_truth_path(items[0].path)}."
            )
        if folder.linked:
            notes.append(f"{len(folder.linked)} links to folders were not entered: {first_few(folder.linked)}.")
        return Listing(
            items=sort_items(items),
            images=folder.images,
            truths=truths,
            exif="apply",
            dropped_tags=tags.finish(),
            unlisted=tuple(path for path in folder.on_disk if path not in sizes),
            notes=tuple(notes),
        )


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """Files below the input, or the single image that it names."""

    images: Storage
    files: Mapping[str, FileInfo]
    """All files, by path."""
    on_disk: tuple[str, ...]
    """Those that have an image's suffix."""
    broken: tuple[str, ...]
    """Broken links that have an image's suffix."""
    linked: tuple[str, ...]
    """Links to folders."""
    single: str | None = None
    """Name of the single image."""

    @classmethod
    def find(cls, config: ShardConfig, truths: Storage | None) -> _Folder:
        """Walk the input."""
        if has_image_suffix(config.input):
            parent, name = split_file(config.input, config.storage)
            info = parent.info(name)
            if info is not None and not (parent.is_local and Path(parent.describe(name)).is_dir()):
                return cls(images=parent, files={name: info}, on_disk=(name,), broken=(), linked=(), single=name)
        images = Storage(config.input, config.storage)
        skipped: dict[str, str] = {}
        files = _without_truths(images.walk(on_skipped=skipped.__setitem__), images, truths)
        broken = (path for path, reason in skipped.items() if reason == "broken link" and has_image_suffix(path))
        return cls(
            images=images,
            files=files,
            on_disk=tuple(path for path in files if has_image_suffix(path)),
            broken=tuple(broken),
            linked=tuple(sorted(path for path, reason in skipped.items() if reason == "linked folder")),
        )


def _entries(config: ShardConfig, folder: _Folder, class_set: ClassSet) -> tuple[list[ManifestEntry], list[str]]:
    """Return the images with their tags as written, and notes about where the tags are from."""
    if config.tags and config.tags_for_all:
        raise ValueError("give --tags or --tags-for-all, not both.")
    paths = sorted({*folder.on_disk, *folder.broken})
    if config.tags:
        entries = read_manifest(config.tags, config.storage)
        if folder.single is None:
            return entries, []
        entries = [entry for entry in entries if entry.path == folder.single]
        if not entries:
            raise ValueError(f"{config.tags} has no line for {folder.single}, the image that --input names.")
        return entries, []
    if config.tags_for_all:
        everything = tuple(tag.strip() for text in config.tags_for_all for tag in text.split(",") if tag.strip())
        return [ManifestEntry(path=path, tags=everything, where="--tags-for-all") for path in paths], []
    return _class_folder_entries(folder, paths, class_set)


def _class_folder_entries(
    folder: _Folder, paths: Sequence[str], class_set: ClassSet
) -> tuple[list[ManifestEntry], list[str]]:
    """Return images whose tag is the name of the first folder of their path (`cat/1.jpg`)."""
    tops = {path: path.split("/")[0] if "/" in path else "" for path in paths}
    tags = {top: class_of_folder(top, class_set) for top in dict.fromkeys(tops.values())}
    if paths and not any(tags.values()):
        raise ValueError(
            "a folder needs tags: give --tags TAGS.csv or TAGS.jsonl (wsss-ray shard --help shows both), "
            f"--tags-for-all dog,cat, or images in folders that are named by class ({class_set.names[0]}/1.jpg)."
        )
    loose = [path for path, top in tops.items() if not top]
    if loose:
        raise ValueError(f"images that are in no class folder: {first_few(loose)}. Move them into one, or give --tags.")
    entries = [
        ManifestEntry(path=path, tags=(tags[top] or top,), where=f"class folder {folder.images.describe(top)}")
        for path, top in tops.items()
    ]
    return entries, [f"tags from class folders: {first_few(sorted(tags), shown=10)}."] if entries else []


def class_of_folder(name: str, class_set: ClassSet) -> str | None:
    """Return the class that a folder is named by, with spaces or underscores; None where there is none."""
    for text in (name, name.replace("_", " ")):
        try:
            return class_set.canonical(text)
        except UnknownTagError:
            continue
    return None


def _without_truths(found: Mapping[str, FileInfo], images: Storage, truths: Storage | None) -> dict[str, FileInfo]:
    """Return the files that are not in a truth folder below the images' root."""
    inside = "" if truths is None else f"{truths.uri}/"
    if not inside.startswith(f"{images.uri}/") or inside == f"{images.uri}/":
        return dict(found)
    prefix = inside.removeprefix(f"{images.uri}/")
    return {path: info for path, info in found.items() if not path.startswith(prefix)}


def _truth_path(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(".png"))


class _Masks:
    """The truth folder: PNGs under the images' own paths."""

    def __init__(self, root: Storage) -> None:
        self.root = root
        self._sizes = {path: info.size for path, info in root.walk().items()}

    def of(self, path: str) -> TruthFile | None:
        truth = _truth_path(path)
        return TruthFile(path=truth, size=self._sizes[truth]) if truth in self._sizes else None


def _refuse_nothing(
    folder: _Folder,
    files: Files,
    entries: Sequence[ManifestEntry],
    sizes: Mapping[str, int | None],
    config: ShardConfig,
) -> None:
    """Raise a ValueError with the reason where there is no image."""
    images = folder.images
    links = f" Links to folders are not entered: {first_few(folder.linked)}." if folder.linked else ""
    if not entries:
        where = "" if not images.is_local or Path(images.uri).is_dir() else " (there is no such folder)"
        raise ValueError(f"no images below {images.uri}{where}.{links}")
    if all(size is None for size in sizes.values()):
        similar = files.similar(entries[0].path)
        hint = f" There is {similar}: paths are relative to --input." if similar else ""
        raise ValueError(
            f"none of the {len(entries)} files of {config.tags} is below {images.uri}; the first is "
            f"{entries[0].path} ({entries[0].where}).{hint}{links}"
        )
