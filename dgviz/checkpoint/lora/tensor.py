"""Weights of a model with a LoRA adapter: base + scaling * B @ A, and their exact low-rank updates.

Fused experts have one pair of factors for a whole stack (PEFT's ``target_parameters``): for E experts A is
(E * rank, in), expert after expert, and B is (out, rank * E), whose columns go round the experts: expert e has the
columns e, e + E, e + 2 E, ... (``peft.tuners.lora.layer.ParamWrapper``). Several parameters of one module are wrapped
one around the other, so that only their shapes tell which factors are whose.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgviz.checkpoint.derived import derive, matrix_rows
from dgviz.checkpoint.read import read_tensor
from dgviz.checkpoint.renaming import Member
from dgviz.checkpoint.types import Checkpoint, DerivedTensor, TensorInfo
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
        first, second = (read_tensor(part, device=device).to(dtype).flatten(1) for part in self.parts[1:])
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


@dataclass(frozen=True)
class ExpertFactor(DerivedTensor):
    """One expert's part of B: the columns ``expert``, ``expert + experts``, ... of some rows (begin, end)."""

    expert: int
    experts: int
    rows: tuple[int, int]

    @property
    def recipe(self) -> str:
        """Which columns and rows."""
        return f"columns {self.expert} of {self.experts}, rows {self.rows}"

    def compute(self) -> "torch.Tensor":
        """Read the whole factor and copy the expert's part."""
        begin, end = self.rows
        return read_tensor(self.parts[0])[begin:end, self.expert :: self.experts].contiguous()


@dataclass(frozen=True)
class LoraStack(DerivedTensor):
    """A stack of experts plus a low-rank update of each; `parts` are base, A and B of the stack.

    Attributes
    ----------
    scaling : float
        Factor of B @ A.
    transposed : bool
        Whether base's matrices are (in, out).
    square : bool
        Whether the shapes would fit both ways.
    """

    scaling: float
    transposed: bool
    square: bool

    @property
    def rank(self) -> int:
        """Rank of each expert's update."""
        return self.parts[1].shape[0] // self.shape[0]

    @property
    def recipe(self) -> str:
        """Scaling and orientation."""
        return f"lora of experts {self.scaling!r} {self.transposed}"

    def compute(self) -> "torch.Tensor":
        """Add every expert's update."""
        import torch

        return torch.stack([read_tensor(self.slice(index)) for index in range(self.shape[0])])

    def entry(self, index: int) -> LoraTensor:
        """Return one expert with its own update."""
        base, first, second = self.parts
        factors = _expert_factors(first, second, index, self.shape[0], (0, second.shape[0]))
        return lora_tensor(base.slice(index), *factors, self.scaling, self.transposed, False)


def lora_stack(
    base: TensorInfo, first: TensorInfo, second: TensorInfo, scaling: float, transposed: bool
) -> LoraStack | None:
    """Return a stack of experts with an update of each; None where the factors do not fit it."""
    if len(base.shape) != 3 or base.shape[0] < 2 or not _fits(first, second, base.shape[0]):
        return None
    product = second.shape[0], first.shape[1]
    if base.shape[1:] not in (product, product[::-1]):
        return None
    square = product[0] == product[1]
    turned = transposed if square else base.shape[1:] != product
    fields = {"scaling": float(scaling), "transposed": turned, "square": square}
    return derive(LoraStack, base, (base, first, second), shape=base.shape, **fields)


def lora_members(
    base: Checkpoint, members: Mapping[str, Member], first: TensorInfo, second: TensorInfo, scaling: float
) -> dict[str, LoraTensor]:
    """Return experts stored one by one, each with its part of the update of their stack; nothing unless all fit."""
    experts = 1 + max(member.expert for member in members.values())
    if not _fits(first, second, experts):
        return {}
    updated = {}
    for name, member in members.items():
        info = base.tensors[name]
        rows = info.shape[0] if len(info.shape) == 2 else 0
        if (second.shape[0], first.shape[1]) != (rows * member.parts, *info.shape[1:]):
            return {}
        own = member.part * rows, (member.part + 1) * rows
        factors = _expert_factors(first, second, member.expert, experts, own)
        updated[name] = lora_tensor(info, *factors, scaling, False, False)
    return updated


def stores_transposed(base: Checkpoint, name: str) -> bool | None:
    """Return whether square experts are stored as (in, out); None where it is open.

    Twice as many numbers come out of gate_up_proj as go into down_proj: of the two at most one is square, and the
    other's shape tells.
    """
    module = name.rpartition(".")[0]
    stacks = [base.tensors.get(f"{module}.{parameter}") for parameter in ("gate_up_proj", "down_proj")]
    shapes = [stack.shape[1:] for stack in stacks if stack is not None and len(stack.shape) == 3]
    return next((rows < cols for rows, cols in shapes if rows != cols), None)


def parameter_names(module: str, targets: Sequence[str]) -> list[str]:
    """Return the parameters of a module that ``target_parameters`` names, by their whole names."""
    whole = ((f"{module}.{target.rpartition('.')[2]}", target) for target in targets)
    return [name for name, target in whole if f".{name}".endswith(f".{target}")]


def _fits(first: TensorInfo, second: TensorInfo, experts: int) -> bool:
    two = len(first.shape) == len(second.shape) == 2
    return two and first.shape[0] == second.shape[1] and first.shape[0] % experts == 0 and first.shape[0] > 0


def _expert_factors(
    first: TensorInfo, second: TensorInfo, expert: int, experts: int, rows: tuple[int, int]
) -> tuple[TensorInfo, TensorInfo]:
    """Return A and B of one expert; of B only some rows."""
    rank = first.shape[0] // experts
    shape = rows[1] - rows[0], rank
    columns = derive(ExpertFactor, second, (second,), shape=shape, expert=expert, experts=experts, rows=rows)
    return matrix_rows(first, expert * rank, (expert + 1) * rank), columns
