"""Quantised checkpoints: FP8-block and MXFP4 bases read as what they stand for, and all others refused.

Stored numbers are codes, and an SVD of codes would look like an answer. Of the two formats that are read, a value is
its code times its scale, computed in float32 and rounded once to the dtype in the config, which is what transformers'
``dequantize=True`` gives and a fine-tuning run starts from: a dense tuned model can be subtracted from it.
Sources: ``transformers.integrations.finegrained_fp8`` and ``transformers.integrations.mxfp4``; OCP Microscaling
Formats (MX) Specification 1.0 (https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dgviz.checkpoint.derived import derive, matrix_rows
from dgviz.checkpoint.documents import config_sections
from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.read import read_tensor
from dgviz.checkpoint.types import Checkpoint, DerivedTensor, TensorInfo
from dgviz.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_SCALE = "_scale_inv"
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

_PACKED = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
_FLOATS = ("float64", "float32", "bfloat16", "float16")
# E2M1, two codes to a byte, low half first: one sign bit, two of exponent, one of mantissa.
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_MX_BLOCK_BYTES = 16


@dataclass(frozen=True)
class BlockFloat8(DerivedTensor):
    """An 8-bit floating-point matrix times one scale per block; `parts` are the codes and the scales.

    `block` is (rows, columns); the last blocks may be cut off by the matrix's edge.
    """

    block: tuple[int, int]

    @property
    def recipe(self) -> str:
        """The block size."""
        return f"float8 in blocks of {self.block}"

    def compute(self) -> "torch.Tensor":
        """Multiply block row by block row, so that no second float32 matrix exists."""
        import torch

        codes, scales = (read_tensor(part) for part in self.parts)
        rows, cols = self.shape
        out = torch.empty(self.shape, dtype=getattr(torch, self.dtype))
        for band in range(scales.shape[0]):
            part = slice(band * self.block[0], min((band + 1) * self.block[0], rows))
            factor = scales[band].float().repeat_interleave(self.block[1])[:cols]
            out[part] = (codes[part].float() * factor).to(out.dtype)
        return out


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
        # Not TensorInfo.slice: that drops leading dimensions of one, which have a meaning here.
        rows = (matrix_rows(part, index, index + 1) for part in self.parts)
        parts = tuple(replace(part, shape=part.shape[1:]) for part in rows)
        return derive(MicroscaledFloat4, self, parts, shape=self.shape[1:])


def dequantised(checkpoint: Checkpoint, role: str) -> Checkpoint:
    """Return a checkpoint whose FP8-block and MXFP4 weights are read as numbers; others unchanged."""
    method = _method(checkpoint.config)
    tensors: dict[str, TensorInfo] = {}
    used: set[str] = set()
    if method in ("", "fp8", "mxfp4"):
        dtype = _target_dtype(checkpoint.config)
        for name, info in checkpoint.tensors.items():
            scale = checkpoint.tensors.get(f"{name}{_SCALE}")
            if info.dtype.startswith("float8") and scale is not None:
                tensors[name] = _block_float8(checkpoint, info, scale, dtype)
                used.add(scale.name)
            stem = name.removesuffix("_blocks")
            scales = checkpoint.tensors.get(f"{stem}_scales")
            if name.endswith("_blocks") and scales is not None and info.dtype == scales.dtype == "uint8":
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
    whole = {name: info for name, info in checkpoint.tensors.items() if name not in used} | tensors
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    fingerprint = hashlib.sha256(f"{checkpoint.fingerprint}|dequantised".encode()).hexdigest()
    dense = Checkpoint(checkpoint.path, whole, config, checkpoint.shards, fingerprint)
    refuse_quantised(dense, role)
    return dense


def _target_dtype(config: Mapping[str, Any]) -> str:
    """Return the dtype a model is loaded in, by its config; bfloat16 where it says nothing."""
    sections = config_sections(config).values()
    stated = [section.get(key) for section in sections for key in ("dtype", "torch_dtype")]
    return next((value for value in stated if value in _FLOATS), "bfloat16")


def _block_float8(checkpoint: Checkpoint, info: TensorInfo, scale: TensorInfo, dtype: str) -> BlockFloat8:
    """Return the numbers of one weight, its blocks from the config or, where it is silent, 128 by 128."""
    entry = checkpoint.config.get("quantization_config")
    block = entry.get("weight_block_size") if isinstance(entry, dict) else None
    block = [128, 128] if block is None else block
    if not isinstance(block, list) or [type(size) for size in block] != [int, int] or min(block) < 1:
        raise CheckpointError(
            f"{checkpoint.path / 'config.json'} says weight_block_size = {block!r}, not two sizes: the config is "
            "damaged, fetch it again"
        )
    grid = tuple(-(-length // size) for length, size in zip(info.shape, block, strict=False))
    if len(info.shape) != 2 or scale.shape != grid or scale.dtype not in _FLOATS:
        raise CheckpointError(
            f"{info.file}, tensor {info.name!r} is {info.shape} in blocks of {block[0]} x {block[1]}, which need "
            f"floating-point scales of shape {grid}, but {scale.name!r} is {scale.dtype} of shape {scale.shape}: "
            "give the model it was quantised from, or save it dequantised as bfloat16"
        )
    return derive(BlockFloat8, info, (info, scale), shape=info.shape, dtype=dtype, block=(block[0], block[1]))


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


def _signs(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what shows that the weights are codes."""
    for where, section in config_sections(checkpoint.config).items():
        entry = section.get("quantization_config")
        if entry:
            method = entry.get("quant_method", "unnamed") if isinstance(entry, dict) else entry
            yield f"quantization_config in {where} says {method!r}"
    for name, info in checkpoint.tensors.items():
        parts = name.split(".")
        mark = next((mark for mark in _MARKS if parts[-1] == mark or (mark == "quant_state" and mark in parts)), None)
        if mark:
            yield f"tensor {name!r} is a mark of {_MARKS[mark]}"
        if name.endswith("_blocks") and f"{name.removesuffix('_blocks')}_scales" in checkpoint.tensors:
            yield f"tensor {name!r} with its _scales is MXFP4"
        if info.dtype in _PACKED and parts[-1] == "weight" and info.numel >= 1024 and matrix_layout(info.shape):
            yield f"tensor {name!r} is a weight stored as {info.dtype}"
