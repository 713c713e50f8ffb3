"""Open the checkpoint of a run directory or of a published folder, and verify its digest, without importing torch.

The file is opened only once. The digest is computed and the tensors are read from the same file descriptor, so nobody
can replace the file after the check.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType

from zoo.errors import DataError, UsageError, WeightsError, ZooError
from zoo_harness.checkpoints.foreign import describe_foreign
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION, RECORD
from zoo_harness.records.run import RUN, RunRecord, read_run, record_file
from zoo_harness.records.untrusted import check_record
from zoo_harness.util.digests import sha256_of
from zoo_harness.util.safe_files import open_regular

_MOST_BYTES = 2**63 - 1  # no limit here, because the record limits the size


@dataclass(frozen=True)
class OpenedCheckpoint:
    """Hold a run record and its verified, open checkpoint file; leaving the ``with`` block closes the file."""

    directory: Path
    record: RunRecord
    published: bool
    file: BufferedReader

    @property
    def path(self) -> Path:
        """The path of the checkpoint file, for messages."""
        return self.directory / CHECKPOINT

    @property
    def descriptor(self) -> Path:
        """A path that opens the verified file, even if another file has since replaced the file at :attr:`path`."""
        return Path(f"/dev/fd/{self.file.fileno()}")

    def __enter__(self) -> OpenedCheckpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()


def open_checkpoint(directory: Path) -> OpenedCheckpoint:
    """Open the checkpoint in a folder, and check its record and SHA-256; raise the same errors as :func:`zoo.load`."""
    found_in, path = record_file(directory), directory / CHECKPOINT
    if directory.is_dir() and not found_in.exists():
        raise _not_a_run(directory)
    record, published = read_run(directory), found_in.name == RECORD
    if record.checkpoint_sha256 is None:
        raise _no_checkpoint(record, directory, published=published)
    try:
        file = open_regular(path, _MOST_BYTES, follow_links=True)  # the Hub cache consists of symbolic links
    except (ZooError, FileNotFoundError) as error:
        if isinstance(error, ZooError) and error.code != "not-a-regular-file":
            raise
        raise _no_checkpoint(record, directory, published=published) from error
    try:
        check_record(record, str(found_in), os.fstat(file.fileno()).st_size, published=published)
        _verify(file, path, record.checkpoint_sha256)
    except BaseException:
        file.close()
        raise
    return OpenedCheckpoint(directory, record, published, file)


def open_verified(path: Path, recorded: str) -> BufferedReader:
    """Open a file and verify its SHA-256; raise :class:`~zoo.errors.WeightsError` if it is not the expected digest."""
    try:
        file = open_regular(path, _MOST_BYTES, follow_links=True)
    except FileNotFoundError as error:
        message = f"{path} is missing; copy the file from the run again"
        raise WeightsError(message, code="checkpoint-missing", path=path) from error
    try:
        _verify(file, path, recorded)
    except BaseException:
        file.close()
        raise
    return file


def _verify(file: BufferedReader, path: Path, recorded: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != recorded:
        raise changed_checkpoint(path, found, recorded)
    file.seek(0)


def check_digest(path: Path, recorded: str) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if the SHA-256 of a file differs from the recorded digest."""
    if (found := sha256_of(path)) != recorded:
        raise changed_checkpoint(path, found, recorded)


def changed_checkpoint(path: Path, found: str, recorded: str) -> WeightsError:
    """Return the error for a checkpoint whose SHA-256 ``found`` differs from the recorded digest."""
    return WeightsError(
        f"{path}: SHA-256 is {found}, expected {recorded}; the file is damaged or was changed: fetch it again "
        "(zoo pull), or copy it from the run again",
        code="checkpoint-changed",
        path=path,
    )


def how_to_finish(record: RunRecord, directory: Path) -> tuple[str, str]:
    """Describe how far an unfinished run got, and return the command that resumes it."""
    state = "is still running, or was killed" if record.status == "running" else f"is {record.status}"
    verb = "train" if record.command[1:2] == ("train",) else "eval"
    epochs = f"{record.results.epochs_done} of {record.settings.training.epochs} epochs"
    return f"the run {state}, after {epochs}", shlex.join(["zoo", verb, "--resume", str(directory)])


def _not_a_run(directory: Path) -> UsageError:
    names = [file.name for file in directory.iterdir()]
    return UsageError(
        f"{directory} is neither a run directory nor a published checkpoint: it has neither {RUN} nor {RECORD} "
        f"{describe_foreign(str(directory), names, directory / CONFIGURATION, local=True)}",
        code="not-a-run",
        path=directory,
    )


def _no_checkpoint(record: RunRecord, directory: Path, *, published: bool) -> UsageError | DataError:
    path = directory / CHECKPOINT
    if record.checkpoint_sha256 is None and (published or record.status == "finished"):
        message = (
            f"{record_file(directory)} has no checkpoint_sha256 for {path.name}; download the whole checkpoint again"
        )
        return DataError(message, code="no-digest", path=record_file(directory))
    if published:
        fault = "not a regular file" if os.path.lexists(path) else "missing"
        return UsageError(f"{path} is {fault}; download the whole checkpoint again", code="no-checkpoint", path=path)
    progress, resume = how_to_finish(record, directory)
    message = f"{directory} has no finished checkpoint: {progress}; finish the run first: {resume}"
    return UsageError(message, code="run-not-finished", path=directory, status=record.status, resume=resume)
