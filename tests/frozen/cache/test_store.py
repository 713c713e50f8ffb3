"""Kept outputs: the same bits wherever they are kept, whatever happened to the pass that wrote them."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import Backbone, Preprocessing, UsageError, ZooError
from zoo_harness.compute import free_memory
from zoo_harness.frozen.cache import folder as cache_folder, store as feature_store
from zoo_harness.frozen.cache.folder import clear, entries
from zoo_harness.frozen.cache.key import KeptTensor, StoreKey, StoreTitle
from zoo_harness.frozen.cache.placement import CachePolicy, choose_place
from zoo_harness.frozen.cache.row_files import StoreFile
from zoo_harness.frozen.cache.rows import kept_tensor
from zoo_harness.frozen.cache.store import FeatureStore, open_store
from zoo_harness.models.build import build_network
from zoo_harness.models.fingerprints import digest_of_tensors
from zoo_harness.util.byte_sizes import parse_bytes
from zoo_harness.util.file_lock import FileLock

CPU = torch.device("cpu")
IMAGES = 1300  # three chunks, the last one shorter
TITLE = StoreTitle(backbone="tiny", dataset="made up", split="train")
ROWS = 16
KEPT = KeptTensor(name="block", shape=(ROWS,), dtype="float32")


def key_of(*kept: KeptTensor, images: int = IMAGES, **changes: Any) -> StoreKey:
    given = {
        "network": "test_resnet",
        "weights": "a" * 64,
        "kept": kept or (KEPT,),
        "preprocessing": Preprocessing((32, 32)),
        "images": images,
        "fingerprint": "b" * 64,
        "precision": "fp32",
        "device": "cpu",
    }
    return StoreKey(**{**given, **changes})


def outputs(start: int, stop: int) -> tuple[Tensor]:
    """What the frozen part puts out for these images."""
    return (torch.arange(start * ROWS, stop * ROWS, dtype=torch.float32).view(-1, ROWS).sin(),)


def fill(store: FeatureStore, prefix: Callable[[int, int], Any] = outputs, batch_size: int = 100) -> list[int]:
    """Run the pass and return the first images of the batches it computed."""
    starts = []
    for start, stop in store.missing(batch_size):
        store.write(start, prefix(start, stop))
        starts.append(start)
    store.finish()
    return starts


def opened(folder: Path, cache: str = "disk", key: StoreKey | None = None, **options: Any) -> Any:
    policy = CachePolicy(cache, folder=folder, **options.pop("policy", {}))  # type: ignore[arg-type]
    return open_store(key or key_of(), TITLE, policy, CPU, **options)


def is_right(store: FeatureStore) -> bool:
    everything = np.random.default_rng(0).permutation(IMAGES)
    return torch.equal(store.read(everything)[0], outputs(0, IMAGES)[0][everything])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A cache folder with a whole store in it."""
    with opened(tmp_path) as store:
        fill(store)
    return tmp_path


def rows_file(folder: Path) -> Path:
    return folder / key_of().digest / "0.rows"


def some_values(dtype: torch.dtype, *shape: int) -> Tensor:
    bits = torch.randint(-100, 100, (40, *shape), generator=torch.Generator().manual_seed(0))
    return bits > 0 if dtype == torch.bool else (bits / 3).to(dtype)


@pytest.mark.parametrize("cache", ["device", "host", "disk"])
def test_what_is_read_is_what_was_written_in_every_dtype_and_place_and_in_the_next_run(
    tmp_path: Path, cache: str
) -> None:
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    tensors = [some_values(dtype, 3, 2) for dtype in dtypes] + [some_values(torch.float32)]
    key = key_of(*(kept_tensor(f"{place}", tensor) for place, tensor in enumerate(tensors)), images=40)
    indices = torch.tensor([39, 0, 7, 7, 12])
    for expected in ([0, 7, 14, 21, 28, 35], []):
        with opened(tmp_path, cache, key) as store:
            assert store.place == ("host" if cache == "device" else cache)  # a CPU's memory is the host's
            assert fill(store, lambda start, stop: [tensor[start:stop] for tensor in tensors], 7) == expected
            for given, read in zip(tensors, store.read(indices), strict=True):
                assert read.dtype == given.dtype
                assert torch.equal(read, given[indices])


def test_outputs_on_a_device_are_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths of device memory, taken on the CPU as far as they are the same there."""
    monkeypatch.setattr(feature_store, "choose_place", lambda *_given: ("device", ""))
    for batches in (15, 0):
        with opened(tmp_path) as store:
            assert store.place == "device"
            assert len(fill(store)) == batches
            assert is_right(store)


@pytest.mark.parametrize("cache", ["host", "disk"])
def test_what_is_read_is_fresh(tmp_path: Path, cache: str) -> None:
    with opened(tmp_path, cache) as store:
        fill(store)
        store.read([0, 1])[0].zero_()
        assert is_right(store)
    with opened(tmp_path, cache) as store:
        assert fill(store) == []
        assert is_right(store)


def test_channels_last_outputs_come_back_so(tmp_path: Path) -> None:
    images = torch.randn(40, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    kept = kept_tensor("block", images)
    assert kept.channels_last
    with opened(tmp_path, key=key_of(kept, images=40)) as store:
        fill(store, lambda start, stop: [images[start:stop]])
        (read,) = store.read([5, 3])
    assert torch.equal(read, images[[5, 3]])
    assert read.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_outputs_stored_in_another_dtype_come_back_in_their_own(tmp_path: Path, stored: Any) -> None:
    kept = KEPT.model_copy(update={"stored": stored})
    with opened(tmp_path, key=key_of(kept)) as store:
        fill(store)
        (read,) = store.read([3])
    assert read.dtype == torch.float32
    assert torch.equal(read, outputs(3, 4)[0].to(getattr(torch, stored)).float())


def test_values_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    kept = KEPT.model_copy(update={"stored": "float16"})
    with (
        pytest.raises(ZooError, match=r"output 'block' reaches 7e\+04, too large for float16; take --cache-dtype bf16"),
        opened(tmp_path, key=key_of(kept)) as store,
    ):
        fill(store, lambda start, stop: (torch.full((stop - start, ROWS), 7e4),))


def test_infinite_outputs_are_stored_as_they_are(tmp_path: Path) -> None:
    kept = KEPT.model_copy(update={"stored": "float16"})
    with opened(tmp_path, key=key_of(kept, images=2)) as store:
        fill(store, lambda start, stop: (torch.full((stop - start, ROWS), torch.inf),))
        assert bool(store.read([1])[0].isinf().all())


def test_a_real_networks_outputs_of_two_layers(tmp_path: Path, tiny_resnet: Backbone) -> None:
    torch.manual_seed(0)
    network = build_network("tiny", tiny_resnet.network).eval()
    images = torch.rand(6, 3, 32, 32)

    def prefix(start: int, stop: int) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            stem = network.get_submodule("maxpool")(network.get_submodule("act1")(_stem(network, images[start:stop])))
            return stem, network.get_submodule("layer1")(stem)

    kept = [kept_tensor(name, tensor) for name, tensor in zip(("stem", "layer1"), prefix(0, 2), strict=True)]
    with opened(tmp_path, key=key_of(*kept, images=6)) as store:
        fill(store, prefix, 2)
        read = store.read([4, 5])
        assert all(torch.equal(*pair) for pair in zip(read, prefix(4, 6), strict=True))
        assert store.largest_difference(2, prefix(2, 4)) == 0
        read[1].requires_grad_().sum().backward()  # no inference tensor, though it was one when written


def _stem(network: nn.Module, images: Tensor) -> Tensor:
    return network.get_submodule("bn1")(network.get_submodule("conv1")(images))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "indices",
    [[IMAGES], [-1], np.array([0, IMAGES + 5]), torch.ones(IMAGES, dtype=torch.bool), torch.zeros(1, 1).long()],
)
def test_indices_that_mean_no_image(written: Path, indices: Any) -> None:
    with opened(written) as store:
        fill(store)
        with pytest.raises(IndexError, match=r"indices|whole numbers"):
            store.read(indices)


def test_batches_are_what_read_gives(written: Path) -> None:
    wanted = [np.array([3, 1]), np.array([1299]), np.array([0, 700, 5])]
    with opened(written) as store:
        fill(store)
        singly = [store.read(indices)[0] for indices in wanted]
        assert all(torch.equal(a[0], b) for a, b in zip(store.batches(wanted), singly, strict=True))
        ahead = feature_store._ahead(store._gathered, wanted)
        assert all(torch.equal(a[0], b) for a, b in zip(ahead, singly, strict=True))


@pytest.mark.parametrize(
    ("start", "given", "told"),
    [
        (0, [torch.zeros(3, ROWS).double()], "expected float32"),
        (0, [torch.zeros(3, ROWS + 1)], r"given float32 \(3, 17\)"),
        (0, [torch.zeros(3, ROWS)] * 2, "2 tensors given, 1 are kept"),
        (500, [torch.zeros(30, ROWS)], "lie in several chunks of 512"),
        (1299, [torch.zeros(3, ROWS)], "rows 1299 to 1302 of 1300 images"),
        (64, [torch.zeros(3, ROWS)], "image 64 comes out of turn"),
    ],
)
def test_outputs_that_are_not_those_announced(tmp_path: Path, start: int, given: list[Tensor], told: str) -> None:
    with opened(tmp_path) as store, pytest.raises(ValueError, match=told):
        store.write(start, given)


def test_nothing_is_read_before_the_pass_is_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with pytest.raises(RuntimeError, match="1300 of 1300 images are not written"):
            store.finish()
        with pytest.raises(RuntimeError, match="after finish"):
            store.read([0])


# Passes that were cut short

PROGRAM = """
import os, resource, signal, sys, time
import torch
from zoo import Preprocessing, ZooError
from zoo_harness.frozen.cache.key import StoreKey, StoreTitle
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.cache.store import open_store

def note(name, line):
    with (folder / name).open("a") as file:
        file.write(f"{{line}}\\n")

def wait():
    while not (folder / "go").exists():
        time.sleep(0.01)

title, policy = StoreTitle(backbone="tiny", dataset="made up", split="train"), CachePolicy(cache, folder=folder)
say = lambda line: note("said", line)
try:
    with open_store(StoreKey.model_validate_json(key), title, policy, torch.device("cpu"), say) as store:
        for start, stop in store.missing(100):
            {before}
            note("computed", start)
            store.write(start, (torch.arange(start * 16, stop * 16, dtype=torch.float32).view(-1, 16).sin(),))
        store.finish()
        note("read", (store.place, store.read([7, 1299])[0].sum(1).tolist()))
        {after}
except ZooError as error:
    note("said", error)
    sys.exit(1)
"""

# Each process is forked off one that has torch already, which none of these tests is about.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "zoo_harness.frozen.cache.store"])

Begin = Callable[..., Any]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins another process that fills the store and notes what it computes, says and reads."""
    begun = []

    def begin_one(folder: Path, cache: str = "disk", before: str = "pass", after: str = "pass") -> Any:
        source = PROGRAM.format(before=before, after=after)
        names = {"folder": folder, "cache": cache, "key": key_of().model_dump_json()}
        begun.append(PROCESSES.Process(target=exec, args=(source, names), daemon=True))
        begun[-1].start()
        return begun[-1]

    yield begin_one
    for process in begun:
        process.kill()
        process.join()


def ended(process: Any) -> int:
    process.join(60)
    assert process.exitcode is not None
    return int(process.exitcode)


def noted(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def computed(folder: Path) -> list[int]:
    return [int(line) for line in noted(folder, "computed")]


@pytest.mark.parametrize("cache", ["disk", "host"])
def test_after_a_kill_only_what_is_missing_is_computed(tmp_path: Path, begin: Begin, cache: str) -> None:
    process = begin(tmp_path, cache, "start == 1124 and wait()")
    until(lambda: computed(tmp_path)[-1:] == [1024] and entries(tmp_path)[0].images_done == 1024)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    (entry,) = entries(tmp_path)
    assert (entry.state, entry.images_done, entry.in_use) == ("partial", 1024, False)
    said: list[str] = []
    with opened(tmp_path, say=said.append) as store:
        assert store.missing_images == IMAGES - 1024
        assert fill(store) == [1024, 1124, 1224]
        assert is_right(store)
    assert said == ["outputs of 1,024 of 1,300 images are kept already"]


@pytest.mark.parametrize("cache", ["disk", "host"])
def test_an_error_in_the_middle_of_a_pass_leaves_what_is_whole(tmp_path: Path, cache: str) -> None:
    def interrupted(start: int, stop: int) -> tuple[Tensor]:
        if start >= 1024:
            time.sleep(0.3)  # what is in memory is written meanwhile
            raise KeyboardInterrupt
        return outputs(start, stop)

    with pytest.raises(KeyboardInterrupt), opened(tmp_path, cache) as store:
        fill(store, interrupted)
    with opened(tmp_path, cache) as store:
        assert fill(store) == [1024, 1124, 1224]
        assert is_right(store)


def test_a_chunk_that_was_begun_twice_is_right(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.write(0, (torch.zeros(100, ROWS),))
        fill(store)
        assert is_right(store)
    with opened(tmp_path) as store:
        assert store.missing_images == 0


# Damage


def flip_a_bit(folder: Path) -> None:
    with rows_file(folder).open("r+b") as file:
        file.seek(600 * 4 * ROWS)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def truncate(folder: Path) -> None:
    os.truncate(rows_file(folder), 1000 * 4 * ROWS)


def empty(folder: Path) -> None:
    os.truncate(rows_file(folder), 0)


def remove(folder: Path) -> None:
    rows_file(folder).unlink()


def cut_journal(folder: Path) -> None:
    journal = rows_file(folder).with_name("journal")
    os.truncate(journal, journal.stat().st_size - 3)


def spoil_journal(folder: Path) -> None:
    journal = rows_file(folder).with_name("journal")
    journal.write_bytes(b"\xff\xfe" + journal.read_bytes()[2:] + b"99 00000000\n")


def spoil_record(folder: Path) -> None:
    rows_file(folder).with_name("store.json").write_text("{")


@pytest.mark.parametrize("cache", ["disk", "host"])
@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (flip_a_bit, range(512, 1024)),
        (truncate, range(512, 1300)),
        (empty, range(1300)),
        (remove, range(1300)),
        (cut_journal, range(1024, 1300)),
        (spoil_journal, range(512)),
        (spoil_record, range(0)),
    ],
)
def test_of_damaged_files_only_what_is_damaged_is_computed_again(
    written: Path, cache: str, damage: Callable[[Path], None], again: range
) -> None:
    damage(written)
    said: list[str] = []
    with opened(written, cache, say=said.append) as store:
        assert store.missing_images == len(again)
        assert fill(store, batch_size=1000) == sorted({max(0, start - start % 512) for start in again})
        assert is_right(store)
    if damage in (flip_a_bit, truncate, empty, remove):
        assert said[0].startswith("kept outputs are damaged, ")
        assert "computed again" in said[0]
    with opened(written, say=said.append) as store:
        assert store.missing_images == 0
        store.finish()
        assert is_right(store)


def test_files_that_are_cut_short_while_they_are_read(written: Path) -> None:
    with opened(written) as store:
        fill(store)
        truncate(written)
        assert torch.equal(store.read([999])[0], outputs(999, 1000)[0])
        with pytest.raises(ZooError, match=r"cannot be read any more .*start again"):
            store.read([999, 1000])


def test_files_of_another_version_are_left_alone_and_listed(written: Path) -> None:
    (written / key_of().digest).rename(written / ("0" * 32))
    path = written / ("0" * 32) / "store.json"
    path.write_text(path.read_text().replace("blockzoo features 1", "blockzoo features 0"))
    with opened(written) as store:
        assert store.missing_images == IMAGES
    older = next(entry for entry in entries(written) if entry.key == "0" * 32)
    assert (older.state, older.record) == ("other version", None)
    assert clear(older)
    assert not older.folder.exists()


def test_outputs_of_other_software_are_listed_as_such(tmp_path: Path) -> None:
    other = key_of(software={"torch": "1.0"})
    with opened(tmp_path, key=other) as store:
        fill(store)
    assert [entry.state for entry in entries(tmp_path)] == ["other version"]
    with opened(tmp_path) as store:
        assert store.missing_images == IMAGES


def test_a_change_of_the_code_shows_and_all_can_be_computed_anew(written: Path) -> None:
    for cache in ("host", "disk"):
        with opened(written, cache) as store:
            fill(store)
            assert store.largest_difference(5, outputs(5, 9)) == 0
            assert store.largest_difference(5, (outputs(5, 9)[0] * 1.5,)) > 0.3
            store.forget()
            assert store.missing_images == IMAGES
            assert len(fill(store, batch_size=512)) == 3
            assert is_right(store)
        assert entries(written)[0].state == "complete"


# Several processes


WAITING = "another process computes outputs of the same frozen part of tiny: waiting for it"


@pytest.mark.parametrize("cache", ["disk", "host"])
def test_of_two_processes_one_computes_and_the_other_waits(tmp_path: Path, begin: Begin, cache: str) -> None:
    first = begin(tmp_path, cache, "start == 612 and wait()")
    until(lambda: computed(tmp_path)[-1:] == [512])
    second = begin(tmp_path, cache)
    until(lambda: noted(tmp_path, "said") == [WAITING])
    (tmp_path / "go").touch()
    assert ended(first) == ended(second) == 0
    one, other = noted(tmp_path, "read")
    assert one == other
    assert len(computed(tmp_path)) == 15
    assert len(set(computed(tmp_path))) == 15


def test_when_the_writer_dies_the_one_that_waits_goes_on(tmp_path: Path, begin: Begin) -> None:
    first = begin(tmp_path, before="start == 612 and wait()")
    until(lambda: computed(tmp_path)[-1:] == [512])
    second = begin(tmp_path)
    until(lambda: noted(tmp_path, "said") == [WAITING])
    first.kill()
    (tmp_path / "go").touch()
    assert ended(second) == 0
    assert noted(tmp_path, "read")[0].startswith("('disk', ")
    again = [512, 612, 712, 812, 912, 1012, 1024, 1124, 1224]
    assert computed(tmp_path) == [0, 100, 200, 300, 400, 500, 512, *again]


def test_two_that_read_do_not_wait_for_each_other(written: Path) -> None:
    with opened(written) as one, opened(written, "host") as other:
        assert fill(one) == fill(other) == []
        assert is_right(one)
        assert is_right(other)


def test_a_process_that_would_wait_for_itself_is_told(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for _attempt in range(2):
            with pytest.raises(RuntimeError, match="finish that first"), opened(tmp_path):
                pass
        fill(store)
        with opened(tmp_path) as other:
            assert other.missing_images == 0


def test_what_is_in_use_is_not_cleared(written: Path, begin: Begin) -> None:
    user = begin(written, after="wait()")
    until(lambda: noted(written, "read"))
    (entry,) = entries(written)
    assert entry.in_use
    assert not clear(entry)
    (written / "go").touch()
    assert ended(user) == 0
    assert not entry.in_use
    assert clear(entry)
    assert entries(written) == []


def test_what_is_cleared_while_another_waits_to_open_it_is_computed(written: Path) -> None:
    lock = FileLock(written / key_of().digest / "use")
    assert lock.take(alone=True)
    missing = []

    def open_it() -> None:
        with opened(written) as store:
            missing.append(store.missing_images)

    thread = threading.Thread(target=open_it)
    thread.start()
    time.sleep(0.1)
    (written / key_of().digest).rename(written / "gone")
    lock.release()
    thread.join(20)
    assert missing == [IMAGES]


# Room


def test_a_budget_too_small_is_told_with_what_is_needed(tmp_path: Path) -> None:
    with (
        pytest.raises(ZooError, match=r"need 81\.2 KiB of host memory: 10\.0 KiB of it left by --cache-budget; pass"),
        opened(tmp_path, "host", policy={"budget": 10 * 2**10}),
    ):
        pass


def test_without_enough_memory_auto_takes_the_disk_and_without_that_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, "auto") as store:
        assert store.place == "host"
    with opened(tmp_path, "auto", policy={"budget": 1000}) as store:
        assert (store.place, store.memory_bytes) == ("disk", 0)
        fill(store)
        assert is_right(store)
    said: list[str] = []
    other = key_of(fingerprint="c")
    with opened(tmp_path, "auto", other, policy={"budget": 1000, "limit": 2000}, say=said.append) as store:
        assert (store.place, store.missing_images, fill(store)) == ("off", 0, [])
        with pytest.raises(RuntimeError, match="where they are kept at all"):
            store.read([0])
    assert said == [
        "outputs of the frozen part (81.2 KiB) are not kept, so every epoch runs the whole network: host memory: 1000 "
        "bytes of it left by --cache-budget; disk: the cache may hold 2.0 KiB (ZOO_CACHE_LIMIT)"
    ]


def test_budget_is_shared_by_the_stores_of_a_run(tmp_path: Path) -> None:
    policy = CachePolicy("auto", 100_000, tmp_path)
    with open_store(key_of(), TITLE, policy, CPU) as first:
        assert first.place == "host"
        with open_store(key_of(fingerprint="c"), TITLE, policy.less(first.memory_bytes), CPU) as second:
            assert second.place == "disk"


def test_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "free_host_memory", lambda: 100_000)
    with opened(tmp_path, "auto") as store:
        assert store.place == "disk"  # half of it would not do
    with opened(tmp_path, "host") as store:
        assert store.place == "host"


def test_off_keeps_nothing_and_says_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with opened(tmp_path, "off", say=said.append) as store:
        assert (store.place, fill(store)) == ("off", [])
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_the_pass(tmp_path: Path) -> None:
    huge = key_of(KEPT.model_copy(update={"shape": (2**40,)}), images=100)
    told = r"need 400\.0 TiB of disk: .* free for it; free some with zoo cache clear, set ZOO_CACHE_DIR"
    with pytest.raises(ZooError, match=told), opened(tmp_path, key=huge, policy={"limit": 2**60}):
        pass
    assert list(tmp_path.iterdir()) == []


# What the system answers when a file may not grow any more reads like a full disk.
FULL = f"start == 512 and resource.setrlimit(resource.RLIMIT_FSIZE, ({600 * 4 * ROWS}, {600 * 4 * ROWS}))"


def test_a_disk_that_fills_up_in_the_middle_of_the_pass(tmp_path: Path, begin: Begin) -> None:
    assert ended(begin(tmp_path, "disk", FULL)) == 1
    (said,) = noted(tmp_path, "said")
    assert said.startswith("outputs of the frozen part need 81.2 KiB of disk: ")
    assert "File too large; free some with zoo cache clear" in said
    with opened(tmp_path) as store:
        assert store.missing_images == IMAGES - 512
        fill(store)
        assert is_right(store)


def test_a_disk_that_fills_up_under_a_store_in_memory(tmp_path: Path, begin: Begin) -> None:
    assert ended(begin(tmp_path, "host", FULL)) == 0
    assert noted(tmp_path, "said") == ["outputs of the frozen part are not all kept for later runs: File too large"]
    assert noted(tmp_path, "read")[0].startswith("('host', ")


def test_a_disk_that_fills_up_under_auto_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    said: list[str] = []
    with opened(tmp_path, "auto", policy={"budget": 0}, say=said.append) as store:
        assert store.place == "disk"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600 * 4 * ROWS, before[1]))
            assert fill(store)[-1] < 700
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert store.place == "off"
    assert len(said) == 1
    assert "are not kept, so every epoch runs the whole network" in said[0]
    assert "File too large" in said[0]


def test_room_that_cannot_be_reserved_leaves_no_files(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600 * 4 * ROWS, before[1]))
        with pytest.raises(ZooError, match="File too large"), opened(tmp_path):
            pass
        said: list[str] = []
        with opened(tmp_path, "host", say=said.append) as store:
            fill(store)
            assert is_right(store)
        assert len(said) == 1
        assert said[0].startswith("outputs of the frozen part, ")
        assert said[0].endswith(f" split, are not kept for later runs: {tmp_path}: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not rows_file(tmp_path).exists()


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    with opened(tmp_path / "file" / "cache", "host", say=said.append) as store:
        fill(store)
        assert is_right(store)
    assert "Not a directory" in said[0]
    with pytest.raises(ZooError, match="Not a directory"), opened(tmp_path / "file" / "cache", "disk"):
        pass


def test_what_was_used_longest_ago_goes_when_the_cache_is_full(tmp_path: Path) -> None:
    keys = [key_of(fingerprint=name) for name in "cde"]
    for age, key in zip((300, 100, 200), keys, strict=True):
        with opened(tmp_path, key=key) as store:
            fill(store)
        used = time.time() - age
        os.utime(tmp_path / key.digest / "store.json", (used, used))
    limit = sum(entry.bytes for entry in entries(tmp_path)) + 1000
    said: list[str] = []
    with opened(tmp_path, policy={"limit": limit}, say=said.append) as store:
        assert store.place == "disk"
    kept = {entry.key for entry in entries(tmp_path)}
    assert kept == {key_of().digest, keys[1].digest, keys[2].digest}
    assert said == ["cleared kept outputs of tiny on made up, train (92.0 KiB) to make room"]


MEMORY = """
import torch
from pathlib import Path
from zoo_harness.frozen.cache.key import StoreKey, StoreTitle
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.cache.store import open_store

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

title, policy = StoreTitle(backbone="b", dataset="d", split="train"), CachePolicy("disk", folder=folder)
for _run in range(2):
    with open_store(StoreKey.model_validate_json(key), title, policy, torch.device("cpu")) as store:
        most = before = anonymous()
        for start, stop in store.missing(8):
            store.write(start, (torch.full((stop - start, 64, 1024), float(start)),))
            most = max(most, anonymous())
        store.finish()
        for start in range(0, 512, 8):
            store.read(range(start, start + 8))
            most = max(most, anonymous())
    with (folder / "taken").open("a") as file:
        file.write(f"{most - before}\\n")
"""


def test_keeping_on_disk_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    key = key_of(KeptTensor(name="block", shape=(64, 1024), dtype="float32"), images=512)
    assert key.bytes == 128 * 2**20
    names = {"folder": tmp_path, "key": key.model_dump_json()}
    process = PROCESSES.Process(target=exec, args=(MEMORY, names))
    process.start()
    assert ended(process) == 0
    assert all(int(taken) < 20 * 2**10 for taken in noted(tmp_path, "taken"))  # KiB: some batches of 2 MiB
    assert len(noted(tmp_path, "taken")) == 2


# Keys and options


@pytest.mark.parametrize(
    "change",
    [
        {"network": "test_vit"},
        {"weights": "c" * 64},
        {"kept": (KEPT.model_copy(update={"name": "other"}),)},
        {"kept": (KEPT.model_copy(update={"shape": (4, 4)}),)},
        {"kept": (KEPT.model_copy(update={"dtype": "bfloat16"}),)},
        {"kept": (KEPT.model_copy(update={"stored": "bfloat16"}),)},
        {"kept": (KEPT, KEPT)},
        {"preprocessing": Preprocessing((32, 32), interpolation="nearest")},
        {"preprocessing": Preprocessing((32, 33))},
        {"images": IMAGES - 1},
        {"fingerprint": "c" * 64},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"software": {"torch": "0"}},
    ],
)
def test_whatever_determines_the_outputs_changes_the_key(change: dict[str, Any]) -> None:
    assert key_of(**change).digest != key_of().digest
    assert key_of().digest == StoreKey.model_validate_json(key_of().model_dump_json()).digest


def test_the_format_of_the_files_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of().digest
    monkeypatch.setattr("zoo_harness.frozen.cache.key.FORMAT", "blockzoo features 2")
    assert key_of().digest != before


def test_the_key_names_the_software_that_computes() -> None:
    assert key_of().software["torch"] == torch.__version__.partition("+")[0]
    assert set(key_of().software) == {"blockzoo", "torch", "torchvision", "timm"}


def test_digest_covers_names_dtypes_shapes_and_every_bit_and_nothing_else(tiny_resnet: Backbone) -> None:
    network = build_network("tiny", tiny_resnet.network)
    state = dict(network.state_dict())
    digest = digest_of_tensors(state.items())
    assert digest == digest_of_tensors(reversed(list(state.items())))
    assert digest == digest_of_tensors(network.to(memory_format=torch.channels_last).state_dict().items())
    name = "layer2.0.bn1.running_var"
    others: list[dict[str, Tensor]] = [
        {**state, name: torch.nextafter(state[name], torch.tensor(9.0))},
        {**state, name: state[name].double()},
        {**state, name: state[name][None]},
        {("x" if key == name else key): value for key, value in state.items()},
        {key: value for key, value in state.items() if key != name},
    ]
    assert len({digest, *(digest_of_tensors(other.items()) for other in others)}) == 6
    assert len(digest_of_tensors([("scalar", torch.tensor(3)), ("half", torch.ones(2).bfloat16())])) == 64


@pytest.mark.parametrize(
    ("given", "size"), [("1024", 1024), ("8GiB", 2**33), ("500MB", 5 * 10**8), ("1.5 kib", 1536), ("0", 0)]
)
def test_sizes(given: str, size: int) -> None:
    assert parse_bytes("--cache-budget", given) == size


@pytest.mark.parametrize("given", ["", "8 GIGA", "-1", "1e9", "GiB", "8 Gi B", "nan", "9" * 99])
def test_what_is_no_size(given: str) -> None:
    with pytest.raises(UsageError, match="is not a size; write it as 8GiB, 500MB or"):
        parse_bytes("--cache-budget", given)


@pytest.mark.parametrize(
    ("cache", "budget", "told"),
    [
        ("ram", None, "--cache 'ram' is not one of auto, device, host, disk, off"),
        ("host", "much", "--cache-budget 'much' is not a size"),
        ("disk", "1GiB", "--cache-budget is for memory, and --cache disk keeps nothing there"),
    ],
)
def test_options_that_cannot_be_meant(cache: str, budget: str | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        CachePolicy.of(cache, budget)


def test_on_a_gpu_its_memory_comes_first_and_a_reason_is_given_for_each_place() -> None:
    auto = CachePolicy("auto")
    lacks: dict[Any, Callable[[], str | None]] = {"device": lambda: None, "host": lambda: None, "disk": lambda: None}
    assert choose_place(auto, 1, lacks) == ("device", "")
    assert choose_place(auto, 1, {**lacks, "device": lambda: "little"}) == ("host", "")
    assert choose_place(CachePolicy("disk"), 1, lacks) == ("disk", "")
    none: dict[Any, Callable[[], str | None]] = {place: lambda: "little" for place in lacks}
    assert choose_place(auto, 1, none) == ("off", "device memory: little; host memory: little; disk: little")
    assert auto.lack_of_memory("device", 70, 100) == "100 bytes of it free, of which 60% may be used"
    assert CachePolicy("auto", 80).lack_of_memory("device", 70, 100) is None
    assert CachePolicy("device").lack_of_memory("device", 70, 100) is None


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "slice"
    group.mkdir()
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("900\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 400\n")
    monkeypatch.setattr(free_memory, "_groups", lambda: [tmp_path, group])
    assert free_memory.free_host_memory() == 500
    (group / "memory.max").write_text("max\n")
    assert free_memory.free_host_memory() > 2**20


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZOO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder.cache_folder() == tmp_path / "blockzoo" / "features"
    monkeypatch.setenv("ZOO_CACHE_DIR", "~/kept")
    assert cache_folder.cache_folder() == Path("~/kept").expanduser()
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "lots")
    with pytest.raises(UsageError, match="ZOO_CACHE_LIMIT 'lots'"):
        CachePolicy()


def test_the_record_beside_the_data_names_what_it_is_without_paths(written: Path) -> None:
    record = json.loads((written / key_of().digest / "store.json").read_text())
    assert record["title"] == {"backbone": "tiny", "dataset": "made up", "split": "train"}
    assert str(written) not in json.dumps(record)


def test_locks_of_a_closed_store_are_free(written: Path) -> None:
    file = StoreFile(written / key_of().digest, record=entries(written)[0].record)  # type: ignore[arg-type]
    assert file.take_pen()
    file.close()
    assert not entries(written)[0].in_use
