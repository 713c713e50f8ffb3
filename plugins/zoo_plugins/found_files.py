"""Find the image files of class folders, and account for every other file: what was skipped, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from zoo.errors import DataError
from zoo.image_kinds import is_readable_image, readable_endings, remedies, remedy
from zoo_plugins.system_files import is_system_name, skipped_note


class FoundFiles:
    """The files that are not read: of systems, no images, images of an unreadable kind or outside of the classes."""

    def __init__(self) -> None:
        self.of_systems: list[Path] = []
        self.no_images: list[Path] = []
        self.other_kinds: list[Path] = []
        self.outside: list[Path] = []

    def note_beside_classes(self, folder: Path) -> None:
        """Note what lies beside the class folders of a split: names of systems, and images of no class."""
        for path in sorted(folder.iterdir()):
            if is_system_name(path.name):
                self.of_systems.append(path)
            elif (is_readable_image(path) or remedy(path)) and not path.is_dir():
                self.outside.append(path)

    def images_in(self, class_folder: Path, *, needed: bool = True) -> list[Path]:
        """Return the image files in a class folder and below, sorted; note the others.

        Raises :class:`~zoo.errors.DataError` for a link to a folder, and if ``needed`` for a folder without image.
        """
        files = sorted(self._visible_files(class_folder))
        found = [path for path in files if is_readable_image(path)]
        others = [path for path in files if not is_readable_image(path)]
        kinds = [path for path in others if remedy(path)]
        self.other_kinds += kinds
        self.no_images += [path for path in others if not remedy(path)]
        if not found and needed:
            told = f" but {len(files)} file(s) ending in {_endings(files)}" if files else ""
            raise DataError(
                f"class folder {class_folder} has no image{told}; expected {', '.join(readable_endings())}"
                + (f"; {remedies(kinds)}" if kinds else ""),
                code="class-empty",
                name=class_folder.name,
                path=str(class_folder),
            )
        return found

    def _visible_files(self, class_folder: Path) -> Iterator[Path]:
        for folder, subfolders, files in os.walk(class_folder, onerror=_raise):
            for name in (*subfolders, *files):
                if is_system_name(name):
                    self.of_systems.append(Path(folder) / name)
            subfolders[:] = [name for name in subfolders if not is_system_name(name)]
            for path in (Path(folder) / name for name in subfolders):
                if path.is_symlink():  # followed, it can lead in a circle; passed over, images would be missing
                    raise DataError(
                        f"{path} links to a folder; link {class_folder} itself, or the image files",
                        code="folder-link",
                        path=str(path),
                    )
            yield from (Path(folder) / name for name in files if not is_system_name(name))

    def refuse_other_kinds(self, *, skip: bool) -> None:
        """Raise :class:`~zoo.errors.DataError` for images that cannot be read here, unless they are to be skipped."""
        if self.other_kinds and not skip:
            shown = ", ".join(map(str, self.other_kinds[:10])) + (", ..." if len(self.other_kinds) > 10 else "")
            raise DataError(
                f"{len(self.other_kinds):,} image files are of a kind that cannot be read here: {shown}; "
                f"{remedies(self.other_kinds)}; or try --skip-unreadable",
                code="image-kind",
                count=len(self.other_kinds),
                remedy=remedies(self.other_kinds),
            )

    def warnings(self) -> tuple[str, ...]:
        """Name the files that are left out although the user may have meant them."""
        lines = []
        if self.outside:
            lines.append(
                f"{len(self.outside):,} image file(s) outside of the class folders are left out, such as "
                f"{self.outside[0]}"
            )
        if self.no_images:
            lines.append(
                f"{len(self.no_images):,} file(s) ending in {_endings(self.no_images)} are left out, such as "
                f"{self.no_images[0]}; images end in {', '.join(readable_endings())}"
            )
        if self.other_kinds:
            lines.append(
                f"skipped {len(self.other_kinds):,} image files of a kind that cannot be read here, such as "
                f"{self.other_kinds[0]}; {remedies(self.other_kinds)}"
            )
        return tuple(lines)

    def lines(self) -> tuple[str, ...]:
        """Say how many files and folders of systems were skipped."""
        return (skipped_note(self.of_systems),) if self.of_systems else ()

    def counts(self) -> Mapping[str, int]:
        """Return the number of skipped files by kind, for the record."""
        kinds = {
            "files of systems": self.of_systems,
            "images outside of class folders": self.outside,
            "files that are no images": self.no_images,
            "unreadable images": self.other_kinds,
        }
        return {kind: len(files) for kind, files in kinds.items() if files}


def _endings(files: list[Path]) -> str:
    """Return the endings of files, the most frequent first."""
    counted = Counter(path.suffix.lower() or "no extension" for path in files)
    return ", ".join(ending for ending, _count in counted.most_common(8)) + (", ..." if len(counted) > 8 else "")


def _raise(error: OSError) -> None:
    raise error
