"""Find the image files in class folders, and record every file that is skipped, with the reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from zoo.errors import DataError
from zoo.image_kinds import is_readable_image, readable_endings, remedies, remedy
from zoo_plugins.system_files import is_system_name, skipped_note


class FoundFiles:
    """The skipped files of a dataset: system files, other files, unreadable images, and images without a class."""

    def __init__(self) -> None:
        self.of_systems: list[Path] = []
        self.no_images: list[Path] = []
        self.other_kinds: list[Path] = []
        self.outside: list[Path] = []

    def note_beside_classes(self, folder: Path) -> None:
        """Record the system files and the images that lie beside the class folders of a split."""
        for path in sorted(folder.iterdir()):
            if is_system_name(path.name):
                self.of_systems.append(path)
            elif (is_readable_image(path) or remedy(path)) and not path.is_dir():
                self.outside.append(path)

    def images_in(self, class_folder: Path, *, needed: bool = True) -> list[Path]:
        """Return the sorted image files of a class folder and its subfolders, and record all other files as skipped.

        Raises :class:`~zoo.errors.DataError` for a link to a folder. If ``needed`` is true, a folder
        without images raises this error too.
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
                if path.is_symlink():  # following the link could loop for ever, and skipping the link could lose images
                    raise DataError(
                        f"{path} is a link to a folder; make {class_folder} itself a link, or link the image files",
                        code="folder-link",
                        path=str(path),
                    )
            yield from (Path(folder) / name for name in files if not is_system_name(name))

    def refuse_other_kinds(self, *, skip: bool) -> None:
        """Raise :class:`~zoo.errors.DataError` for images of unreadable formats, unless ``skip`` is true."""
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
        """Return warnings about skipped files that the user may have wanted to use."""
        lines = []
        if self.outside:
            lines.append(
                f"{len(self.outside):,} image file(s) outside of the class folders are skipped, such as "
                f"{self.outside[0]}"
            )
        if self.no_images:
            lines.append(
                f"{len(self.no_images):,} file(s) ending in {_endings(self.no_images)} are skipped, such as "
                f"{self.no_images[0]}; images end in {', '.join(readable_endings())}"
            )
        if self.other_kinds:
            lines.append(
                f"skipped {len(self.other_kinds):,} image files of a kind that cannot be read here, such as "
                f"{self.other_kinds[0]}; {remedies(self.other_kinds)}"
            )
        return tuple(lines)

    def lines(self) -> tuple[str, ...]:
        """Return a line that counts the skipped system files and folders, or no line if none were skipped."""
        return (skipped_note(self.of_systems),) if self.of_systems else ()

    def counts(self) -> Mapping[str, int]:
        """Return the number of skipped files by kind, for the run record."""
        kinds = {
            "files of systems": self.of_systems,
            "images outside of class folders": self.outside,
            "files that are no images": self.no_images,
            "unreadable images": self.other_kinds,
        }
        return {kind: len(files) for kind, files in kinds.items() if files}


def _endings(files: list[Path]) -> str:
    """Return the file name endings of some files as text, the most frequent ending first."""
    counted = Counter(path.suffix.lower() or "no extension" for path in files)
    return ", ".join(ending for ending, _count in counted.most_common(8)) + (", ..." if len(counted) > 8 else "")


def _raise(error: OSError) -> None:
    raise error
