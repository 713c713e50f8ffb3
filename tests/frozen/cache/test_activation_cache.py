"""Cached outputs: the same bits wherever they are, whatever happened to the pass that wrote them."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo import Backbone, ZooError
from zoo_harness.frozen.cache import activation_cache
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.entries import entries
from zoo_harness.frozen.cache.key import TensorSpec
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.cache.rows import spec_of
from zoo_harness.models.build import build_network

from .caches import (
    IMAGES,
    KEPT,
    ROW_BYTES,
    TITLE,
    WIDTH,
    chunk_file,
    digest_of,
    fill,
    is_right,
    key_of,
    opened,
    outputs,
    until,
)  # fmt: skip

Begin = Callable[..., Any]


def some_values(dtype: torch.dtype, *shape: int) -> Tensor:
    bits = torch.randint(-100, 100, (40, *shape), generator=torch.Generator().manual_seed(0))
    return bits > 0 if dtype == torch.bool else (bits / 3).to(dtype)


@pytest.mark.parametrize("cache", ["device", "host", "disk"])
def test_outputs_are_the_same_bits_in_every_dtype_and_place_and_in_the_next_run(tmp_path: Path, cache: str) -> None:
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    tensors = [some_values(dtype, 3, 2) for dtype in dtypes] + [some_values(torch.float32)]
    tensors.append(some_values(torch.float32, 3, 5, 4).contiguous(memory_format=torch.channels_last))
    kept = [spec_of(f"{place}", tensor) for place, tensor in enumerate(tensors)]
    kept += [kept[1].model_copy(update={"stored": stored}) for stored in ("float16", "bfloat16")]
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

    kept = [spec_of(name, tensor) for name, tensor in zip(("stem", "layer1"), prefix(0, 2), strict=True)]
    with opened(tmp_path, key=key_of(*kept, images=6)) as cache:
        fill(cache, prefix, 2)
        read = cache.read([4, 5])
        assert all(torch.equal(*pair) for pair in zip(read, prefix(4, 6), strict=True))
        assert cache.largest_difference(range(2, 4), prefix(2, 4)) == 0
        read[1].requires_grad_().sum().backward()  # not an inference tensor, though the network put out one


def test_batches_are_what_read_returns_and_invalid_indices_are_errors(written: Path) -> None:
    wanted = [np.array([3, 1]), np.array([1299]), np.array([0, 700, 5])]
    for place in ("disk", "host"):
        with opened(written, place) as cache:
            fill(cache)
            singly = [cache.read(indices)[0] for indices in wanted]
            assert all(torch.equal(a[0], b) for a, b in zip(cache.batches(wanted), singly, strict=True))
            for indices in (
                [IMAGES],
                [-1],
                np.array([0, IMAGES + 5]),
                torch.ones(IMAGES) > 0,
                torch.zeros(1, 1).long(),
            ):
                with pytest.raises(IndexError, match=r"expected whole numbers"):
                    cache.read(indices)


@pytest.mark.parametrize(
    ("start", "given", "message"),
    [
        (0, [torch.zeros(3, WIDTH + 1)], r"given torch.float32 \(3, 17\)"),
        (0, [torch.zeros(3, WIDTH)] * 2, "zip"),
        (500, [torch.zeros(30, WIDTH)], "do not continue chunk"),
        (1299, [torch.zeros(3, WIDTH)], "do not continue chunk"),
        (64, [torch.zeros(3, WIDTH)], "do not continue chunk"),
    ],
)
def test_invalid_outputs(tmp_path: Path, start: int, given: list[Tensor], message: str) -> None:
    with opened(tmp_path) as cache, pytest.raises(ValueError, match=message):
        cache.write(start, given)


def test_nothing_is_read_before_the_pass_is_complete(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        with pytest.raises(RuntimeError, match="1300 of 1300 images are not written"):
            cache.finish()
        with pytest.raises(RuntimeError, match=r"before finish\(\)"):
            cache.read([0])


# Interrupted passes


def ended(process: Any) -> int:
    process.join(60)
    assert process.exitcode is not None
    return int(process.exitcode)


def noted(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


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
    folder = written / digest_of()
    message = f"1 of 3 chunks of cached outputs in {folder} are damaged and recomputed"
    assert said == {True: [message], False: ["outputs of 788 of 1,300 images are cached already"], None: []}[damaged]
    with opened(written) as filled:
        assert filled.missing_images == 0
        filled.finish()
        assert is_right(filled)


def test_a_change_of_the_code_shows_and_all_is_recomputed(written: Path) -> None:
    for cache in ("host", "disk"):
        with opened(written, cache) as filled:
            fill(filled)
            assert filled.largest_difference(range(5, 9), outputs(5, 9)) == 0
            assert filled.largest_difference(range(5, 9), (outputs(5, 9)[0] * 1.5,)) > 0.3
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


def test_a_run_whose_two_splits_have_the_same_images_does_not_wait_for_itself(tmp_path: Path) -> None:
    test = TITLE.model_copy(update={"split": "test"})
    with opened(tmp_path) as cache, opened(tmp_path, title=test) as other:
        assert len(fill(cache)) == len(fill(other)) == 15
        assert is_right(other)


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
        with pytest.raises(RuntimeError, match="if the cache is off"):
            cache.read([0])
    assert said == [
        "outputs of the frozen part (81.2 KiB) are not cached, so every epoch runs the whole network: host memory: "
        f"--cache-budget leaves 1000 bytes; files: {tmp_path}: ZOO_CACHE_LIMIT limits the cache to 2.0 KiB"
    ]


def test_a_named_place_without_room_is_an_error(tmp_path: Path) -> None:
    huge = key_of(KEPT.model_copy(update={"shape": (2**22,)}), images=25 * 2**20)  # 400 TiB
    with pytest.raises(ZooError, match=r"\(81\.2 KiB\) in host memory: --cache-budget .* 10\.0 KiB; try --c") as raised:
        opened(tmp_path, "host", policy={"budget": 10 * 2**10}).__enter__()
    assert (raised.value.code, raised.value.facts["place"]) == ("cache-no-room", "host")
    with pytest.raises(ZooError, match=r"\(400\.0 TiB\) in files: .* free; try zoo cache clear") as raised:
        opened(tmp_path, key=huge, policy={"limit": 2**60}).__enter__()
    assert (raised.value.code, raised.value.facts["place"]) == ("cache-no-room", "disk")
    assert list(tmp_path.iterdir()) == []


def test_the_caches_of_a_run_share_the_budget(tmp_path: Path) -> None:
    policy = CachePolicy("auto", 100_000, tmp_path)
    with ActivationCache(key_of(), TITLE, policy, torch.device("cpu")) as first:
        assert first.place == "host"
        left = policy.less(first.memory_bytes)
        with ActivationCache(key_of(fingerprint="c"), TITLE, left, torch.device("cpu")) as second:
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
    error = None
    with opened(tmp_path, cache, policy={"budget": 0} if cache == "auto" else {}, say=said.append) as filled:
        try:
            for start, stop in filled.missing(512):
                until(lambda: all(task.done() for task in filled._writing))
                with full_disk() if start == 512 else nullcontext():
                    filled.write(start, outputs(start, stop))
                    until(lambda: all(task.done() for task in filled._writing))
        except ZooError as raised:
            error = raised
        assert filled.place == ("host" if cache == "host" else "off")
        if cache == "host":
            filled.finish()
            assert is_right(filled)
    if cache == "disk":
        assert error is not None
        assert (error.code, error.facts["place"]) == ("cache-no-room", "disk")
        assert "File too large; try zoo cache clear" in str(error)
    elif cache == "auto":
        (line,) = said
        assert "are not cached, so every epoch runs the whole network: host memory: " in line
        assert line.endswith("File too large")
    else:
        assert said == ["some outputs of the frozen part are not saved for later runs: File too large"]
    assert not list((tmp_path / digest_of()).glob("*.tmp"))
    with opened(tmp_path) as filled:
        assert filled.missing_images == (512 if cache == "host" else IMAGES - 512)  # the third chunk was saved
        fill(filled)
        assert is_right(filled)


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    warned: list[str] = []
    with opened(tmp_path / "file" / "cache", "host", say=said.append, warn=warned.append) as cache:
        fill(cache)
        assert is_right(cache)
    assert (len(warned), said) == (1, [])
    assert "Not a directory" in warned[0]
    with pytest.raises(ZooError, match="Not a directory"), opened(tmp_path / "file" / "cache", "disk"):
        pass


def test_an_entry_that_cannot_be_locked_for_writing(tmp_path: Path) -> None:
    (tmp_path / digest_of() / "write").mkdir(parents=True)
    said: list[str] = []
    with opened(tmp_path, "host", say=said.append) as cache:
        fill(cache)
        assert is_right(cache)
    assert said[0].endswith(f"are cached in memory only, not for later runs: {tmp_path}: Is a directory")


READ_ONLY = """
import sys
from pathlib import Path
from tests.frozen.cache.caches import fill, is_right, opened

folder = Path(sys.argv[1])
try:
    (folder / "probe").touch()
except OSError:
    with opened(folder, sys.argv[2]) as cache:
        missing = cache.missing_images
        fill(cache)
        print(missing, is_right(cache))
"""


@pytest.mark.parametrize("cache", ["host", "disk"])
def test_a_complete_entry_on_a_read_only_disk_is_used(written: Path, cache: str) -> None:
    mounting = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; exec "$3" -c "$4" "$1" "$2"'
    arguments = [written, cache, sys.executable, READ_ONLY]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounting, "sh", *arguments]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    if done.returncode in (1, 77, 127) and "Traceback" not in done.stderr:
        pytest.skip(f"no read-only mount here: {done.stderr}")
    assert (done.stdout, done.stderr) == ("0 True\n", "")


MEMORY = """
import torch
from pathlib import Path
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache import key as keys
from zoo_harness.frozen.cache.placement import CachePolicy

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

keys._CHUNK_BYTES = 2**23  # two chunks are in memory during the pass
title, policy = keys.EntryTitle(backbone="b", dataset="d", split="train"), CachePolicy("disk", folder=folder)
for _run in range(2):
    with ActivationCache(keys.CacheKey.model_validate_json(key), title, policy, torch.device("cpu")) as cache:
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


def test_outputs_on_the_disk_take_the_memory_of_two_chunks(tmp_path: Path) -> None:
    key = key_of(TensorSpec(name="block", shape=(64, 1024), dtype="float32", order=(0, 1, 2)), images=512)
    assert key.bytes == 128 * 2**20
    names = {"folder": tmp_path, "key": key.model_dump_json()}
    process = multiprocessing.get_context("forkserver").Process(target=exec, args=(MEMORY, names))
    process.start()
    assert ended(process) == 0
    taken = [int(line) for line in noted(tmp_path, "taken")]
    assert len(taken) == 2
    assert max(taken) < 40 * 2**10  # KiB: two chunks of 8 MiB, and batches of 2 MiB
