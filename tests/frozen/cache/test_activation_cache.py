"""Cached outputs: the same bits wherever they are, whatever happened to the pass that wrote them."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo import Backbone, Preprocessing, ZooError
from zoo_harness.frozen.cache import activation_cache
from zoo_harness.frozen.cache.activation_cache import ActivationCache, open_activation_cache
from zoo_harness.frozen.cache.entries import cache_folder, clear, entries
from zoo_harness.frozen.cache.key import CachedTensor, CacheKey, EntryTitle
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.cache.rows import cached_tensor
from zoo_harness.models.build import build_network
from zoo_harness.util.file_lock import FileLock

IMAGES = 1300  # three chunks, the last one shorter
WIDTH = 16
ROW_BYTES = 4 * WIDTH
TITLE = EntryTitle(backbone="tiny", dataset="made up", split="train")
KEPT = CachedTensor(name="block", shape=(WIDTH,), dtype="float32")


def key_of(*kept: CachedTensor, images: int = IMAGES, **changes: Any) -> CacheKey:
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
    return CacheKey(**{**given, **changes})


def outputs(start: int, stop: int) -> tuple[Tensor]:
    """Return what the frozen part puts out for these images."""
    return (torch.arange(start * WIDTH, stop * WIDTH, dtype=torch.float32).view(-1, WIDTH).sin(),)


def fill(cache: ActivationCache, prefix: Callable[[int, int], Any] = outputs, batch_size: int = 100) -> list[int]:
    """Run the pass and return the first images of the batches that it computed."""
    starts = []
    for start, stop in cache.missing(batch_size):
        cache.write(start, prefix(start, stop))
        starts.append(start)
    cache.finish()
    return starts


def opened(folder: Path, cache: str = "disk", key: CacheKey | None = None, **options: Any) -> Any:
    policy = CachePolicy(cache, folder=folder, **options.pop("policy", {}))  # type: ignore[arg-type]
    return open_activation_cache(key or key_of(), TITLE, policy, torch.device("cpu"), **options)


def is_right(cache: ActivationCache) -> bool:
    everything = np.random.default_rng(0).permutation(IMAGES)
    return torch.equal(cache.read(everything)[0], outputs(0, IMAGES)[0][everything])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a cache folder with a complete entry."""
    with opened(tmp_path) as cache:
        fill(cache)
    return tmp_path


def chunk_file(folder: Path, number: int) -> Path:
    return folder / key_of().digest / f"{number:06d}.chunk"


def some_values(dtype: torch.dtype, *shape: int) -> Tensor:
    bits = torch.randint(-100, 100, (40, *shape), generator=torch.Generator().manual_seed(0))
    return bits > 0 if dtype == torch.bool else (bits / 3).to(dtype)


@pytest.mark.parametrize("cache", ["device", "host", "disk"])
def test_outputs_are_the_same_bits_in_every_dtype_and_place_and_in_the_next_run(tmp_path: Path, cache: str) -> None:
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    tensors = [some_values(dtype, 3, 2) for dtype in dtypes] + [some_values(torch.float32)]
    tensors.append(some_values(torch.float32, 3, 5, 4).contiguous(memory_format=torch.channels_last))
    kept = [cached_tensor(f"{place}", tensor) for place, tensor in enumerate(tensors)]
    kept += [cached_tensor(stored, tensors[1], stored) for stored in ("float16", "bfloat16")]
    tensors += [tensors[1]] * 2
    expected = [tensor.to(getattr(torch, spec.stored_dtype)) for tensor, spec in zip(tensors, kept, strict=True)]
    indices = torch.tensor([39, 0, 7, 8, 7, 12])
    for batches in ([0, 7, 14, 21, 28], []):
        with opened(tmp_path, cache, key_of(*kept, images=40)) as filled:
            assert filled.place == ("host" if cache == "device" else cache)  # a CPU's memory is the host's
            assert fill(filled, lambda start, stop: [tensor[start:stop] for tensor in tensors], 7)[:5] == batches
            for _time in range(2):
                for given, right, read in zip(tensors, expected, filled.read(indices), strict=True):
                    assert read.dtype == given.dtype
                    assert torch.equal(read, right[indices].to(given.dtype))
                    read.zero_()  # a fresh copy: nothing changes in the cache
            assert filled.read(indices)[8].is_contiguous(memory_format=torch.channels_last)


def test_outputs_on_a_device_are_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the paths of device memory on the CPU, as far as they are the same there."""
    monkeypatch.setattr(CachePolicy, "places", lambda *_given: ("device",))
    monkeypatch.setattr(activation_cache, "free_device_memory", lambda _device: 2**30)
    for batches in (15, 0):
        with opened(tmp_path) as cache:
            assert cache.place == "device"
            assert len(fill(cache)) == batches
            assert is_right(cache)


def test_finite_values_too_large_for_float16_are_an_error_and_infinite_ones_are_kept(tmp_path: Path) -> None:
    key = key_of(KEPT.model_copy(update={"stored": "float16"}), images=2)
    with opened(tmp_path, key=key) as cache:
        with pytest.raises(ZooError, match=r"output 'block' reaches 7e\+04, too large for float16; .* bf16"):
            fill(cache, lambda start, stop: (torch.full((stop - start, WIDTH), 7e4),))
        fill(cache, lambda start, stop: (torch.full((stop - start, WIDTH), torch.inf),))
        assert bool(cache.read([1])[0].isinf().all())


def test_a_real_networks_outputs_of_two_layers(tmp_path: Path, tiny_resnet: Backbone) -> None:
    torch.manual_seed(0)
    network = build_network("tiny", tiny_resnet.network).eval()
    images = torch.rand(6, 3, 32, 32)

    @torch.inference_mode()
    def prefix(start: int, stop: int) -> tuple[Tensor, Tensor]:
        values = images[start:stop]
        for name in ("conv1", "bn1", "act1", "maxpool"):
            values = network.get_submodule(name)(values)
        return values, network.get_submodule("layer1")(values)

    kept = [cached_tensor(name, tensor) for name, tensor in zip(("stem", "layer1"), prefix(0, 2), strict=True)]
    with opened(tmp_path, key=key_of(*kept, images=6)) as cache:
        fill(cache, prefix, 2)
        read = cache.read([4, 5])
        assert all(torch.equal(*pair) for pair in zip(read, prefix(4, 6), strict=True))
        assert cache.largest_difference(2, prefix(2, 4)) == 0
        read[1].requires_grad_().sum().backward()  # not an inference tensor, though the network put out one


def test_batches_are_what_read_returns(written: Path) -> None:
    wanted = [np.array([3, 1]), np.array([1299]), np.array([0, 700, 5])]
    with opened(written) as cache:
        fill(cache)
        singly = [cache.read(indices)[0] for indices in wanted]
        assert all(torch.equal(a[0], b) for a, b in zip(cache.batches(wanted), singly, strict=True))
        ahead = activation_cache._ahead(cache._gathered, wanted)
        assert all(torch.equal(a[0], b) for a, b in zip(ahead, singly, strict=True))


def test_invalid_indices(written: Path) -> None:
    with opened(written) as cache:
        fill(cache)
        for indices in ([IMAGES], [-1], np.array([0, IMAGES + 5]), torch.ones(IMAGES) > 0, torch.zeros(1, 1).long()):
            with pytest.raises(IndexError, match=r"indices|whole numbers"):
                cache.read(indices)


@pytest.mark.parametrize(
    ("start", "given", "message"),
    [
        (0, [torch.zeros(3, WIDTH).double()], "expected float32"),
        (0, [torch.zeros(3, WIDTH + 1)], r"given float32 \(3, 17\)"),
        (0, [torch.zeros(3, WIDTH)] * 2, "2 tensors given; expected 1"),
        (500, [torch.zeros(30, WIDTH)], "lie in several chunks of 512"),
        (1299, [torch.zeros(3, WIDTH)], "rows 1299 to 1302 of 1300 images"),
        (64, [torch.zeros(3, WIDTH)], "image 64 is out of order"),
    ],
)
def test_invalid_outputs(tmp_path: Path, start: int, given: list[Tensor], message: str) -> None:
    with opened(tmp_path) as cache, pytest.raises(ValueError, match=message):
        cache.write(start, given)


def test_nothing_is_read_before_the_pass_is_complete(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        with pytest.raises(RuntimeError, match="1300 of 1300 images are not written"):
            cache.finish()
        with pytest.raises(RuntimeError, match="after finish"):
            cache.read([0])


# Interrupted passes

PROGRAM = """
import os, resource, signal, sys, time
import torch
from zoo import Preprocessing, ZooError
from zoo_harness.frozen.cache.activation_cache import open_activation_cache
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle
from zoo_harness.frozen.cache.placement import CachePolicy

def note(name, line):
    with (folder / name).open("a") as file:
        file.write(f"{{line}}\\n")

def wait():
    while not (folder / "go").exists():
        time.sleep(0.01)

title, policy = EntryTitle(backbone="tiny", dataset="made up", split="train"), CachePolicy(cache, folder=folder)
say = lambda line: note("said", line)
key = CacheKey.model_validate_json(key)
try:
    with open_activation_cache(key, title, policy, torch.device("cpu"), say) as opened:
        for start, stop in opened.missing(100):
            {before}
            note("computed", start)
            opened.write(start, (torch.arange(start * 16, stop * 16, dtype=torch.float32).view(-1, 16).sin(),))
        opened.finish()
        note("read", (opened.place, opened.read([7, 1299])[0].sum(1).tolist()))
        {after}
except ZooError as error:
    note("said", error)
    sys.exit(1)
"""

# Each process is forked off one that has torch already, which none of these tests is about.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "zoo_harness.frozen.cache.activation_cache"])

Begin = Callable[..., Any]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin another process that fills the cache and notes what it computes, says and reads."""
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
def test_after_a_kill_only_missing_chunks_are_computed(tmp_path: Path, begin: Begin, cache: str) -> None:
    process = begin(tmp_path, cache, "start == 1224 and wait()")
    until(lambda: computed(tmp_path)[-1:] == [1124] and entries(tmp_path)[0].images_done == 1024)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    (entry,) = entries(tmp_path)
    assert (entry.state, entry.images_done, entry.in_use) == ("partial", 1024, False)
    said: list[str] = []
    with opened(tmp_path, say=said.append) as filled:
        assert filled.missing_images == IMAGES - 1024
        assert fill(filled) == [1024, 1124, 1224]
        assert is_right(filled)
    assert said == ["outputs of 1,024 of 1,300 images are cached already"]
    assert not list(entry.folder.glob("*.tmp"))  # the killed process left a part of a chunk on the disk


@pytest.mark.parametrize("cache", ["disk", "host"])
def test_an_error_in_the_middle_of_a_pass_leaves_complete_chunks(tmp_path: Path, cache: str) -> None:
    def interrupted(start: int, stop: int) -> tuple[Tensor]:
        if start >= 1024:
            until(lambda: entries(tmp_path)[0].images_done == 1024)  # chunks in memory are written meanwhile
            raise KeyboardInterrupt
        return outputs(start, stop)

    with pytest.raises(KeyboardInterrupt), opened(tmp_path, cache) as filled:
        fill(filled, interrupted)
    with opened(tmp_path, cache) as filled:
        assert fill(filled) == [1024, 1124, 1224]
        assert is_right(filled)


def test_a_chunk_that_was_begun_twice_is_right(tmp_path: Path) -> None:
    for cache in ("host", "disk"):
        with opened(tmp_path / cache, cache) as filled:
            filled.write(0, (torch.zeros(100, WIDTH),))
            fill(filled)
            assert is_right(filled)
        with opened(tmp_path / cache) as filled:
            assert filled.missing_images == 0


# Damage


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[88 * ROW_BYTES] ^= 4
    path.write_bytes(content)


def spoil_record(path: Path) -> None:
    path.with_name("store.json").write_text("{")


@pytest.mark.parametrize("cache", ["disk", "host"])
@pytest.mark.parametrize(
    ("damage", "damaged"),
    [
        (flip_a_bit, True),
        (lambda path: os.truncate(path, 488 * ROW_BYTES), True),
        (lambda path: os.truncate(path, 512 * ROW_BYTES), True),  # without its checksums
        (lambda path: os.truncate(path, 0), True),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), True),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), True),
        (Path.unlink, False),
        (spoil_record, None),
    ],
)
def test_only_damaged_chunks_are_recomputed(
    written: Path, cache: str, damage: Callable[[Path], object], damaged: bool | None
) -> None:
    damage(chunk_file(written, 1))
    said: list[str] = []
    with opened(written, cache, say=said.append) as filled:
        assert fill(filled, batch_size=1000) == ([] if damaged is None else [512])
        assert is_right(filled)
    folder = written / key_of().digest
    message = f"1 of 3 chunks of cached outputs in {folder} are damaged: recomputing"
    assert said == {True: [message], False: ["outputs of 788 of 1,300 images are cached already"], None: []}[damaged]
    with opened(written) as filled:
        assert filled.missing_images == 0
        filled.finish()
        assert is_right(filled)


def test_a_file_that_is_truncated_while_it_is_read_is_an_error(written: Path) -> None:
    with opened(written) as cache:
        fill(cache)
        os.truncate(chunk_file(written, 1), 488 * ROW_BYTES)
        assert torch.equal(cache.read([999])[0], outputs(999, 1000)[0])
        with pytest.raises(ZooError, match=r"cannot read cached outputs .*start again"):
            cache.read([999, 1000])


def test_a_change_of_the_code_shows_and_all_is_recomputed(written: Path) -> None:
    for cache in ("host", "disk"):
        with opened(written, cache) as filled:
            fill(filled)
            assert filled.largest_difference(5, outputs(5, 9)) == 0
            assert filled.largest_difference(5, (outputs(5, 9)[0] * 1.5,)) > 0.3
            filled.forget()
            assert filled.missing_images == IMAGES
            assert entries(written)[0].images_done == 0  # a pass that is cut short leaves no chunk of before
            assert len(fill(filled, batch_size=512)) == 3
            assert is_right(filled)
        assert entries(written)[0].state == "complete"


# Several processes

WAITING = "waiting for another process that computes outputs of the same frozen part of tiny"


@pytest.mark.parametrize("cache", ["disk", "host"])
def test_one_of_two_processes_computes_and_the_other_waits(tmp_path: Path, begin: Begin, cache: str) -> None:
    first = begin(tmp_path, cache, "start == 612 and wait()")
    until(lambda: computed(tmp_path)[-1:] == [512])
    second = begin(tmp_path, cache)
    until(lambda: noted(tmp_path, "said") == [WAITING])
    (tmp_path / "go").touch()
    assert ended(first) == ended(second) == 0
    one, other = noted(tmp_path, "read")
    assert one == other
    assert len(computed(tmp_path)) == len(set(computed(tmp_path))) == 15


def test_when_the_writer_is_killed_the_waiting_process_computes_the_rest(tmp_path: Path, begin: Begin) -> None:
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


def test_two_readers_do_not_wait_for_each_other(written: Path) -> None:
    with opened(written) as one, opened(written, "host") as other:
        assert fill(one) == fill(other) == []
        assert is_right(one)
        assert is_right(other)


def test_a_process_that_would_wait_for_itself_gets_an_error(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        for _attempt in range(2):
            with pytest.raises(RuntimeError, match="finish that pass first"), opened(tmp_path):
                pass
        fill(cache)
        with opened(tmp_path) as other:
            assert other.missing_images == 0


def test_an_entry_in_use_is_neither_cleared_nor_evicted(written: Path, begin: Begin) -> None:
    user = begin(written, after="wait()")
    until(lambda: noted(written, "read"))
    (entry,) = entries(written)
    assert entry.in_use
    assert not clear(entry)
    limit = entry.bytes + 1000
    with pytest.raises(ZooError, match=r"\(ZOO_CACHE_LIMIT\), and running processes use 9\d\.0 KiB; try"):
        opened(written, key=key_of(fingerprint="c"), policy={"limit": limit}).__enter__()
    (written / "go").touch()
    assert ended(user) == 0
    assert not entry.in_use
    with opened(written, key=key_of(fingerprint="c"), policy={"limit": limit}) as cache:
        assert len(fill(cache)) == 15
    assert [other.key == entry.key for other in entries(written)] == [False]
    assert clear(entries(written)[0])
    assert entries(written) == []


def test_room_is_left_for_what_a_running_process_has_to_write(tmp_path: Path) -> None:
    with opened(tmp_path, policy={"limit": 100_000}) as cache:
        cache.write(0, outputs(0, 100))
        said: list[str] = []
        with opened(tmp_path, "host", key_of(fingerprint="c"), policy={"limit": 100_000}, say=said.append) as other:
            assert (len(fill(other)), other.in_files) == (15, False)
        assert "cached in memory only, not for later runs" in said[0]
        fill(cache)


def test_an_entry_that_is_cleared_while_a_process_opens_it_is_computed(written: Path) -> None:
    lock = FileLock(written / key_of().digest / "use")
    assert lock.acquire(exclusive=True)
    missing = []

    def open_it() -> None:
        with opened(written) as cache:
            missing.append(cache.missing_images)

    thread = threading.Thread(target=open_it)
    thread.start()
    time.sleep(0.1)
    (written / key_of().digest).rename(written / "gone")
    lock.release()
    thread.join(20)
    assert missing == [IMAGES]


# Room


def test_auto_takes_the_disk_if_memory_is_short_and_nothing_if_that_is_too(tmp_path: Path) -> None:
    with opened(tmp_path, "auto") as cache:
        assert (cache.place, cache.memory_bytes) == ("host", IMAGES * ROW_BYTES)
    with opened(tmp_path, "auto", policy={"budget": 1000}) as cache:
        assert (cache.place, cache.memory_bytes) == ("disk", 0)
        fill(cache)
        assert is_right(cache)
    said: list[str] = []
    other = key_of(fingerprint="c")
    with opened(tmp_path, "auto", other, policy={"budget": 1000, "limit": 2000}, say=said.append) as cache:
        assert (cache.place, cache.missing_images, fill(cache)) == ("off", 0, [])
        with pytest.raises(RuntimeError, match="if they are cached at all"):
            cache.read([0])
    assert said == [
        "outputs of the frozen part (81.2 KiB) are not cached, so every epoch runs the whole network: host memory: "
        "--cache-budget leaves 1000 bytes; files: the cache may hold 2.0 KiB (ZOO_CACHE_LIMIT)"
    ]


def test_a_named_place_without_room_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ZooError, match=r"\(81\.2 KiB\) in host memory: --cache-budget leaves 10\.0 KiB; try --cache"),
        opened(tmp_path, "host", policy={"budget": 10 * 2**10}),
    ):
        pass
    huge = key_of(KEPT.model_copy(update={"shape": (2**40,)}), images=100)
    message = r"\(400\.0 TiB\) in files: .* free; try zoo cache clear, another folder in ZOO_CACHE_DIR"
    with pytest.raises(ZooError, match=message), opened(tmp_path, key=huge, policy={"limit": 2**60}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_caches_of_a_run_share_the_budget(tmp_path: Path) -> None:
    policy = CachePolicy("auto", 100_000, tmp_path)
    with open_activation_cache(key_of(), TITLE, policy, torch.device("cpu")) as first:
        assert first.place == "host"
        left = policy.less(first.memory_bytes)
        with open_activation_cache(key_of(fingerprint="c"), TITLE, left, torch.device("cpu")) as second:
            assert second.place == "disk"


def test_auto_leaves_half_of_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_cache, "free_host_memory", lambda: 100_000)
    for cache, place in (("auto", "disk"), ("host", "host")):
        with opened(tmp_path, cache) as filled:
            assert filled.place == place


def test_off_keeps_nothing_and_says_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with opened(tmp_path, "off", say=said.append) as cache:
        assert (cache.place, fill(cache)) == ("off", [])
    assert said == []
    assert list(tmp_path.iterdir()) == []


@contextmanager
def full_disk() -> Iterator[None]:
    """Fail when a file grows over some size, which reads like a full disk: the third chunk alone is small enough."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400 * ROW_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("cache", ["disk", "auto", "host"])
def test_a_disk_that_fills_up_during_the_pass(tmp_path: Path, cache: str) -> None:
    said: list[str] = []
    budget = {"budget": 0} if cache == "auto" else {}
    place, error = {"disk": "off", "auto": "off", "host": "host"}[cache], None
    with opened(tmp_path, cache, policy=budget, say=said.append) as filled:
        batches = filled.missing(512)
        try:
            for start, stop in batches:
                if start == 512:
                    until(lambda: entries(tmp_path)[0].images_done == 512)
                    with full_disk():
                        filled.write(start, outputs(start, stop))
                        until(lambda: filled._error is not None or filled.place == "off")
                else:
                    filled.write(start, outputs(start, stop))
        except ZooError as raised:
            error = str(raised)
        assert filled.place == place
        if place == "host":
            filled.finish()
            assert is_right(filled)
    if cache == "disk":
        assert error is not None
        assert error.startswith("cannot keep outputs of the frozen part (81.2 KiB) in files: ")
        assert "File too large; try zoo cache clear" in error
    elif cache == "auto":
        (line,) = said
        assert "are not cached, so every epoch runs the whole network: files: " in line
        assert line.endswith("File too large")
    else:
        assert said == ["outputs of the frozen part are not all saved for later runs: File too large"]
    assert not list((tmp_path / key_of().digest).glob("*.tmp"))
    with opened(tmp_path) as filled:
        assert filled.missing_images == IMAGES - 512
        fill(filled)
        assert is_right(filled)


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    with opened(tmp_path / "file" / "cache", "host", say=said.append) as cache:
        fill(cache)
        assert is_right(cache)
    assert "Not a directory" in said[0]
    with pytest.raises(ZooError, match="Not a directory"), opened(tmp_path / "file" / "cache", "disk"):
        pass


def test_an_entry_that_cannot_be_locked_for_writing(tmp_path: Path) -> None:
    (tmp_path / key_of().digest / "write").mkdir(parents=True)
    said: list[str] = []
    with opened(tmp_path, "host", say=said.append) as cache:
        fill(cache)
        assert is_right(cache)
    assert said[0].endswith(f"are cached in memory only, not for later runs: {tmp_path}: Is a directory")


def test_the_least_recently_used_entry_is_evicted_when_the_cache_is_full(tmp_path: Path) -> None:
    keys = [key_of(fingerprint=name) for name in "cde"]
    for age, key in zip((300, 100, 200), keys, strict=True):
        with opened(tmp_path, key=key) as cache:
            fill(cache)
        used = time.time() - age
        os.utime(tmp_path / key.digest / "store.json", (used, used))
    limit = sum(entry.bytes for entry in entries(tmp_path)) + 1000
    with opened(tmp_path, key=keys[1], policy={"limit": limit}) as cache:
        assert cache.missing_images == 0
    assert len(entries(tmp_path)) == 3
    said: list[str] = []
    with opened(tmp_path, policy={"limit": limit}, say=said.append) as cache:
        assert cache.place == "disk"
    kept = {entry.key for entry in entries(tmp_path)}
    assert kept == {key_of().digest, keys[1].digest, keys[2].digest}
    assert len(said) == 1
    assert said[0].startswith("cleared cached outputs of tiny on made up, train (9")


MEMORY = """
import torch
from pathlib import Path
from zoo_harness.frozen.cache.activation_cache import open_activation_cache
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle
from zoo_harness.frozen.cache.placement import CachePolicy

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

title, policy = EntryTitle(backbone="b", dataset="d", split="train"), CachePolicy("disk", folder=folder)
for _run in range(2):
    with open_activation_cache(CacheKey.model_validate_json(key), title, policy, torch.device("cpu")) as cache:
        most = before = anonymous()
        for start, stop in cache.missing(8):
            cache.write(start, (torch.full((stop - start, 64, 1024), float(start)),))
            most = max(most, anonymous())
        cache.finish()
        for start in range(0, 512, 8):
            cache.read(range(start, start + 8))
            most = max(most, anonymous())
    with (folder / "taken").open("a") as file:
        file.write(f"{most - before}\\n")
"""


def test_outputs_on_the_disk_take_no_memory(tmp_path: Path) -> None:
    key = key_of(CachedTensor(name="block", shape=(64, 1024), dtype="float32"), images=512)
    assert key.bytes == 128 * 2**20
    names = {"folder": tmp_path, "key": key.model_dump_json()}
    process = PROCESSES.Process(target=exec, args=(MEMORY, names))
    process.start()
    assert ended(process) == 0
    assert all(int(taken) < 20 * 2**10 for taken in noted(tmp_path, "taken"))  # KiB: some batches of 2 MiB
    assert len(noted(tmp_path, "taken")) == 2


# The folder


def test_entries_of_another_format_or_software_are_left_alone_and_listed(written: Path) -> None:
    """An entry of the format before this one had its rows in one file for each tensor."""
    older, software = written / ("0" * 32), key_of(software={"torch": "1.0"})
    (written / key_of().digest).rename(older)
    record = older / "store.json"
    record.write_text(record.read_text().replace("blockzoo features 2", "blockzoo features 1"))
    (older / "0.rows").write_bytes(bytes(1000))
    (older / "journal").write_text("0 00000000\n")
    with opened(written, key=software) as cache:
        fill(cache)
    with opened(written) as cache:
        assert cache.missing_images == IMAGES
    found = {entry.key: entry for entry in entries(written)}
    assert {found["0" * 32].state, found[software.digest].state} == {"other version"}
    assert found["0" * 32].record is None
    assert clear(found["0" * 32])
    assert not older.exists()


def test_where_the_cache_lies_and_who_may_read_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZOO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / "blockzoo" / "features"
    with opened(folder) as cache:
        fill(cache)
    entry = folder / key_of().digest
    assert [path.stat().st_mode & 0o777 for path in (folder, entry)] == [0o700, 0o700]
    monkeypatch.setenv("ZOO_CACHE_DIR", "~/kept")
    assert cache_folder() == Path("~/kept").expanduser()
    record = json.loads((entry / "store.json").read_text())
    assert record["title"] == {"backbone": "tiny", "dataset": "made up", "split": "train"}
    assert str(tmp_path) not in json.dumps(record)
