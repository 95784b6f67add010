"""tuned - base of one weight, as a matrix on the computing device."""

import torch

from dgviz.checkpoint import PairedTensor, read_tensor, select_matrix
from dgviz.checkpoint.lora.tensor import LoraTensor

_BLOCK_ELEMENTS = 2**20


def compute_delta(paired: PairedTensor, index: int | None, device: str) -> torch.Tensor:
    """Return ``tuned - base`` of one weight, subtracted in float32, or float64 where either side is float64.

    Both sides travel to the device as stored and are widened there, so that a bfloat16 pair sends half the bytes.
    Peak memory for N elements: the result (4N or 8N bytes) and one side as stored; tuned is released before base is
    read, and base is widened by blocks of rows. Non-finite values pass through: `spectrum` names them.

    The update of a LoRA adapter is not subtracted but multiplied out from its factors: it has exactly their rank.
    """
    base, tuned, layout = select_matrix(paired, index)
    shape = layout.rows, layout.cols
    if isinstance(tuned, LoraTensor) and tuned.parts[0] == base:
        return tuned.compute_update(device).reshape(shape)
    dtype = torch.float64 if "float64" in (base.dtype, tuned.dtype) else torch.float32
    # The buffer just read belongs to nobody else, so where nothing has to be widened it becomes the result.
    delta = read_tensor(tuned).reshape(shape).to(device).to(dtype)
    other = read_tensor(base).reshape(shape).to(device)
    if other.dtype == dtype:
        return delta.sub_(other)
    # One block of scratch, allocated once: a fresh one per block leaves up to twice as much behind in the heap.
    step = min(layout.rows, max(1, _BLOCK_ELEMENTS // layout.cols))
    scratch = torch.empty((step, layout.cols), dtype=dtype, device=other.device)
    for start in range(0, layout.rows, step):
        rows = other[start : start + step]
        delta[start : start + step].sub_(scratch[: len(rows)].copy_(rows))
    return delta


def live_shape(delta: torch.Tensor) -> tuple[int, int]:
    """Return how many rows and columns of a delta hold an entry that is not zero; its full shape where none does."""
    rows = 0
    live_columns = torch.zeros(delta.shape[1], dtype=torch.bool, device=delta.device)
    step = max(1, _BLOCK_ELEMENTS // delta.shape[1])
    for start in range(0, delta.shape[0], step):
        nonzero = delta[start : start + step] != 0
        rows += int(nonzero.any(dim=1).sum())
        live_columns |= nonzero.any(dim=0)
    columns = int(live_columns.sum())
    return (rows, columns) if rows else (int(delta.shape[0]), int(delta.shape[1]))
