"""Products with a matrix too large to be held twice: run by run, in a precision of choice, each in its fastest form.

Everywhere in the engine the matrix is `tall`, an N x p view with N >= p: the transpose where the delta is wide, so
that nothing is copied.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dgviz.device import block_elements, is_gpu

RUN_ELEMENTS = 1 << 20
"""Elements converted or deflated at a time on a CPU: a block that stays in cache."""

_RUN_ROWS = 512  # at least: shorter products run below full speed


def run_elements(tall: torch.Tensor) -> int:
    """Return how many elements of a matrix are converted or deflated at a time where it is."""
    return block_elements(tall.device, RUN_ELEMENTS)


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 products in float32 inside the block (no TF32, no bfloat16 passes), whatever the process set."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def converted_runs(
    tall: torch.Tensor, dtype: torch.dtype, at_least: int = _RUN_ROWS
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield runs of rows of the matrix in another precision: ``(rows, block)``.

    Every block is written into the same buffer, so a matrix passes through without a second one being held, and
    without the page faults of fresh memory, which cost as much as the conversion; use it before the next.
    """
    rows, columns = tall.shape
    step = min(rows, max(at_least, run_elements(tall) // columns))
    if step == rows:
        yield slice(0, rows), tall.to(dtype)
        return
    buffer = None if dtype == tall.dtype else empty_like_rows(tall, step, dtype)
    for start in range(0, rows, step):
        block = tall[start : start + step]
        if buffer is not None:
            block = buffer[: block.shape[0]].copy_(block)
        yield slice(start, start + block.shape[0]), block


def empty_like_rows(tall: torch.Tensor, rows: int, dtype: torch.dtype) -> torch.Tensor:
    """Return an uninitialised ``rows x p`` block stored along the same axis as the matrix."""
    if tall.stride(0) < tall.stride(1):
        return tall.new_empty(tall.shape[1], rows, dtype=dtype).T
    return tall.new_empty(rows, tall.shape[1], dtype=dtype)


def times(tall: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return ``tall @ x`` in the precision of `x`, converting the matrix run by run where it differs.

    Formed as ``(x' tall')'``: with few columns, MKL needs two to ten times as long for the other order.
    """
    if x.dtype == tall.dtype or tall.numel() <= run_elements(tall):
        return (x.T @ tall.to(x.dtype).T).T
    out = x.new_empty(x.shape[1], tall.shape[0])
    for rows, block in converted_runs(tall, x.dtype):
        torch.matmul(x.T, block.T, out=out[:, rows])
    return out.T


def transposed_times(tall: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return ``tall' @ y`` in the precision of `y`, converting the matrix run by run; formed as in `times`."""
    if y.dtype == tall.dtype:
        return (y.T @ tall).T
    out = y.new_zeros(y.shape[1], tall.shape[1])
    for rows, block in converted_runs(tall, y.dtype):
        out.addmm_(y[rows].T, block)
    return out.T


def inner_products(y: torch.Tensor) -> torch.Tensor:
    """Return ``y' y`` accumulated in float64, run by run."""
    out = torch.zeros(y.shape[1], y.shape[1], dtype=torch.float64, device=y.device)
    for _, block in converted_runs(y, torch.float64):
        out.addmm_(block.T, block)
    return out


def orthonormalise(x: torch.Tensor) -> torch.Tensor:
    """Return an orthonormal basis of the columns of a p x k block, by Householder QR in float64."""
    return torch.linalg.qr(x.double()).Q


def sum_of_squares(tall: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the sum of squared entries: sums within a row in `dtype`, over rows in float64."""
    if is_gpu(tall.device):  # each entry is widened as it is added: no run of it in float64
        return float(torch.linalg.vector_norm(tall, dtype=torch.float64)) ** 2
    if tall.numel() <= RUN_ELEMENTS:
        return float(torch.linalg.vector_norm(tall.double())) ** 2
    lines = tall.T if tall.stride(0) < tall.stride(1) else tall
    norms = [torch.linalg.vector_norm(block, dim=1) for _, block in converted_runs(lines, dtype)]
    return float(torch.cat(norms).double().square().sum())
