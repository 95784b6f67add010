"""A weight file by itself, in a folder of others or of anything."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgviz.checkpoint.types import Checkpoint

_WELL_KNOWN = re.compile(r"(model|diffusion_pytorch_model|adapter_model|pytorch_model)\b|.*-\d+-of-\d+")


def own_stem(checkpoint: "Checkpoint") -> str | None:
    """Return what the files of one weight file among others are named after; None where the folder is its own."""
    if checkpoint.is_adapter or len(checkpoint.shards) != 1 or _WELL_KNOWN.match(checkpoint.shards[0]):
        return None
    name = checkpoint.shards[0]
    others = any(path.name != name for path in checkpoint.path.glob("*.safetensors"))
    return Path(name).stem if others or not _is_model(checkpoint.path) else None


def stands_alone(checkpoint: "Checkpoint") -> bool:
    """Return whether a checkpoint is one file in a folder of anything, which is no model's."""
    return own_stem(checkpoint) is not None and not _is_model(checkpoint.path)


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json", "model_index.json"))
