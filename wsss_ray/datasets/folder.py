"""A folder of images, at any depth, with a file of tags (or the same tags for all) and optional truth PNGs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.items import Item, Listing, TagReader, TruthFile, first_few, sort_items
from wsss_ray.datasets.manifest import ManifestEntry, read_manifest
from wsss_ray.datasets.paths import Files, image_ids
from wsss_ray.datasets.source import SOURCES
from wsss_ray.storage.local_files import FileInfo
from wsss_ray.storage.storage import Storage

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pcx", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""What counts as an image where no list names the files. A file that a list names is read whatever its suffix."""


@SOURCES.register("folder")
class FolderSource:
    """A folder of images with tags."""

    default_classes = "voc"

    def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
        """Return the images that the tag file names, or with `tags_for_all` all that have an image's suffix.

        Dot-files and the truth's folder are left out; links to folders are not entered.

        Raises:
            ValueError: there is no image, the tag file is malformed, or it has unknown tags.
        """
        if bool(config.tags) == bool(config.tags_for_all):
            raise ValueError(
                "a folder needs tags: give --tags FILE.csv (columns file,tags) or FILE.jsonl, or --tags-for-all dog,cat"
                + (" (one of the two, not both)." if config.tags else ".")
            )
        images = Storage(config.input, config.storage)
        truths = None if config.truth is None else Storage(config.truth, config.storage)
        if config.tags_for_all and truths is not None and truths.uri == images.uri:
            raise ValueError(
                "--truth is the images' own folder: its masks would be taken for images. List them in --tags."
            )
        skipped: dict[str, str] = {}
        found = _without_truths(images.walk(on_skipped=skipped.__setitem__), images, truths)
        on_disk = {path for path in found if _has_image_suffix(path)}
        broken = {path for path, reason in skipped.items() if reason == "broken link" and _has_image_suffix(path)}
        linked = sorted(path for path, reason in skipped.items() if reason == "linked folder")
        tags = TagReader(class_set, config.unknown_tags)
        if config.tags:
            entries = read_manifest(config.tags, config.storage)
        else:
            everything = tuple(tag.strip() for text in config.tags_for_all for tag in text.split(",") if tag.strip())
            entries = [
                ManifestEntry(path=path, tags=everything, where="--tags-for-all") for path in sorted(on_disk | broken)
            ]
        files = Files(images, found)
        sizes = {entry.path: files.size(entry.path) for entry in entries}
        _refuse_nothing(images, entries, sizes=sizes, on_disk=on_disk, linked=linked, config=config)
        ids = image_ids(sizes)
        masks = None if truths is None else _Masks(truths)
        items = [
            Item(
                image_id=ids[entry.path],
                path=entry.path,
                size=sizes[entry.path],
                tags=tags.read(entry.tags, entry.where),
                truth=None if masks is None else masks.of(entry.path),
            )
            for entry in entries
        ]
        dropped = tags.finish()
        notes = []
        if linked:
            notes.append(f"{len(linked)} links to folders were not entered: {first_few(linked)}.")
        if masks is not None:
            matched = sum(item.truth is not None for item in items)
            if not matched:
                raise ValueError(
                    f"{masks.root.uri} has a truth PNG for none of the {len(items)} images: it must hold one under the "
                    f"image's own path, e.g. {_truth_path(items[0].path)}."
                )
        return Listing(
            items=sort_items(items),
            images=images,
            truths=truths,
            exif="apply",
            dropped_tags=dropped,
            unlisted=len(on_disk - sizes.keys()),
            notes=tuple(notes),
        )


def _has_image_suffix(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _without_truths(found: Mapping[str, FileInfo], images: Storage, truths: Storage | None) -> dict[str, FileInfo]:
    """The files that are not in a truth folder below the images' root."""
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
    images: Storage,
    entries: list[ManifestEntry],
    *,
    sizes: Mapping[str, int | None],
    on_disk: set[str],
    linked: list[str],
    config: ShardConfig,
) -> None:
    """Say what is wrong where not one image is there."""
    links = f" Links to folders are not entered: {first_few(linked)}." if linked else ""
    if not entries:
        where = "" if not images.is_local or Path(images.uri).is_dir() else " (there is no such folder)"
        raise ValueError(f"no images below {images.uri}{where}.{links}")
    if all(size is None for size in sizes.values()):
        name = PurePosixPath(entries[0].path).name
        near = [path for path in on_disk if PurePosixPath(path).name == name][:1]
        hint = f" There is {near[0]}: paths are relative to --input." if near else ""
        raise ValueError(
            f"none of the {len(entries)} files of {config.tags} is below {images.uri}; the first is "
            f"{entries[0].path} ({entries[0].where}).{hint}{links}"
        )
