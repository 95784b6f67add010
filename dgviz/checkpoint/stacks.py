"""Whether a tensor of three dimensions is a stack of matrices or a convolution's kernel, told by what is around it.

Experts, codebooks and heads are stored as stacks under any name: (matrices, outputs, inputs). A kernel is (outputs,
inputs, taps), with few taps; a projection to heads may be (width, heads, width of a head), which is one matrix.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dgviz.checkpoint.types import Checkpoint, TensorInfo

_MOST_TAPS = 16
"""Longer last dimensions are features: kernels longer than this are called so, by name or config, wherever seen."""


class Surroundings:
    """What the other tensors of a checkpoint, and its config, say of a tensor of three dimensions."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tensors = checkpoint.tensors
        shapes = [info.shape for info in checkpoint.tensors.values()]
        self._vectors = {shape[0] for shape in shapes if len(shape) == 1}
        self._features = self._vectors | {shape[1] for shape in shapes if len(shape) == 2}
        self._kernels = set(_kernel_sizes(checkpoint.config))
        self._kinds = {_kind(name) for name, info in checkpoint.tensors.items() if len(info.shape) > 3}

    def is_stack(self, info: TensorInfo) -> bool | None:
        """Return whether three dimensions (longer than one) are a stack of matrices; None where nothing tells."""
        sizes = [length for length in info.shape if length != 1]
        if len(sizes) != 3:
            return False
        if "experts" in info.name.split("."):
            return True
        if len(info.shape) > 3 or "conv" in info.name.lower() or _kind(info.name) in self._kinds:
            return False
        bias = self._tensors.get(f"{info.name.removesuffix('.weight')}.bias")
        if bias is not None and bias.shape in ((sizes[0],), (sizes[1],)):
            return False  # of a convolution, or a transposed one: a stack has a row of biases per matrix
        first, second, last = sizes
        if first in self._vectors and not self._vectors.intersection((second, last)):
            return False  # (width, heads, width of a head): of a stack, inputs or outputs have the width
        if last not in self._features:
            if last in self._kernels or (last < _MOST_TAPS and last % 2):
                return False
            if last <= _MOST_TAPS:
                return None
        return True


def _kind(name: str) -> str:
    """Return what is common to tensors of one kind in all layers: the name without numbers."""
    return re.sub(r"\d+", "", name)


def _kernel_sizes(config: Mapping[str, Any], inside: bool = False) -> Iterator[int]:
    """Yield every number that a config gives as the size of a kernel."""
    for key, value in config.items():
        named = inside or "kernel" in str(key) or "conv" in str(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                yield from _kernel_sizes(item, named)
            elif named and type(item) is int:
                yield item
