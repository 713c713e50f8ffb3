"""The CUDA kernel of :mod:`zoo_harness.survivors_triton`, which tells how it works."""

import triton
import triton.language as tl


@triton.jit
def list_survivors(
    left,
    right,
    left_half,
    right_half,
    left_limit,
    right_limit,
    blocks,
    taken,
    reserved,
    places_left,
    places_right,
    lower_bounds,
    capacity,
    width,
    symmetric: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
):
    """List the survivors of the block of this program, unless there is no room for all of them."""
    block = tl.program_id(0)
    if tl.load(reserved) > capacity:  # full already: the product would be in vain
        return
    first_row, row_stop = tl.load(blocks + 4 * block), tl.load(blocks + 4 * block + 1)
    first_column, column_stop = tl.load(blocks + 4 * block + 2), tl.load(blocks + 4 * block + 3)
    row, column = first_row + tl.arange(0, rows), first_column + tl.arange(0, columns)
    row_limit = tl.load(left_limit + row, mask=row < row_stop, other=float("-inf"))
    column_limit = tl.load(right_limit + column, mask=column < column_stop, other=float("-inf"))
    largest = tl.max(row_limit, 0)
    if symmetric:
        largest = tl.maximum(largest, tl.max(column_limit, 0))
    if largest == float("-inf"):  # nobody here asks for anything
        tl.store(taken + block, 0)
        return

    # Rows after the last are read as the last, in place of a mask.
    step = tl.arange(0, depth)
    here = left + tl.minimum(row, row_stop - 1).to(tl.int64)[:, None] * width + step[None, :]
    there = right + tl.minimum(column, column_stop - 1).to(tl.int64)[None, :] * width + step[:, None]
    product = tl.zeros((rows, columns), dtype=tl.float32)
    for _ in range(0, width, depth):
        product = tl.dot(tl.load(here), tl.load(there), product, input_precision="ieee")
        here += depth
        there += depth
    # What is no number does not survive: rows and columns after the last fall out.
    row_half = tl.load(left_half + row, mask=row < row_stop, other=float("nan"))
    column_half = tl.load(right_half + column, mask=column < column_stop, other=float("nan"))
    lower = (row_half[:, None] + column_half[None, :]) - product

    count = tl.sum(tl.sum(_survives(lower, row, column, row_limit, column_limit, symmetric), 1), 0)
    if count == 0:
        tl.store(taken + block, 0)
        return
    start = tl.atomic_add(reserved, count.to(tl.int64))
    if start + count > capacity:
        return
    tl.store(taken + block, count)
    # A quarter of the columns at a time: more would not fit into the registers beside the product.
    part_width: tl.constexpr = columns // 4
    place = start.to(tl.int32)
    for part in tl.static_range(4):
        lower_part = _quarter(lower, part)
        first = first_column + part * part_width
        column_part = first + tl.arange(0, part_width)
        limit_part = tl.load(right_limit + column_part, mask=column_part < column_stop, other=float("-inf"))
        ones = _survives(lower_part, row, column_part, row_limit, limit_part, symmetric)
        of_row = tl.sum(ones, 1)
        before = place + tl.cumsum(of_row, 0) - of_row
        at = before[:, None] + tl.cumsum(ones, 1) - ones
        mask = ones > 0
        tl.store(places_left + at, tl.broadcast_to(row[:, None], (rows, part_width)), mask=mask)
        tl.store(places_right + at, tl.broadcast_to(column_part[None, :], (rows, part_width)), mask=mask)
        tl.store(lower_bounds + at, lower_part, mask=mask)
        place += tl.sum(of_row, 0)


@triton.jit
def _survives(lower, row, column, row_limit, column_limit, symmetric: tl.constexpr):
    """1 for a pair that survives, else 0."""
    survives = lower <= row_limit[:, None]
    if symmetric:
        survives = (survives | (lower <= column_limit[None, :])) & (column[None, :] > row[:, None])
    return survives.to(tl.int32)


@triton.jit
def _quarter(block, part: tl.constexpr):
    """A quarter of the columns of a block."""
    one, other = _halves(block)
    first, second = _halves(other if part >= 2 else one)
    return second if part % 2 else first


@triton.jit
def _halves(block):
    return tl.split(tl.permute(tl.reshape(block, (block.shape[0], 2, block.shape[1] // 2)), (0, 2, 1)))
