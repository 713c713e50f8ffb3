"""The CUDA kernels of the search: on a device where there is one, else by Triton's interpreter in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn import duplicates as equal_rows, kernel_choice as survivors, operand as neighbours
from zoo_harness.separation.knn.candidates import Shape
from zoo_harness.separation.knn.candidates_torch import TiledProducts
from zoo_harness.separation.knn.duplicates import Groups, Rows
from zoo_harness.separation.knn.kernel_choice import kernel_shape
from zoo_harness.separation.knn.lower_bounds import Frame, principal_directions
from zoo_harness.separation.knn.projection import Directions
from zoo_harness.separation.knn.search import MEMORY_BUDGET, nearest_neighbours

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
MIXED, LARGER = Shape(32, 64, 64, 4, 2), Shape(64, 64, 64, 4, 2)

needs_kernel = pytest.mark.skipif(
    not INTERPRETED and DEVICE.type == "cpu", reason="needs CUDA; test_with_the_interpreter runs it"
)
needs_cuda = pytest.mark.skipif(DEVICE.type == "cpu", reason="needs CUDA")

if INTERPRETED:
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    interpreted_dot = InterpreterBuilder.create_dot

    def _widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def _dot(self, left, right, *others):  # as it is, it multiplies the bits of bfloat16 numbers as integers
        return interpreted_dot(self, _widened(left), _widened(right), *others)

    InterpreterBuilder.create_dot = _dot


@pytest.mark.skipif(INTERPRETED or DEVICE.type == "cuda", reason="the kernel can be run here")
def test_with_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


# The kernel by itself


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_it_finds_what_it_must(dtype, symmetric):
    from zoo_harness.separation.knn.candidates_triton import finds_what_it_must

    assert finds_what_it_must(DEVICE, dtype, MIXED, symmetric=symmetric)


class Sides(NamedTuple):
    left: neighbours._Side
    right: neighbours._Side
    radius: Tensor
    points: Tensor


PRECISIONS = {"bfloat16": neighbours._BFLOAT16, "float32": neighbours._FLOAT32}


def sides(precision, symmetric, rank=None, offset=0.0):
    """Rows in clusters, each with the distance of its nearest as its radius, but some that ask for nothing."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(5, 70))
    values = centres[rng.integers(0, 5, 150)] + rng.normal(size=(150, 70)) + offset
    features = torch.from_numpy(values).to(DEVICE)
    rows = Rows.of(features, MEMORY_BUDGET)
    groups = Groups.of(rows, torch.zeros(150, dtype=torch.int64, device=DEVICE), None)
    frame = Frame(rows, groups.first)
    directions = Directions.along(principal_directions(frame, groups.first, rank)) if rank else None
    ids = torch.arange(150, device=DEVICE)
    halves = (ids, ids) if symmetric else (ids[:47], ids[47:])
    left, right = (
        neighbours._Side(frame, groups, half, directions, precision, MEMORY_BUDGET, LARGER.depth) for half in halves
    )
    points = frame.centred(groups.first)
    radius = torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1) * (1 + 1e-9)
    radius[::11] = -torch.inf
    left.tighten(radius)
    right.tighten(radius)
    if not symmetric:
        right.limit.fill_(-torch.inf)
    return Sides(left, left if symmetric else right, radius, points)


def listed(products, given, symmetric, tile=64):
    """Bounds of the pairs that survive, by row and column, and how many lists they came in."""
    found, lists = {}, 0
    sizes = len(given.left.limit), len(given.right.limit)
    starts = [
        (row, column)
        for row in range(0, sizes[0], tile)
        for column in range(0, sizes[1], tile)
        if not symmetric or row <= column
    ]
    tiles = [
        (slice(row, min(row + tile, sizes[0])), slice(column, min(column + tile, sizes[1]))) for row, column in starts
    ]
    for pairs in products.survivors(tiles, symmetric=symmetric):
        lists += 1
        for row, column, lower in zip(*(part.tolist() for part in pairs), strict=True):
            assert (row, column) not in found
            found[row, column] = lower
    return found, lists


@needs_kernel
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rank", "offset"), [(None, 0.0), (None, 1e4), (9, 0.0)])
def test_it_lists_what_torch_lists_and_all_that_must_be(precision, symmetric, rank, offset):
    from zoo_harness.separation.knn.candidates_triton import FusedProducts

    given = sides(PRECISIONS[precision], symmetric, rank, offset)
    fused, _lists = listed(FusedProducts(given.left, given.right, 10**6, LARGER), given, symmetric)
    with full_precision(DEVICE, PRECISIONS[precision].setting):
        tiled, _lists = listed(TiledProducts(given.left, given.right, 2**20), given, symmetric)
    limits = [side.limit.tolist() for side in given[:2]]
    for row, column in fused.keys() ^ tiled.keys():  # within rounding of the limit
        limit = max(limits[0][row], limits[1][column])
        assert (fused | tiled)[row, column] == pytest.approx(limit, rel=1e-5)
    for pair in fused.keys() & tiled.keys():
        assert fused[pair] == pytest.approx(tiled[pair], rel=1e-4, abs=1e-6)
    distance = torch.cdist(given.points, given.points)
    must = 0
    for row, here in enumerate(given.left.ids.tolist()):
        for column, there in enumerate(given.right.ids.tolist()):
            reach = max(given.radius[here], given.radius[there]) if symmetric else given.radius[here]
            if distance[here, there] <= reach and (not symmetric or row < column):
                must += 1
                assert (row, column) in fused
    assert must > 10
    assert len(fused) < len(given.left.limit) * len(given.right.limit) / 4


@needs_kernel
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_list_that_is_full_loses_nothing_and_repeats_nothing(symmetric):
    from zoo_harness.separation.knn.candidates_triton import FusedProducts

    given = sides(neighbours._BFLOAT16, symmetric, rank=9)
    for side in given[:2]:
        side.limit.fill_(torch.inf if symmetric or side is given.left else -torch.inf)
    whole, few = listed(FusedProducts(given.left, given.right, 10**6, MIXED), given, symmetric)
    pairs = 150 * 149 // 2 if symmetric else 47 * 103
    assert len(whole) == pairs
    piecewise, many = listed(FusedProducts(given.left, given.right, 0, MIXED), given, symmetric)
    assert piecewise == whole
    assert many >= pairs / (MIXED.rows * MIXED.columns)
    assert many > few


@needs_kernel
@pytest.mark.parametrize("spare", [-1, 0])
def test_a_list_that_is_full_to_the_last_place(spare):
    from zoo_harness.separation.knn.candidates_triton import FusedProducts

    given = sides(neighbours._FLOAT32, True)
    given.left.limit.fill_(torch.inf)
    products = FusedProducts(given.left, given.left, 10**6, MIXED)
    products.capacity = 150 * 149 // 2 + spare
    found, lists = listed(products, given, True, tile=150)
    assert len(found) == 150 * 149 // 2
    assert lists == (2 if spare < 0 else 1)


@needs_kernel
def test_limits_that_are_lowered_count_from_the_next_launch():
    from zoo_harness.separation.knn.candidates_triton import FusedProducts

    given = sides(neighbours._FLOAT32, True)
    given.left.limit.fill_(torch.inf)
    lists = FusedProducts(given.left, given.left, 0, MIXED).survivors([(slice(0, 150), slice(0, 150))], symmetric=True)
    assert len(next(lists).rows)
    given.left.limit = torch.full_like(given.left.limit, -torch.inf)
    assert [len(pairs.rows) for pairs in lists] == [0]


# The search with it


@pytest.fixture
def fused(monkeypatch):
    """Have every search in float32 or bfloat16 use the kernel; count its launches and those that ran out of room."""
    from zoo_harness.separation.knn.candidates_triton import FusedProducts

    counts = {"launches": 0, "full": 0}
    launch = FusedProducts._launch

    def counted(self, blocks, *, symmetric):
        pairs, failed = launch(self, blocks, symmetric=symmetric)
        counts["launches"] += 1
        counts["full"] += len(failed) > 0
        return pairs, failed

    def shape(_device, dtype, _pairs, *, symmetric):
        return None if dtype is torch.float64 else LARGER

    monkeypatch.setattr(FusedProducts, "_launch", counted)
    monkeypatch.setattr(neighbours, "kernel_shape", shape)
    return counts


def short_vectors(monkeypatch):
    def chosen(frame, _asking, offered, _order, _budget):
        return Directions.along(*(principal_directions(frame, offered, rank) for rank in (8, 24)))

    monkeypatch.setattr(neighbours, "choose_directions", chosen)


def difficult(kind):
    """Multiples of 1/8, whose squared distances float64 has exactly, so that ties are ties."""
    rng = np.random.default_rng(1)
    values = np.round(8 * rng.normal(size=(160, 40)) * np.exp(-np.arange(40) / 12)) / 8
    if kind == "ties":
        values = rng.integers(0, 2, (160, 7)).repeat(6, axis=1)[:, :40] + np.round(values / 4)
    if kind == "duplicates":
        values[50:90] = values[110:150]
    if kind == "offset":
        values += 1e4
    if kind == "clusters":
        values += 1000 * (np.arange(160) % 3)[:, None]
    return torch.from_numpy(values).to(DEVICE)


def brute_force(features, order, references=None):
    there = features if references is None else references
    squared = (features[:, None] - there[None]).square().sum(2)
    if references is None:
        squared.fill_diagonal_(torch.inf)
    distance, index = squared.sort(dim=1, stable=True)
    tied = (squared == distance[:, order - 1 : order]).sum(1)
    return index[:, :order], distance[:, :order], tied


@needs_kernel
@pytest.mark.parametrize("kind", ["plain", "ties", "duplicates", "offset", "clusters"])
@pytest.mark.parametrize("vectors", ["short", "whole"])
@pytest.mark.parametrize("against", ["each other", "references"])
def test_the_search_finds_the_nearest(kind, vectors, against, fused, monkeypatch):
    if vectors == "short":
        short_vectors(monkeypatch)
    features = difficult(kind)
    labels = torch.arange(160, device=DEVICE) % 3
    queries, references = (features, None) if against == "each other" else (features[:70], features[40:])
    others = None if references is None else labels[40:]
    found = nearest_neighbours(queries, labels[: len(queries)], 3, references=references, reference_labels=others)
    index, distance, tied = brute_force(queries, 3, references)
    assert torch.equal(found.indices, index)
    assert torch.equal(found.squared_distances, distance)
    assert torch.equal(found.last_tied, tied)
    assert fused["launches"] >= 1


@needs_kernel
def test_whole_rows_in_bfloat16_find_the_nearest(fused, monkeypatch):
    attempts = [(neighbours._BFLOAT16, None), (neighbours._FLOAT64, None)]
    monkeypatch.setattr(neighbours, "_attempts", lambda *_arguments, **_options: iter(attempts))
    features = difficult("duplicates")
    found = nearest_neighbours(features, torch.zeros(160, dtype=torch.int64, device=DEVICE), 3)
    assert torch.equal(found.indices, brute_force(features, 3)[0])
    assert fused["launches"] >= 1


@needs_kernel
@pytest.mark.parametrize("vectors", ["short", "whole"])
def test_the_search_survives_lists_that_are_full(vectors, fused, monkeypatch):
    if vectors == "short":
        short_vectors(monkeypatch)
    monkeypatch.setattr(neighbours, "COMPARED_PER_ROW", 10**6)
    features = torch.eye(120, dtype=torch.float64, device=DEVICE)  # every pair is tied
    found = nearest_neighbours(features, torch.zeros(120, dtype=torch.int64, device=DEVICE), memory_budget=2**18)
    assert found.indices[:, 0].tolist() == [1] + [0] * 119
    assert found.last_tied.tolist() == [119] * 120
    assert fused["full"] >= 1


# The kernel that compares rows


@needs_kernel
@pytest.mark.parametrize("dtype", equal_rows.EXACT_DTYPES, ids=str)
def test_distances_are_those_of_torch_bit_for_bit(dtype):
    from zoo_harness.separation.knn.distances_kernel import squared_distances

    generator = torch.Generator().manual_seed(0)
    left, right = torch.randint(0, 20, (2, 12), generator=generator).to(DEVICE)
    for width in (17, 100):
        features = (30 * torch.randn(20, width, generator=generator)).abs().to(DEVICE, dtype)
        rows = Rows.of(features, MEMORY_BUDGET)
        scale = torch.full((1,), 2.0**rows.exponent, dtype=torch.float64, device=DEVICE)
        ours = squared_distances(features, scale, left, right)
        assert torch.equal(ours, rows._squared_distances_by_torch(left, right))


@needs_kernel
def test_the_kernel_for_distances_proves_itself():
    assert equal_rows._kernel_works(DEVICE, torch.float32, 6)


# Where they are chosen


def test_a_cpu_does_without_it():
    assert kernel_shape(torch.device("cpu"), torch.bfloat16, 10**12, symmetric=True) is None


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs everywhere")
def test_where_it_cannot_run_a_warning_says_so():
    survivors._kernel_works.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"without its kernel for products on cpu, and is slower \(\w+: "):
        assert not survivors._kernel_works(torch.device("cpu"), torch.bfloat16, MIXED, True)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("dtype", "shape", "capability", "shared"),
    [
        ("bf16", survivors._HOPPER, 90, 227),
        ("bf16", survivors._AMPERE, 80, 163),
        ("bf16", survivors._AMPERE, 120, 99),
        ("fp32", survivors._FLOAT32, 80, 99),
    ],
)
def test_it_compiles_and_fits_into_shared_memory(dtype, shape, capability, shared):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zoo_harness.separation.knn.candidates_kernel import list_survivors

    types = [f"*{dtype}"] * 2 + ["*fp32"] * 4 + ["*i32"] * 2 + ["*i64"] + ["*i32"] * 2 + ["*fp32"] + ["i32"] * 2
    names = list_survivors.arg_names
    signature = dict(zip(names, types + ["constexpr"] * 4, strict=True))
    constants = {"symmetric": True, "rows": shape.rows, "columns": shape.columns, "depth": shape.depth}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in (*names[:12], "width")}
    compiled = triton.compile(
        ASTSource(list_survivors, signature, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": shape.warps, "num_stages": shape.stages, "enable_fp_fusion": False},
    )
    assert compiled.metadata.shared <= shared * 1024
    assert "tf32" not in compiled.asm["ptx"]
    if capability == 90:
        assert "wgmma" in compiled.asm["ptx"]


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("against", ["each other", "references"])
def test_cuda_finds_what_the_cpu_finds_at_real_size(dtype, against):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(20_000, 48, generator=generator) @ torch.randn(48, 512, generator=generator)
    features = (coarse + 0.3 * torch.randn(20_000, 512, generator=generator) + 30).to(dtype)
    labels = torch.randint(0, 10, (20_000,), generator=generator)
    references = (None, None) if against == "each other" else (features[8000:], labels[8000:])
    both = []
    for device in ("cpu", "cuda"):
        there = [None if part is None else part.to(device) for part in references]
        both.append(
            nearest_neighbours(
                features.to(device), labels.to(device), 2, references=there[0], reference_labels=there[1]
            )
        )
    assert kernel_shape(DEVICE, torch.bfloat16, 20_000**2, symmetric=True) is not None
    assert torch.equal(both[0].indices, both[1].indices.cpu())
    assert torch.equal(both[0].squared_distances, both[1].squared_distances.cpu())
    assert torch.equal(both[0].last_tied, both[1].last_tied.cpu())
