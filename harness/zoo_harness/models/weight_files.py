"""Find, download and verify weight files, and refuse other file types, without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from zoo.backbone import Backbone
from zoo.errors import UnreachableError, WeightsError
from zoo.reachability import network_advice, why_unreachable
from zoo.weight_paths import hub_cache
from zoo.weights import WeightSource
from zoo_harness.models.weight_source import is_built_in
from zoo_harness.util.digests import digest_mismatch, sha256_of
from zoo_harness.util.download import fetch

KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
SAVE_AGAIN = "load the file in Keras and save it with model.save('net.h5')"
PICKLE_SUFFIXES = (".pth", ".pt", ".bin")
_ADVICE = "pass --weights PATH with a local file, or --weights random"


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """Implement the file methods of :class:`zoo.weights.WeightReader`; error messages contain the backbone's name."""

    backbone: str
    _sha256: dict[Path, str] = field(default_factory=dict)

    def from_hub(self, repository: str, filename: str, revision: str | None = None) -> Path:
        """Return the path of a file in the local Hugging Face Hub cache; download the file if it is missing."""
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        cached = try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        obstacle = why_unreachable(constants.ENDPOINT)
        if obstacle is None:
            try:
                return Path(hf_hub_download(repository, filename, revision=revision))
            except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
                obstacle = next(iter(str(error).strip().splitlines()), type(error).__name__)
        in_cache = (f"Hub cache {hub_cache()}", f"no {repository}/{filename}")
        raise self.unreachable([in_cache, ("Hub", obstacle)], network_advice())

    def from_url(self, url: str, target: Path, *, sha256: str | None = None, md5: str | None = None) -> Path:
        """Return the path ``target``; download the file from ``url`` if it is missing."""
        if not url.startswith("https://") or not (sha256 or md5):
            raise ValueError(f"from_url({url!r}) needs an https address and a digest")
        if target.suffix in KERAS_SUFFIXES:
            require_h5py(f"weights of {self.backbone!r}")  # fail before hundreds of megabytes are downloaded
        if target.is_file():
            return target
        obstacle = why_unreachable(url)
        if obstacle is None:
            try:
                fetch(url, target, sha256=sha256, md5=md5)
                return target
            except OSError as error:
                obstacle = str(error)
        raise self.unreachable([(str(target), "no such file"), (url, obstacle)])

    def verify(self, path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
        """Raise :class:`~zoo.errors.WeightsError` if a file's digest differs from the published digest."""
        # The Hub cache stores a large file under its SHA-256 as the file name, and the snapshot links to that file.
        blob = path.resolve()
        is_blob = blob.parent.name == "blobs" and len(blob.name) == 64
        published = sha256 or (blob.name if is_blob else None)
        if fault := digest_mismatch(path, sha256=published, md5=md5, found_sha256=self.sha256(path)):
            raise WeightsError(
                f"digest of {path} is wrong: {fault}; delete the file and download it again",
                code="digest-mismatch",
                path=str(path),
            )

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file; later calls reuse the computed digest."""
        if path not in self._sha256:
            self._sha256[path] = sha256_of(path)
        return self._sha256[path]

    def unreachable(self, tried: Sequence[tuple[str, str]], advice: str = "") -> UnreachableError:
        """Return the error that weights are unreachable; ``tried`` lists each location with its failure."""
        advice = f"{advice}, or {_ADVICE}" if advice else _ADVICE
        return UnreachableError(f"weights of {self.backbone!r}", tried, advice)


class _Fetched(Exception):  # noqa: N818 - a signal, not an error
    """Signal that the weight file is on this machine and that the source starts to read tensors."""


class _Fetching(WeightFiles):
    """Fetch a weight file through a source's ``read`` method, but stop before tensors are read."""

    @property
    def network(self) -> NoReturn:
        raise _Fetched

    def read_file(self, path: Path, **_options: Any) -> NoReturn:
        check_kind(path)
        raise _Fetched


def fetch_weights(backbone: Backbone, source: WeightSource) -> None:
    """Download the weight file of a built-in source if it is missing, and check the file type.

    Sources of plugins fetch their files later, when weights are loaded. Raises :class:`~zoo.errors.UnreachableError` if
    the file is neither on this machine nor reachable, and :class:`~zoo.errors.WeightsError` if the file's content does
    not match its extension.
    """
    if is_built_in(source):
        try:
            source.read(_Fetching(backbone=backbone.name))
        except _Fetched:
            return


def check_kind(path: Path) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if a file's extension or content does not belong to a weight file.

    For PyTorch and Keras files, only the first bytes are checked.
    """
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif path.suffix in PICKLE_SUFFIXES:
        _check_pickle(path)
    elif path.suffix in KERAS_SUFFIXES:
        check_h5(path)
    else:
        kinds = ", ".join((".safetensors", *PICKLE_SUFFIXES, ".h5"))
        message = f"{path}: expected a weight file ({kinds}); convert it to safetensors"
        raise WeightsError(message, code="file-kind", path=str(path))


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # reads and checks the header, without torch
            pass
    except (SafetensorError, OSError) as error:
        raise unreadable_safetensors(path, error) from error


def unreadable_safetensors(path: Path, error: Exception) -> WeightsError:
    """Return the error for a file that the safetensors library cannot read."""
    message = f"{path}: not a readable safetensors file: {error}"
    return WeightsError(message, code="file-unreadable", path=str(path))


def _check_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        message = f"{path}: not a readable PyTorch weight file: {error.strerror}"
        raise WeightsError(message, code="file-unreadable", path=str(path)) from error
    if not start.startswith((b"PK", b"\x80")):  # torch writes a zip archive (PK), or in old versions a bare pickle
        message = f"{path}: not a readable PyTorch weight file: it starts with {start!r}"
        raise WeightsError(message, code="file-unreadable", path=str(path))


def require_h5py(what: str) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if h5py is not installed; ``blockzoo[keras]`` installs it."""
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise WeightsError(
            f"{what}: an H5 file of Keras needs h5py, which is not installed; pip install 'blockzoo[keras]'",
            code="h5py-missing",
        ) from error


def check_h5(path: Path) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if a file does not begin like an H5 file, or if h5py is missing."""
    require_h5py(str(path))
    try:
        with path.open("rb") as file:
            beginning = file.read(8)
    except OSError as error:
        message = f"{path}: not a readable H5 file: {error}"
        raise WeightsError(message, code="file-unreadable", path=str(path)) from error
    if beginning.startswith(b"PK"):
        raise not_h5(path, f"a zip archive in the .keras format of Keras 3; {SAVE_AGAIN}")
    if beginning != b"\x89HDF\r\n\x1a\n":
        raise not_h5(path, f"not an H5 file, despite its name; it begins with {beginning!r}")


def not_h5(path: Path, fault: str) -> WeightsError:
    """Return the error for a file that is not in Keras' legacy H5 layout."""
    return WeightsError(f"{path}: {fault}", code="file-kind", path=str(path))
