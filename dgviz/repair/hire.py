"""Which executor a piece of work is worth; for the CPU without torch, so that other processes start first."""

from collections.abc import Sequence
from pathlib import Path

from dgviz.checkpoint import PairedTensor
from dgviz.device import is_gpu
from dgviz.errors import DgvizError
from dgviz.jobs.executor import Executor, InProcess, InThread, Processes, SpreadExecutor, Together
from dgviz.repair.ahead import decomposed
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.schedule import count_cores, work_of
from dgviz.spectra.weight import matrices_of

_WORTH = 4e10  # five seconds of one core: a process has used up more than one when it has imported torch
_DRIVERS = "/dev/nvidiactl", "/dev/dxg", "/dev/kfd"  # one of them is there where torch may find a GPU


def check_device(device: str) -> None:
    """Refuse a device that this machine has not, before any work; torch is asked where it is not ``auto`` or ``cpu``.

    Raises
    ------
    SpectrumError
        With those that there are.
    """
    if device not in ("auto", "cpu"):
        from dgviz.spectra.svd.decompose import resolve_device

        resolve_device(device)


def hire(
    tensors: Sequence[PairedTensor],
    plans: Sequence[RepairPlan],
    device: str,
    workers: int | None = None,
    ray: str | None = None,
) -> Executor:
    """Return where to make tensors under some plans: in so many processes as they are worth, this one among them.

    Each GPU has a process of its own, or as many as `workers` gives it: while one reads and hashes, another computes.
    On the CPU tensors are made on one thread, however many processes there are, and so come out the same.
    """
    if workers is not None and workers < 1:
        raise DgvizError(f"a repair needs at least 1 worker; got {workers}")
    if ray:
        return join(ray, tensors, device, workers)
    if device != "cpu" and (device != "auto" or any(Path(driver).exists() for driver in _DRIVERS)):
        from dgviz.spectra.svd.decompose import list_devices, resolve_device

        resolved = resolve_device(device)
        gpus = [found.id for found in list_devices() if is_gpu(found.id)] if device == "auto" else [resolved]
        if is_gpu(resolved):
            return _on_gpus(gpus, workers or len(gpus))
    count = workers or min(count_cores(), 1 + int(sum(_work(tensor, plans) for tensor in tensors) / _WORTH))
    if count == 1:
        return InProcess("cpu", threads=1)
    processes = Processes(count, "cpu", "dgviz.repair.tensor", joined=True)
    processes.start()
    return processes


def _on_gpus(gpus: Sequence[str], count: int) -> Executor:
    """Return so many processes, spread evenly over GPUs; the only one is a thread of this process."""
    if count == 1:
        return InThread(gpus[0])
    shares = [len(range(number, count, len(gpus))) for number in range(min(count, len(gpus)))]
    crews = [Processes(own, gpu, "dgviz.repair.tensor") for own, gpu in zip(shares, gpus, strict=False)]
    return crews[0] if len(crews) == 1 else Together(crews)


def join(
    address: str, tensors: Sequence[PairedTensor], device: str = "auto", workers: int | None = None
) -> SpreadExecutor:
    """Return a Ray cluster, each node of which sees the files that tensors are read from."""
    from dgviz.jobs.ray_cluster import RayCluster

    sides = (side for tensor in tensors for side in (tensor.base, tensor.tuned) if side is not None)
    return RayCluster(address, device, workers, frozenset().union(*(side.files for side in sides)))


def _work(tensor: PairedTensor, plans: Sequence[RepairPlan]) -> float:
    """Return what a tensor costs, in the units of `work_of`: one decomposition, and its entries for each plan."""
    changing = sum(plan.changes(tensor) for plan in plans)
    if not changing:
        return 0.0
    depth = min(matrices_of(tensor)[0].shape) if decomposed(tensor, plans) else 0
    return work_of(tensor.tuned.numel, depth) + (changing - 1) * work_of(tensor.tuned.numel, 0)
