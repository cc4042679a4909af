"""A folder with one sub-folder of videos per class."""

from __future__ import annotations

import os
import reprlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".gif", ".ivf", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv"),
)
"""The files that are taken for videos, in capitals too."""
_NAMED = 3  # of the files that are left out


def videos_in(folder: str | os.PathLike[str]) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Return every video in `folder`, which has one sub-folder per class, their labels and the classes' names.

    A class's folder may have folders in it. Hidden files and folders are passed over; what else is left out is said.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder ({reprlib.repr(folder)}) must be a path")
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; pass one with a sub-folder of videos per class")
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise ValueError(f"{root}: the folder has no sub-folders; put the videos of each class in one of its own")
    paths: list[Path] = []
    labels: list[int] = []
    left_out = [entry for entry in entries if not entry.is_dir()]
    for label, of_class in enumerate(classes):
        files = sorted(_files(of_class, {_place(root)}))
        found = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not found:
            raise ValueError(f"{of_class}: the folder has no videos ({', '.join(SUFFIXES)}); fill or remove it")
        left_out += [file for file in files if file.suffix.lower() not in SUFFIXES]
        paths += found
        labels += [label] * len(found)
    if left_out:
        _say(root, left_out)
    return paths, labels, tuple(entry.name for entry in classes)


def _place(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _files(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, but for hidden ones (._ files of a Mac). Links are followed.

    Each folder is looked into once, however many links lead to it.
    """
    if _place(folder) in seen:
        return
    seen.add(_place(folder))
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, seen)
        else:
            yield entry


def _say(root: Path, left_out: list[Path]) -> None:
    kinds = Counter(file.suffix.lower() or "no suffix" for file in left_out)
    named = ", ".join(str(file.relative_to(root)) for file in left_out[:_NAMED])
    more = ", ..." if len(left_out) > _NAMED else ""
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    warnings.warn(
        f"{root}: {len(left_out)} files are no videos of a class and were left out ({counts}): {named}{more}; videos "
        f"are files in a class's folder, or in folders in it, that end in {', '.join(SUFFIXES)}",
        RuntimeWarning,
        stacklevel=4,
    )
