"""A pretend accelerator: tensors that say ``cuda:0``, compute on the CPU, and count what a real device would do.

It refuses what a device refuses - operands on different devices, more memory than it has - and does late what a
device does late: a copy to the host that nobody waited for has not arrived. Kernels inside one operation of torch,
and their workspace, it does not see.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from dgviz.spectra.svd.decompose import resolve_device

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")

# Operations whose result, or whose check of success, the host has to see before it goes on.
_WAITING = {
    "_linalg_eigh",
    "_linalg_svd",
    "bincount",
    "equal",
    "is_nonzero",
    "linalg_lstsq",
    "masked_select",
    "nonzero",
    "_unique2",
    "unique_dim",
}
_NO_KERNEL = {"empty", "empty_strided", "new_empty", "new_empty_strided", "empty_like", "lift_fresh"}


class DeviceTensor(torch.Tensor):
    """What the accelerator holds; `held` is where its numbers really are."""

    held: torch.Tensor
    accelerator: "Accelerator"

    @staticmethod
    def __new__(cls, held: torch.Tensor, accelerator: "Accelerator") -> "DeviceTensor":
        meta = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
        made = torch.Tensor._make_subclass(cls, meta, False, dispatch_device=True, device_for_backend_keys=DEVICE)
        made.held, made.accelerator = held, accelerator
        return made

    # Of these a build of torch without CUDA wants a CUDA device before it asks anybody else.
    def copy_(self, source, non_blocking=False):
        return aten.copy_.default(self, source, non_blocking)

    def contiguous(self):
        return self if self.is_contiguous() else self.clone(memory_format=torch.contiguous_format)

    def nonzero(self):
        return aten.nonzero.default(self)

    def item(self):
        return aten._local_scalar_dense.default(self.reshape(()))

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __getitem__(self, index):
        return self.accelerator.index(self, index)

    def __setitem__(self, index, value):
        place = self.accelerator.index(self, index, view=True)
        place.copy_(value) if isinstance(value, torch.Tensor) else place.fill_(value)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.prim.device.default:
            return DEVICE
        raise RuntimeError(f"{function} on a tensor of a pretend accelerator that is no longer there")


class Accelerator(TorchDispatchMode):
    """Runs what is on the device, and counts.

    Attributes
    ----------
    bytes_in, bytes_out : int
        Copied to the device, and from it.
    waits : Counter
        Synchronisations, by operation: where the host stands still until the device has done all it was told.
    launches : Counter
        Operations that run on the device, by name.
    largest : dict
        Most elements of any one result, by dtype.
    live, peak : int
        Bytes that are held, and that were at most.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to see to that torch would load its compiler: two seconds

    def __init__(self, capacity: float) -> None:
        super().__init__()
        self.capacity = capacity
        self.live = 0
        self._storages: dict[int, list[int]] = {}
        self._pinned = weakref.WeakValueDictionary()
        self._arriving: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.reset()

    def reset(self) -> None:
        """Count from here."""
        self.bytes_in = self.bytes_out = 0
        self.waits, self.launches, self.largest = Counter(), Counter(), {}
        self.peak = self.live

    def wait(self, why: str) -> None:
        """Stand still until everything has been done."""
        self.waits[why] += 1
        for target, source in self._arriving:
            target.copy_(source)
        self._arriving.clear()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run one operation where its operands are."""
        kwargs = dict(kwargs or {})
        name = function.overloadpacket.__name__
        if function is torch.ops.prim.device.default:
            return DEVICE if isinstance(args[0], DeviceTensor) else function(*args)
        leaves, structure = tree_flatten((args, kwargs))
        ours = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, DeviceTensor)}
        pinning = kwargs.pop("pin_memory", None)
        if name in ("is_pinned", "_pin_memory"):
            return args[0].data_ptr() in self._pinned if name == "is_pinned" else self._pin(args[0].clone())
        if name in ("_to_copy", "copy_"):
            return self._copied(name, function, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == "cuda":
            kwargs["device"] = torch.device("cpu")
        elif not ours:
            made = function(*args, **kwargs)
            return self._pin(made) if pinning else made
        self._refuse_mixture(name, leaves)
        if name in _WAITING or (name in ("index_put", "index_put_") and _has_mask(args)):
            self.wait(name)
        if name == "_local_scalar_dense":
            self.wait("item")
            self.bytes_out += args[0].element_size()
            return function(args[0].held)
        kwargs.pop("driver", None)  # which of a device's solvers
        leaves, structure = tree_flatten((args, kwargs))
        real, named = tree_unflatten([_held(leaf) for leaf in leaves], structure)
        result = function(*real, **named)
        if not _is_view(function) and name not in _NO_KERNEL:
            self.launches[name] += 1
        if wanted is not None and torch.device(wanted).type != "cuda":
            return result
        return tree_map(lambda part: self._wrapped(part, ours), result)

    def index(self, tensor: DeviceTensor, index, view: bool = False) -> DeviceTensor:
        """Return what an index selects; where it is a tensor, by a kernel."""
        indices = index if isinstance(index, tuple) else (index,)
        tensors = [one for one in indices if isinstance(one, torch.Tensor)]
        assert not (view and tensors), "write where a tensor says by index_put_"
        if any(one.dtype == torch.bool for one in tensors):
            self.wait("index by a mask")
        if any(not isinstance(one, DeviceTensor) for one in tensors):
            self.wait("index from the host")
        self.launches["index"] += bool(tensors)
        return self._hold(tensor.held[tuple(map(_held, indices))])

    def _wrapped(self, part, ours):
        """Return a result as a tensor of the device; what was written in place as the one it was."""
        if not isinstance(part, torch.Tensor):
            return part
        if id(part) in ours:
            same = ours[id(part)]
            assert same.shape == part.shape and same.stride() == part.stride(), "a tensor changed its shape in place"
            return same
        return self._hold(part)

    def _hold(self, held: torch.Tensor) -> DeviceTensor:
        """Return a tensor of the device, if it has room for it."""
        storage = held.untyped_storage()
        place, nbytes = storage._cdata, storage.nbytes()
        if place not in self._storages and self.live + nbytes > self.capacity:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {nbytes} bytes beside {self.live} of {self.capacity:.0f}"
            )
        if place not in self._storages:
            self._storages[place] = [0, nbytes]
            self.live += nbytes
            self.peak = max(self.peak, self.live)
        self._storages[place][0] += 1
        self.largest[held.dtype] = max(self.largest.get(held.dtype, 0), nbytes // held.element_size())
        made = DeviceTensor(held, self)
        weakref.finalize(made, self._release, place)
        return made

    def _release(self, place: int) -> None:
        entry = self._storages[place]
        entry[0] -= 1
        if entry[0] == 0:
            self.live -= entry[1]
            del self._storages[place]

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned[tensor.data_ptr()] = tensor
        return tensor

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        storage = tensor.untyped_storage().data_ptr()
        return storage in self._pinned

    def _copied(self, name, function, args, kwargs):
        """Copy within the device, to it or from it, and count which."""
        target, source = (None, args[0]) if name == "_to_copy" else args[:2]
        non_blocking = kwargs.pop("non_blocking", False) or (len(args) > 2 and args[2])
        if name == "_to_copy":
            wanted = kwargs.pop("device", None)
            wanted = source.device if wanted is None else torch.device(wanted)
        else:
            wanted = target.device
        here, there = isinstance(source, DeviceTensor), wanted.type == "cuda"
        held = source.held if here else source
        if here and not there and not (non_blocking and (name == "_to_copy" or self._is_pinned(target))):
            self.wait(f"copy to the host, {name}")
            non_blocking = False
        if there and not here and not (non_blocking and self._is_pinned(source)):
            self.wait(f"copy from the host, {name}")
        if here != there:
            # A copy that changes the dtype as well is converted where it comes from.
            moved = held.numel() * (kwargs.get("dtype") or (held if target is None else target).dtype).itemsize
            if there:
                self.bytes_in += moved
            else:
                self.bytes_out += moved
        if here and there:
            self.launches[name] += 1
        if name == "_to_copy":
            made = function(held, **kwargs)
            if there:
                return self._hold(made)
            if here and non_blocking:
                self._arriving.append((self._pin(made), made.clone()))
                made.fill_(torch.nan if made.is_floating_point() else 99)
            return made
        if here and not there and non_blocking:
            self._arriving.append((target, held.clone()))
            return target
        function(_held(target), held)
        return target

    def _refuse_mixture(self, name, leaves) -> None:
        """Raise where operands lie on different devices; numbers without a dimension may lie anywhere."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        ours = [isinstance(tensor, DeviceTensor) for tensor in tensors]
        strangers = [tensor for tensor, own in zip(tensors, ours, strict=True) if not own and tensor.ndim]
        if any(ours) and strangers:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {name} found at least two: cuda:0 and cpu"
            )


def _held(leaf):
    return leaf.held if isinstance(leaf, DeviceTensor) else leaf


def _has_mask(args) -> bool:
    """Return whether an index is a mask: how many entries it selects the host has to know."""
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1])


def _is_view(function) -> bool:
    returns = function._schema.returns
    return bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)


class _Event:
    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def record(self, stream=None) -> None:
        pass

    def synchronize(self) -> None:
        self._accelerator.wait("event")


@contextlib.contextmanager
def pretend_accelerator(capacity: float = float("inf"), gram: torch.dtype = torch.float64) -> Iterator[Accelerator]:
    """Let this machine have one CUDA device for a while, of so many bytes.

    Its Gram matrices are formed in float64, as on a data-centre card, or float32, as where float64 is slow: of a
    pretend device it cannot be measured.
    """
    accelerator = Accelerator(capacity)
    free = int(min(capacity, 2**36))
    stream = SimpleNamespace(synchronize=lambda: accelerator.wait("stream"))
    instead = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (free, free),
        "get_device_name": lambda device=None: "Pretend",
        "reset_peak_memory_stats": accelerator.reset,
        "max_memory_allocated": lambda device=None: accelerator.peak,
        "set_sync_debug_mode": lambda mode: None,
        "get_device_properties": lambda device=None: SimpleNamespace(name="Pretend", total_memory=free),
        "synchronize": lambda device=None: accelerator.wait("synchronize"),
        "current_stream": lambda device=None: stream,
        "Event": lambda **options: _Event(accelerator),
    }
    resolve_device.cache_clear()
    measured = mock.patch("dgviz.spectra.svd.solve.gram_dtype", lambda device: gram)
    try:
        with measured, mock.patch.multiple(torch.cuda, **instead), accelerator:
            yield accelerator
    finally:
        resolve_device.cache_clear()
