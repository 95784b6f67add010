"""What to tell somebody whose path holds no weights dgviz can read: what is there instead, and how to convert it."""

from collections.abc import Sequence
from pathlib import Path

from dgviz.checkpoint.hub import split_hub_id
from dgviz.command import Command

PIPELINE = "model_index.json"
"""What a diffusers pipeline has beside the directories of its components."""


def explain_missing_path(text: str, error: Exception) -> str:
    """Say why a path cannot be opened; a path that reads like a Hugging Face id is told how to fetch it."""
    hub = split_hub_id(text)
    if hub is not None:
        return (
            f"there is no directory {text!r}, and no model of this id in the Hugging Face cache: "
            f"fetch it by `{Command('fetch', model=text)}` or on the Open page, or give a directory"
        )
    cause = (getattr(error, "strerror", None) or str(error)).lower()
    return f"{text!r} cannot be opened ({cause}): give an existing directory of *.safetensors weights"


def explain_no_weights(directory: Path, wanted: Sequence[str], candidates: Sequence[str]) -> str:
    """Say what was looked for in a directory, what is there instead, and what to do."""
    looked = f"no weights in {directory}: looked for {' and '.join(wanted)}"
    broken = next((entry.name for entry in sorted(directory.iterdir()) if _is_broken_link(entry)), None)
    if broken:
        return f"{looked}, but {broken} is a link to a file that is gone: fetch it again"
    if candidates:
        listed = ", ".join(candidates[:3]) + (" ..." if len(candidates) > 3 else "")
        return (
            f"{looked}, and cannot choose among or complete what is there ({listed}): "
            "fetch the missing index or shards, or keep one set of weights"
        )
    names = sorted(entry.name for entry in directory.iterdir())
    if "adapter_config.json" in names:
        return (
            f"{looked}, but it holds a PEFT adapter (adapter_config.json), which is no model by itself: "
            "give it as tuned, and the model it was trained on as base"
        )
    if "snapshots" in names:
        return f"{looked}, but it is a Hugging Face cache entry: give one of the directories in its snapshots"
    for suffixes, what, remedy in (
        ((".gguf",), "GGUF files", "use the original safetensors model it was made from"),
        (
            (".bin", ".pt", ".pth", ".ckpt"),
            "PyTorch pickles",
            "set DGVIZ_ALLOW_BIN=1 for a pytorch_model.bin you trust, or save_pretrained it as safetensors",
        ),
        ((".h5", ".msgpack", ".onnx"), "weights of another framework", "use the safetensors model"),
    ):
        found = next((name for name in names if name.endswith(suffixes)), None)
        if found:
            return f"{looked}, but it holds {what} ({found}), which are not read yet: {remedy}"
    if not names:
        return f"{looked}, but it is empty"
    return f"{looked}: give the directory that holds them"


def explain_pipeline(directory: Path) -> str:
    """Say which components of a diffusers pipeline can be opened: a pipeline is several models, each a checkpoint."""
    components = sorted({file.parent for file in directory.glob("*/*.safetensors")})
    if not components:
        return (
            f"{directory} is a diffusers pipeline ({PIPELINE}), and none of its directories holds *.safetensors "
            "weights: save_pretrained it with safe_serialization, or fetch the whole pipeline"
        )
    return (
        f"{directory} is a diffusers pipeline ({PIPELINE}) of several models, each a checkpoint of its own: "
        f"give one of {', '.join(map(str, components))}"
    )


def _is_broken_link(entry: Path) -> bool:
    return entry.suffix in (".safetensors", ".json") and entry.is_symlink() and not entry.exists()
