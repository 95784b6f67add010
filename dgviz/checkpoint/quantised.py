"""Quantised checkpoints: FP8 and MXFP4 bases read as what they stand for, plain FP8 casts too, all others refused.

Stored numbers are codes, and an SVD of codes would look like an answer. Of the two formats that are read, a value is
its code times its scale, computed in float32 and rounded once to the dtype in the config, which is what transformers'
``dequantize=True`` gives and a fine-tuning run starts from: a dense tuned model can be subtracted from it. What a
config says counts only where tensors are codes: weights that were read and saved as numbers often keep the entry.
Sources: ``transformers.integrations.finegrained_fp8`` and ``transformers.integrations.mxfp4``; OCP Microscaling
Formats (MX) Specification 1.0 (https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dgviz.checkpoint.derived import derive, matrix_rows
from dgviz.checkpoint.documents import config_sections
from dgviz.checkpoint.read import read_tensor
from dgviz.checkpoint.types import Checkpoint, DerivedTensor, TensorInfo
from dgviz.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_SCALES = {"_scale_inv": ("", "fp8", "mxfp4"), "_scale": ("", "fbgemm_fp8", "compressed-tensors", "modelopt")}
"""What a weight's scale is called behind the weight's name, and the methods that call it so."""
_BESIDE = ("activation_scale", "input_scale", "input_scale_ub", "output_scale")
"""Scales of activations, beside a quantised weight: no part of its values."""
_MARKS = {
    "weight_scale_inv": "FP8 blocks",
    "weight_packed": "compressed-tensors",
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "absmax": "bitsandbytes 4-bit",
    "quant_state": "bitsandbytes 4-bit",
    "SCB": "bitsandbytes 8-bit",
}
"""Last name components (or, for quant_state, any) that only quantised checkpoints have, and whose they are."""

_MARKED = re.compile("|".join([*_MARKS, "_blocks"]))
_SCALE_WORD = re.compile("scale|zero_?point|absmax|codebook")
_MOST_TABLE = 1024  # whole numbers in smaller tensors are counts, places and the like
PACKED = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
_FLOATS = ("float64", "float32", "bfloat16", "float16")
# E2M1, two codes to a byte, low half first: one sign bit, two of exponent, one of mantissa.
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_MX_BLOCK_BYTES = 16


@dataclass(frozen=True)
class BlockFloat8(DerivedTensor):
    """An 8-bit floating-point matrix times one scale per block; `parts` are the codes and the scales (rows, columns).

    `block` is (rows, columns); the last blocks may be cut off by the matrix's edge. A scale per row has blocks of one
    row, a single scale one block. Three dimensions are a stack of such matrices.
    """

    block: tuple[int, int]

    @property
    def recipe(self) -> str:
        """The block size."""
        return f"float8 in blocks of {self.block}"

    def compute(self) -> "torch.Tensor":
        """Multiply block row by block row, so that no second float32 matrix exists."""
        import torch

        if len(self.shape) == 3:
            return torch.stack([read_tensor(self.entry(index)) for index in range(self.shape[0])])
        codes, scales = (read_tensor(part) for part in self.parts)
        rows, cols = self.shape
        out = torch.empty(self.shape, dtype=getattr(torch, self.dtype))
        scales = scales.float().reshape(-(-rows // self.block[0]), -1)
        step = self.block[0] * max(1, 256 // self.block[0])  # rows of one scale each are taken together
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            bands = torch.arange(part.start, part.stop) // self.block[0]
            factor = scales[bands].repeat_interleave(self.block[1], dim=1)[:, :cols]
            out[part] = (codes[part].float() * factor).to(out.dtype)
        return out

    def entry(self, index: int) -> TensorInfo:
        """Return one matrix of a stack; only its own codes are read."""
        parts = tuple(_first(part, index) for part in self.parts)
        return derive(BlockFloat8, self, parts, shape=self.shape[1:], block=self.block)


@dataclass(frozen=True)
class PlainFloat8(DerivedTensor):
    """Numbers that were rounded to an 8-bit floating-point dtype, without scales: they mean themselves."""

    @property
    def recipe(self) -> str:
        """Nothing is multiplied."""
        return "float8 as it is"

    def compute(self) -> "torch.Tensor":
        """Widen them, which is exact."""
        import torch

        return read_tensor(self.parts[0]).to(getattr(torch, self.dtype))

    def slice(self, index: int) -> TensorInfo:
        """Return one entry of a stack."""
        part = self.parts[0].slice(index)
        return derive(PlainFloat8, self, (part,), shape=part.shape)


@dataclass(frozen=True)
class MicroscaledFloat4(DerivedTensor):
    """Experts in MXFP4: `parts` are blocks (experts, rows, groups, 16) and scales (experts, rows, groups), bytes.

    The values are (experts, 32 groups, rows): transformers keeps these weights transposed. Without the first
    dimension, one expert.
    """

    @property
    def recipe(self) -> str:
        """The format."""
        return "MXFP4, transposed"

    def compute(self) -> "torch.Tensor":
        """Look the codes up and shift them by their scales' exponents, which is exact in float32."""
        import torch

        blocks, scales = (read_tensor(part) for part in self.parts)
        if len(self.shape) == 2:
            return self._values(blocks, scales)
        return torch.stack([self._values(*both) for both in zip(blocks, scales, strict=True)])

    def _values(self, blocks: "torch.Tensor", scales: "torch.Tensor") -> "torch.Tensor":
        import torch

        values = torch.tensor(_FP4, dtype=torch.float32)
        codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).int()
        exact = torch.ldexp(values[codes], scales.int()[..., None] - 127)
        return exact.flatten(-2).to(getattr(torch, self.dtype)).mT.contiguous()

    def entry(self, index: int) -> TensorInfo:
        """Return one expert; only its own codes are read."""
        parts = tuple(_first(part, index) for part in self.parts)
        return derive(MicroscaledFloat4, self, parts, shape=self.shape[1:])


def _first(part: TensorInfo, index: int) -> TensorInfo:
    """Return one entry of the first dimension, of one too; `TensorInfo.slice` drops leading dimensions of one."""
    row = matrix_rows(part, index, index + 1)
    return replace(row, shape=part.shape[1:])


def dequantised(checkpoint: Checkpoint, role: str) -> Checkpoint:
    """Return a checkpoint whose FP8 and MXFP4 weights are read as numbers, tuned's only where they are plain casts.

    A config that speaks of a quantisation which no tensor shows is cleared of it.
    """
    if not shows_codes(checkpoint):
        return _dense(checkpoint, {}, set()) if _method(checkpoint.config) else checkpoint
    method = _method(checkpoint.config)
    tensors: dict[str, TensorInfo] = {}
    used: set[str] = set()
    dtype = _target_dtype(checkpoint.config)
    for name, info in checkpoint.tensors.items():
        scale = _scale_of(checkpoint, name)
        plain = scale is None and not method and info.dtype.startswith(("float8_e4m3", "float8_e5m2"))
        if plain:
            tensors[name] = derive(PlainFloat8, info, (info,), shape=info.shape, dtype=dtype)
        elif role == "tuned":
            continue
        elif info.dtype.startswith("float8") and scale is not None:
            tensors[name] = _block_float8(checkpoint, info, scale, dtype)
            module = name.rpartition(".")[0]
            used |= {scale.name, *(f"{module}.{beside}" for beside in _BESIDE)}
        stem = name.removesuffix("_blocks")
        scales = checkpoint.tensors.get(f"{stem}_scales")
        readable = method in ("", "fp8", "mxfp4") and info.dtype == "uint8"
        if readable and name.endswith("_blocks") and scales is not None and scales.dtype == "uint8":
            tensors[stem] = _microscaled(info, scales, stem, dtype)
            used |= {name, scales.name}
    if not tensors:
        refuse_quantised(checkpoint, role)
        return checkpoint
    for name, info in tensors.items():
        if name in checkpoint.tensors and isinstance(info, MicroscaledFloat4):
            raise CheckpointError(
                f"{checkpoint.path} holds {name!r} both in MXFP4 and as it is: save the model again"
            )
    dense = _dense(checkpoint, tensors, used)
    refuse_quantised(dense, role)
    return dense


def _dense(checkpoint: Checkpoint, tensors: Mapping[str, TensorInfo], used: set[str]) -> Checkpoint:
    """Return a checkpoint with other tensors in place of some, and a config that speaks of no quantisation."""
    whole = {name: info for name, info in checkpoint.tensors.items() if name not in used} | tensors
    fingerprint = hashlib.sha256(f"{checkpoint.fingerprint}|dequantised".encode()).hexdigest()
    return replace(checkpoint, tensors=whole, config=_without_entry(checkpoint.config), fingerprint=fingerprint)


def _without_entry(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without its quantization_config, at any depth."""
    return {
        key: _without_entry(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key != "quantization_config"
    }


def _scale_of(checkpoint: Checkpoint, name: str) -> TensorInfo | None:
    """Return the scale of a weight, under the name that the config's method has for it."""
    method = _method(checkpoint.config)
    ends = [end for end, methods in _SCALES.items() if method in methods]
    return next((checkpoint.tensors[name + end] for end in ends if name + end in checkpoint.tensors), None)


def shows_codes(checkpoint: Checkpoint) -> bool:
    """Say whether any tensor is a code, or may be one."""
    eight = any(info.dtype.startswith("float8") for info in checkpoint.tensors.values())
    return eight or next(_signs(checkpoint, True), None) is not None


def _target_dtype(config: Mapping[str, Any]) -> str:
    """Return the dtype a model is loaded in, by its config; bfloat16 where it says nothing."""
    sections = config_sections(config).values()
    stated = [section.get(key) for section in sections for key in ("dtype", "torch_dtype")]
    return next((value for value in stated if value in _FLOATS), "bfloat16")


def _block_float8(checkpoint: Checkpoint, info: TensorInfo, scale: TensorInfo, dtype: str) -> BlockFloat8:
    """Return the numbers of one weight, its blocks told by its scales: one, one per row, or the config's grid."""
    entry = checkpoint.config.get("quantization_config")
    block = entry.get("weight_block_size") if isinstance(entry, dict) else None
    block = [128, 128] if block is None else block
    if not isinstance(block, list) or [type(size) for size in block] != [int, int] or min(block) < 1:
        raise CheckpointError(
            f"{checkpoint.path / 'config.json'} says weight_block_size = {block!r}, not two sizes: the config is "
            "damaged, fetch it again"
        )
    stack, (rows, cols) = info.shape[:-2], info.shape[-2:] if len(info.shape) in (2, 3) else (0, 0)
    grid = -(-rows // block[0]), -(-cols // block[1])
    fits = {(*stack, *grid): tuple(block), (*stack, rows, 1): (1, cols), (*stack, rows): (1, cols)}
    fits |= dict.fromkeys([(), (1,), (1, 1), stack, (*stack, 1), (*stack, 1, 1)], (rows, cols))
    if not rows or scale.shape not in fits or scale.dtype not in (*_FLOATS, "float8_e8m0fnu"):
        raise CheckpointError(
            f"{info.file}, tensor {info.name!r} is {info.shape} in blocks of {block[0]} x {block[1]}, which need "
            f"floating-point scales of shape {(*stack, *grid)}, but {scale.name!r} is {scale.dtype} of shape "
            f"{scale.shape}: give the model it was quantised from, or save it dequantised as bfloat16"
        )
    if stack and scale.numel == 1:
        raise CheckpointError(
            f"{info.file}, tensor {info.name!r} is a stack of float8 matrices with one scale for all, which is not "
            "read yet: save it dequantised as bfloat16"
        )
    return derive(BlockFloat8, info, (info, scale), shape=info.shape, dtype=dtype, block=fits[scale.shape])


def _microscaled(blocks: TensorInfo, scales: TensorInfo, name: str, dtype: str) -> MicroscaledFloat4:
    """Return the numbers of one stack of experts."""
    if len(blocks.shape) != 4 or blocks.shape[-1] != _MX_BLOCK_BYTES or blocks.shape[:-1] != scales.shape:
        raise CheckpointError(
            f"{blocks.file}, tensor {blocks.name!r} is {blocks.shape} and its scales are {scales.shape}: MXFP4 "
            f"experts are (experts, rows, groups, {_MX_BLOCK_BYTES}) with scales (experts, rows, groups); save the "
            "model again"
        )
    experts, rows, groups, width = blocks.shape
    shape = (experts, groups * width * 2, rows)
    return derive(MicroscaledFloat4, blocks, (blocks, scales), shape=shape, name=name, dtype=dtype)


def refuse_quantised(checkpoint: Checkpoint, role: str) -> None:
    """Raise where a checkpoint's weights are quantised, by its config or by its tensors."""
    sign = next(_signs(checkpoint), None)
    if sign is not None:
        raise CheckpointError(
            f"the {role} checkpoint {checkpoint.path} is quantised ({sign}), and quantised weights are not read yet: "
            "give the model it was quantised from, or save it dequantised as bfloat16"
        )


def _method(config: Mapping[str, Any]) -> str:
    """Return the quant_method that a config states anywhere, or an empty string."""
    entries = [section.get("quantization_config") for section in config_sections(config).values()]
    return next((str(entry.get("quant_method", "")) for entry in entries if isinstance(entry, dict)), "")


def _signs(checkpoint: Checkpoint, tensors_only: bool = False) -> Iterator[str]:
    """Yield what shows that the weights are codes; what the config says counts only where some tensor may be one."""
    for where, section in config_sections(checkpoint.config).items():
        entry = section.get("quantization_config")
        if entry and not tensors_only and shows_codes(checkpoint):
            method = entry.get("quant_method", "unnamed") if isinstance(entry, dict) else entry
            yield f"quantization_config in {where} says {method!r}"
    dtypes = {info.dtype for info in checkpoint.tensors.values()}
    if dtypes.isdisjoint(PACKED) and not _MARKED.search("\n".join(checkpoint.tensors)):  # all at once: hardly any has
        return
    scaled = {name.rpartition(".")[0] for name in checkpoint.tensors if _SCALE_WORD.search(name.rpartition(".")[2])}
    for name, info in checkpoint.tensors.items():
        parts = name.split(".")
        mark = next((mark for mark in _MARKS if parts[-1] == mark or (mark == "quant_state" and mark in parts)), None)
        if mark:
            yield f"tensor {name!r} is a mark of {_MARKS[mark]}"
        if name.endswith("_blocks") and f"{name.removesuffix('_blocks')}_scales" in checkpoint.tensors:
            yield f"tensor {name!r} with its _scales is MXFP4"
        packed = info.dtype in PACKED and info.numel >= _MOST_TABLE and len(info.shape) > 1
        if packed and (parts[-1] == "weight" or ".".join(parts[:-1]) in scaled):
            yield f"tensor {name!r} is a weight stored as {info.dtype}"
