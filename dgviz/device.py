"""What a GPU wants of whoever computes on it: large blocks, and copies that nobody waits for.

Torch is imported where something is computed. A device is what torch calls it: "cpu", "cuda:0".
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_GPU_BLOCK = 2**24
_RUN, _MANY = 256, 2**16  # entries


def is_gpu(device: "str | torch.device") -> bool:
    """Return whether a device is a GPU, which works on while the host goes on."""
    return str(device).startswith("cuda")


def block_elements(device: "str | torch.device", on_cpu: int) -> int:
    """Return how many elements to handle at once: on a CPU as many as stay in its cache, on a GPU many.

    A GPU that is given small blocks waits for the next launch most of the time.
    """
    return _GPU_BLOCK if is_gpu(device) else on_cpu


def out_of_memory(device: str) -> str:
    """Return what to tell of work that a GPU had no memory for."""
    return f"{device} ran out of memory, so this was computed on the CPU"


def send(tensor: "torch.Tensor", device: "str | torch.device") -> "torch.Tensor":
    """Return a tensor of the host on a device; nobody waits until it is there.

    What the device is told afterwards it does afterwards, and pinned memory is not used again before it was read.
    """
    if not is_gpu(device):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(tensor: "torch.Tensor") -> "torch.Tensor":
    """Return a tensor on the host: from a GPU it has arrived when something else of it is waited for next."""
    return tensor.to("cpu", non_blocking=is_gpu(tensor.device))


def sum_double(values: "torch.Tensor") -> "torch.Tensor":
    """Return the sum of all entries in float64.

    On a CPU many float32 entries are first added up in runs of their own kind, in a quarter of the time: that loses
    1e-9 of the sum of their sizes, mostly less.
    """
    import torch

    flat = values.reshape(-1)
    if is_gpu(flat.device) or flat.dtype != torch.float32 or flat.numel() < _MANY:
        return flat.sum(dtype=torch.float64)
    even = flat.numel() // _RUN * _RUN
    runs = flat[:even].view(-1, _RUN).sum(dim=1)
    return runs.sum(dtype=torch.float64) + flat[even:].sum(dtype=torch.float64)


def count_below(values: "torch.Tensor", bound: int) -> "torch.Tensor":
    """Return how often each whole number below a bound occurs, int64, on the device of the values."""
    import torch

    flat = values.reshape(-1)
    if not is_gpu(flat.device):
        return torch.bincount(flat, minlength=bound)
    # There bincount first asks for the largest. Neighbours count in different rows: equal ones would wait in line.
    rows = max(1, min(64, 2**18 // bound))
    places = torch.arange(flat.numel(), device=flat.device).remainder_(rows).mul_(bound).add_(flat)
    counts = torch.zeros(rows * bound, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(0, places, counts.new_ones(1).expand_as(places)).view(rows, bound).sum(dim=0)
