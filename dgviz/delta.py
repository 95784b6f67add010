"""tuned - base of one weight, as a matrix on the computing device."""

import torch

from dgviz.checkpoint import PairedTensor, matrix_layout, read_tensor
from dgviz.errors import PairError

_BLOCK_ELEMENTS = 2**20


def compute_delta(paired: PairedTensor, index: int | None, device: str) -> torch.Tensor:
    """Return ``tuned - base`` of one weight, subtracted in float32, or float64 where either side is float64.

    Both sides travel to the device as stored and are widened there, so that a bfloat16 pair sends half the bytes.
    Peak memory for N elements: the result (4N or 8N bytes) and one side as stored; tuned is released before base is
    read, and base is widened by blocks of rows. Non-finite values pass through: `spectrum` names them.

    Parameters
    ----------
    paired : PairedTensor
        A weight that is in both checkpoints.
    index : int or None
        Which matrix of a stack; None for a tensor that is one matrix.
    device : str
        A torch device, such as ``"cpu"`` or ``"cuda:0"``.

    Returns
    -------
    torch.Tensor
        rows x cols of `matrix_layout`, contiguous, on `device`, in memory of its own.

    Raises
    ------
    PairError
        If the tensor has no delta, is no matrix, or `index` does not fit it.
    CheckpointError
        If a file is gone or has become shorter.
    """
    base, tuned = paired.base, paired.tuned
    if base is None or tuned is None or base.shape != tuned.shape:
        raise PairError(f"{paired.name!r} has no delta: {paired.reason}")
    layout = matrix_layout(paired.name, tuned.shape)
    if layout is None:
        raise PairError(f"{paired.name!r} of shape {tuned.shape} is not a matrix: only matrices have a spectrum")
    if (index is None) != (layout.stack is None) or (index is not None and not 0 <= index < layout.stack):
        wanted = "one matrix, without an index" if layout.stack is None else f"a stack of {layout.stack} matrices"
        raise PairError(f"{paired.name!r} of shape {tuned.shape} is {wanted}; index {index} does not fit")
    shape = layout.rows, layout.cols
    dtype = torch.float64 if "float64" in (base.dtype, tuned.dtype) else torch.float32
    # The buffer just read belongs to nobody else, so where nothing has to be widened it becomes the result.
    delta = read_tensor(tuned, index).reshape(shape).to(device).to(dtype)
    other = read_tensor(base, index).reshape(shape).to(device)
    step = max(1, _BLOCK_ELEMENTS // layout.cols)
    for start in range(0, layout.rows, step):
        rows = slice(start, start + step)
        delta[rows].sub_(other[rows].to(dtype))
    return delta
