"""One weight of a model with a LoRA adapter: base + scaling * B @ A, and its exact low-rank update."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgviz.checkpoint.derived import derive
from dgviz.checkpoint.read import read_tensor
from dgviz.checkpoint.types import DerivedTensor, TensorInfo
from dgviz.errors import CheckpointError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LoraTensor(DerivedTensor):
    """Base plus a low-rank update; `parts` are base, A (rank, in) and B (out, rank).

    Attributes
    ----------
    scaling : float
        Factor of B @ A.
    transposed : bool
        Whether base is (in, out): GPT-2's Conv1D, and embeddings.
    square : bool
        Whether the shapes would fit both ways.
    embedding : bool
        Whether the factors are those of an embedding.
    """

    scaling: float
    transposed: bool
    square: bool
    embedding: bool

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return self.parts[1].shape[0]

    @property
    def recipe(self) -> str:
        """Scaling and orientation."""
        return f"lora {self.scaling!r} {self.transposed}"

    def compute_update(self, device: str = "cpu") -> "torch.Tensor":
        """Return scaling * B @ A in base's shape, float32 (float64 where a part is), on a device."""
        import torch

        dtype = torch.float64 if "float64" in [part.dtype for part in self.parts] else torch.float32
        first, second = (read_tensor(part).to(device).to(dtype).flatten(1) for part in self.parts[1:])
        update = (second @ first).mul_(self.scaling)
        return (update.T if self.transposed else update).contiguous().reshape(self.shape)

    def compute(self) -> "torch.Tensor":
        """Add the update in float32 (or float64) and round once, as a merge does."""
        import torch

        update = self.compute_update()
        return read_tensor(self.parts[0]).to(update.dtype).add_(update).to(getattr(torch, self.dtype))


def lora_tensor(
    base: TensorInfo, first: TensorInfo, second: TensorInfo, scaling: float, transposed: bool, embedding: bool
) -> LoraTensor:
    """Return base plus scaling * B @ A, turned the way that fits base."""
    where = f"LoRA factors {first.name!r} {first.shape} and {second.name!r} {second.shape} in {first.file}"
    for part in (base, first, second):
        if part.dtype not in ("float64", "float32", "bfloat16", "float16"):
            raise CheckpointError(f"{where}: {part.name!r} is {part.dtype}, which cannot be added up")
    fits = len(first.shape) >= 2 and len(second.shape) >= 2 and len(base.shape) >= 2
    if not fits or math.prod(second.shape[1:]) != first.shape[0]:
        raise CheckpointError(f"{where} do not multiply: they are damaged, or of a layer that is not read")
    product = second.shape[0], math.prod(first.shape[1:])
    plain = base.shape[0], math.prod(base.shape[1:])
    turned = len(base.shape) == 2 and product == plain[::-1]
    if product != plain and not turned:
        raise CheckpointError(
            f"{where} make {product}, but base's {base.name!r} is {base.shape}: is this the base it was trained on?"
        )
    square = turned and product == plain
    return derive(
        LoraTensor,
        base,
        (base, first, second),
        shape=base.shape,
        scaling=float(scaling),
        transposed=transposed if square else turned,
        square=square and not embedding,
        embedding=embedding,
    )
