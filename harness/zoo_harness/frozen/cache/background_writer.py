"""Writes what is in memory to the files of a store, while the network goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from torch import Tensor

from zoo_harness.frozen.cache.row_files import StoreFile
from zoo_harness.frozen.cache.rows import bytes_of


class Saver:
    """A thread that writes chunks, and then lets other processes have the files."""

    def __init__(self, file: StoreFile, rows: Sequence[Tensor]) -> None:
        self._file, self._rows = file, rows
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._waiting: queue.SimpleQueue[range | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="feature-store", daemon=True)
        self._thread.start()

    def save(self, images: range) -> None:
        """Have the rows of these images written; they do not change any more."""
        self._waiting.put(images)

    def no_more(self) -> None:
        """Let other processes have the files as soon as all is written."""
        self._waiting.put(None)

    def end(self, *, write_all: bool) -> OSError | None:
        """Wait for what is to be written, without ``write_all`` for the current chunk alone; return what failed."""
        if not write_all:
            self._stopped.set()
        self.no_more()
        try:
            self._thread.join()
        except BaseException:
            self._stopped.set()  # the files must not be closed under the thread
            self._thread.join()
            raise
        if self._error is not None and not isinstance(self._error, OSError):
            raise self._error
        return self._error

    def _run(self) -> None:
        try:
            while (images := self._waiting.get()) is not None and not self._stopped.is_set():
                rows = (rows[images.start : images.stop].cpu() for rows in self._rows)
                self._file.write(images.start, [bytes_of(part) for part in rows])
        except BaseException as error:
            self._error = error
        finally:
            self._file.put_pen_down()
