"""Recognise quantised checkpoints, whose stored numbers are codes: an SVD of codes would look like an answer."""

from collections.abc import Iterator, Mapping
from typing import Any

from dgviz.checkpoint.documents import config_sections
from dgviz.checkpoint.layout import matrix_layout
from dgviz.checkpoint.types import Checkpoint
from dgviz.errors import CheckpointError

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


def refuse_quantised(checkpoint: Checkpoint, role: str) -> None:
    """Raise where a checkpoint's weights are quantised, by its config or by its tensors."""
    sign = next(_signs(checkpoint), None)
    if sign is not None:
        raise CheckpointError(
            f"the {role} checkpoint {checkpoint.path} is quantised ({sign}), and quantised weights are not read yet: "
            "give the model it was quantised from, or save it dequantised as bfloat16"
        )


def quantisation_method(config: Mapping[str, Any]) -> str:
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
        if info.dtype in _PACKED and parts[-1] == "weight" and info.numel >= 1024 and matrix_layout(name, info.shape):
            yield f"tensor {name!r} is a weight stored as {info.dtype}"
