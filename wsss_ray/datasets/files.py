"""Sizes of listed files, and similar names for absent ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from wsss_ray.datasets.paths import has_image_suffix
from wsss_ray.storage.local_files import FileInfo
from wsss_ray.storage.storage import Storage


class Files:
    """Sizes of files below a root. Each folder is listed once."""

    def __init__(self, storage: Storage, known: Mapping[str, FileInfo] | None = None) -> None:
        """Start from what a walk of the root found, if there was one."""
        self._storage = storage
        self._known = known or {}
        self._folders: dict[str, Mapping[str, FileInfo]] = {}
        self._indexes: dict[tuple[str | None, Callable[[str], str]], Mapping[str, str]] = {}

    def size(self, path: str) -> int | None:
        """Return the bytes of a file, or None where there is no such file."""
        info = self._known.get(path)
        if info is None:
            folder, _, name = path.rpartition("/")
            info = self._listed(folder).get(name)
            if info is None and name.startswith("."):
                info = self._storage.info(path)
        return None if info is None else info.size

    def similar(self, path: str) -> str | None:
        """Return the path of an existing image that an absent one was probably meant to be, or None.

        It differs in case only, or else in its suffix, or else in its folder.
        """
        folder = path.rpartition("/")[0]
        for form in (str.casefold, _stem, _name):
            for scope in (None, folder):
                if found := self._index(scope, form).get(form(path)):
                    return found
        return None

    def _listed(self, folder: str) -> Mapping[str, FileInfo]:
        if folder not in self._folders:
            self._folders[folder] = self._storage.list(folder)
        return self._folders[folder]

    def _index(self, folder: str | None, form: Callable[[str], str]) -> Mapping[str, str]:
        """Return the images of a folder, or all that the walk found, by a form of their paths."""
        if (folder, form) not in self._indexes:
            paths = self._known if folder is None else (f"{folder}/{name}".lstrip("/") for name in self._listed(folder))
            self._indexes[folder, form] = {form(path): path for path in paths if has_image_suffix(path)}
        return self._indexes[folder, form]


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix("")).casefold()


def _name(path: str) -> str:
    return PurePosixPath(path).name.casefold()
