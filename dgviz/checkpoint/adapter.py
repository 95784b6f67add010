"""A PEFT LoRA adapter as the tuned side: base plus scaling * B @ A, without a merged copy on disk.

The tuned checkpoint that results has base's names, dtypes, shards and config; a weight the adapter does not touch is
base's own. Format: https://huggingface.co/docs/peft/developer_guides/checkpoint. What an adapter holds that is not
read is refused by name: left out silently, its part of the update would be lost.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgviz.checkpoint.derived import PlacedTensor, derive
from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, parse_json_object, read_document
from dgviz.checkpoint.header import read_header
from dgviz.checkpoint.lora import LoraTensor, lora_tensor
from dgviz.checkpoint.names import unwrapped_names
from dgviz.checkpoint.renaming import rename_like_transformers
from dgviz.checkpoint.types import Checkpoint, TensorInfo
from dgviz.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_MERGE = "merge it into its base (peft's merge_and_unload, then save_pretrained) and give the merged model"
_FACTORS = re.compile(r"^(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<factor>[AB])(?:\.default)?(?:\.weight)?$")
# Settings under which base + scaling * B @ A is not the tuned model.
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "trainable_token_indices": "trainable tokens",
    "target_parameters": "target_parameters",
    "lora_bias": "lora_bias",
    "arrow_config": "Arrow routing",
}
_PLAIN_START = (None, True, False, "gaussian", "eva")
"""Values of init_lora_weights that leave base's weights as they are; PiSSA, OLoRA, LoftQ and CorDA change them."""


def is_adapter(directory: Path) -> bool:
    """Say whether a directory holds a PEFT adapter and no weights of a model beside it."""
    return (directory / CONFIG).is_file() and not any(
        file.name != WEIGHTS and file.is_file() for file in directory.glob("*.safetensors")
    )


def open_adapter(directory: Path, base: Checkpoint) -> Checkpoint:
    """Return the tuned checkpoint that an adapter makes of a base.

    Parameters
    ----------
    directory : Path
        Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
    base : Checkpoint
        The model it was trained on, dense or dequantised.

    Returns
    -------
    Checkpoint
        Every tensor of base, those the adapter changes as `LoraTensor` (or, for modules saved whole, `PlacedTensor`).

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the adapter is of another type, or a tensor of it fits none of base's.
    """
    directory = directory.resolve()
    config, raw = _read_config(directory)
    _refuse_others(directory, config)
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{directory} has {CONFIG} but no {WEIGHTS}: fetch it, or {_MERGE}")
    header = read_header(weights)
    factors, whole = _sort_tensors(weights, header.tensors)
    if not factors and not whole:
        raise CheckpointError(f"{weights} holds no tensors: save the adapter again")
    targets = _base_names(base, [*factors, *whole])
    changed: dict[str, TensorInfo] = {}
    for name, pair in factors.items():
        info = _target(base, targets, name, weights)
        changed[info.name] = _lora(directory, config, info, name, pair)
    _check_orientation(directory, config, [item for item in changed.values() if isinstance(item, LoraTensor)])
    for name, stored in whole.items():
        info = _target(base, targets, name, weights)
        if info.shape != stored.shape:
            raise CheckpointError(
                f"{weights}, tensor {stored.name!r} is {stored.shape}, but base's {info.name!r} is {info.shape}: the "
                f"adapter belongs to another base, or changes the vocabulary; {_MERGE}"
            )
        changed[info.name] = derive(PlacedTensor, info, (stored,), shape=info.shape, dtype=stored.dtype)
    tensors = {name: changed.get(name, info) for name, info in base.tensors.items()}
    text = "|".join([base.fingerprint, hashlib.sha256(raw).hexdigest(), header.digest])
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(directory, tensors, base.config, base.shards, fingerprint, is_adapter=True)


def _read_config(directory: Path) -> tuple[dict[str, Any], bytes]:
    file = directory / CONFIG
    try:
        raw = read_document(file, MAX_CONFIG_BYTES, "config")
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    return parse_json_object(raw, str(file)), raw


def _refuse_others(directory: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA, by its name."""
    file = directory / CONFIG
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{file} says peft_type {kind!r}, and only LORA adapters are read: {_MERGE}")
    for key, what in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{file} says {key} = {config[key]!r} ({what}), which is not read: {_MERGE}")
    start = config.get("init_lora_weights")
    if start not in _PLAIN_START:
        raise CheckpointError(
            f"{file} says init_lora_weights = {start!r}, which changes the base's own weights too: {_MERGE}"
        )


def _sort_tensors(
    weights: Path, tensors: Mapping[str, TensorInfo]
) -> tuple[dict[str, dict[str, TensorInfo]], dict[str, TensorInfo]]:
    """Return the factors A and B by the weight they change, and the tensors saved whole by their name in base."""
    factors: dict[str, dict[str, TensorInfo]] = {}
    whole: dict[str, TensorInfo] = {}
    for name, inner in unwrapped_names(tensors).items():
        info = tensors[name]
        inner = inner.replace("modules_to_save.default.", "").replace("modules_to_save.", "")
        inner = inner.replace("base_layer.", "").replace("original_module.", "")
        found = _FACTORS.match(inner)
        if found:
            key = "embedding_" * bool(found["kind"]) + found["factor"]
            factors.setdefault(f"{found['module']}.weight", {})[key] = info
        elif ".lora_" in inner or inner in whole:
            raise CheckpointError(f"{weights} holds {name!r}, which is not read: {_MERGE}")
        else:
            whole[inner] = info
    for name, pair in factors.items():
        if set(pair) not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            raise CheckpointError(
                f"{weights} holds only {', '.join(sorted(pair))} of the two LoRA factors of {name!r}: "
                "save the adapter again"
            )
    return factors, whole


def _base_names(base: Checkpoint, names: list[str]) -> dict[str, str]:
    """Return base's name for each name in an adapter: the same apart from wrappers, or the same to transformers."""
    stored = {inner: name for name, inner in unwrapped_names(base.tensors).items()}
    found = {name: stored[name] for name in names if name in stored}
    if len(found) < len(names):
        # One question for both, for names that transformers would rename only together.
        known = rename_like_transformers(base.config, stored).names
        others = rename_like_transformers(base.config, names).names
        by_target = {known.get(inner, inner): name for inner, name in stored.items()}
        for name in names:
            target = by_target.get(others.get(name, name))
            if name not in found and target is not None:
                found[name] = target
    if len(set(found.values())) < len(found):
        twice = sorted(name for name in found if list(found.values()).count(found[name]) > 1)
        both = " and ".join(map(repr, twice[:2]))
        raise CheckpointError(f"the adapter's {both} are one tensor of {base.path}: {_MERGE}")
    return found


def _target(base: Checkpoint, targets: Mapping[str, str], name: str, weights: Path) -> TensorInfo:
    if name not in targets:
        raise CheckpointError(
            f"{weights} changes {name!r}, which {base.path} does not hold: is this the base it was trained on? "
            f"If so (a tied head, or experts stored another way), {_MERGE}"
        )
    return base.tensors[targets[name]]


def _lora(
    directory: Path, config: Mapping[str, Any], base: TensorInfo, name: str, pair: Mapping[str, TensorInfo]
) -> LoraTensor:
    """Return base plus one module's update, with the rank and scaling that the config says."""
    embedding = "embedding_A" in pair
    first, second = (pair["embedding_A"], pair["embedding_B"]) if embedding else (pair["A"], pair["B"])
    module = name.removesuffix(".weight")
    rank = _setting(directory, config, "rank_pattern", "r", module)
    alpha = _setting(directory, config, "alpha_pattern", "lora_alpha", module)
    if not isinstance(rank, int) or first.shape[:1] != (rank,) or rank < 1:
        raise CheckpointError(
            f"{directory / WEIGHTS}, tensor {first.name!r} is {first.shape}, but {CONFIG} says rank {rank!r} for "
            f"{module!r}: the two files belong to different adapters"
        )
    scaling = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return lora_tensor(base, first, second, scaling, embedding or bool(config.get("fan_in_fan_out")), embedding)


def _setting(directory: Path, config: Mapping[str, Any], patterns: str, key: str, module: str) -> Any:
    """Return a number for one module: the first pattern that matches the end of its name, or the common one."""
    special = config.get(patterns) or {}
    value = config.get(key, 8)  # PEFT's default for both
    try:
        for pattern, own in special.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                value = own
                break
    except (AttributeError, re.error) as error:
        raise CheckpointError(f"{directory / CONFIG}: {patterns} is not read ({error}): {_MERGE}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise CheckpointError(f"{directory / CONFIG} says {key} = {value!r} for {module!r}, which is no such number")
    return value


def _check_orientation(directory: Path, config: Mapping[str, Any], changed: list[LoraTensor]) -> None:
    """Refuse a fan_in_fan_out that the weights' shapes contradict where square weights depend on it.

    GPT-2 stores its layers transposed (Conv1D); shapes tell for most weights, and only for square ones the config.
    """
    if not any(item.square for item in changed):
        return
    said = bool(config.get("fan_in_fan_out"))
    seen = {item.transposed for item in changed if not item.square and not item.embedding}
    if seen and said not in seen:
        raise CheckpointError(
            f"{directory / CONFIG} says fan_in_fan_out = {said}, but the shapes say otherwise, so it is open how the "
            f"square weights are stored: {_MERGE}"
        )
