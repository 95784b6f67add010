"""What an adapter's config says: which adapters are read, with which rank and scaling; all others refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, parse_json_object, read_document
from dgviz.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

MERGE = "merge it into its base (peft's merge_and_unload, then save_pretrained) and give the merged model"

# Settings under which base + scaling * B @ A is not the tuned model.
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "trainable_token_indices": "trainable tokens",
    "lora_bias": "lora_bias",
    "arrow_config": "Arrow routing",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "use_bdlora": "block-diagonal LoRA",
}
# Settings that are read here, or do not change what the adapter adds to its base.
# fmt: off
_KNOWN = {
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
    "inference_mode", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules",
    "exclude_modules", "target_parameters", "modules_to_save", "fan_in_fan_out", "layers_to_transform",
    "layers_pattern", "lora_dropout", "bias", "init_lora_weights", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "megatron_config", "megatron_core", "qalora_group_size",
    "runtime_config", "ensure_weight_tying",
}
# fmt: on
_PLAIN_START = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave base's weights as they are; PiSSA, OLoRA, LoftQ and CorDA change them."""

_PATTERN_SECONDS = 1.0  # for one pattern and one name; real ones take microseconds


def read_adapter_config(directory: Path) -> tuple[dict[str, Any], bytes]:
    """Return an adapter's config and its bytes."""
    file = directory / CONFIG
    try:
        raw = read_document(file, MAX_CONFIG_BYTES, "config")
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    config = parse_json_object(raw, str(file))
    _refuse_others(directory, config)
    return config, raw


def _refuse_others(directory: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA, by its name."""
    file = directory / CONFIG
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{file} says peft_type {kind!r}, and only LORA adapters are read: {MERGE}")
    for key, what in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{file} says {key} = {config[key]!r} ({what}), which is not read: {MERGE}")
    unknown = next((key for key, value in config.items() if value and key not in _KNOWN), None)
    if unknown is not None:
        raise CheckpointError(f"{file} says {unknown} = {config[unknown]!r}, which is not known here: {MERGE}")
    start = config.get("init_lora_weights")
    if start not in _PLAIN_START:
        raise CheckpointError(
            f"{file} says init_lora_weights = {start!r}, which changes the base's own weights too: {MERGE}"
        )


def rank_and_scaling(directory: Path, config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Return the rank that a config says of a module, and the factor of its update."""
    rank = _setting(directory, config, "rank_pattern", "r", module)
    alpha = _setting(directory, config, "alpha_pattern", "lora_alpha", module)
    if not isinstance(rank, int) or rank < 1:
        raise CheckpointError(f"{directory / CONFIG} says rank {rank!r} for {module!r}, which is no such number")
    return rank, alpha / rank**0.5 if config.get("use_rslora") else alpha / rank


def _setting(directory: Path, config: Mapping[str, Any], patterns: str, key: str, module: str) -> Any:
    """Return a number for one module: the first pattern that matches the end of its name, or the common one."""
    import regex

    special = config.get(patterns) or {}
    value = config.get(key, 8)  # PEFT's default for both
    try:
        for pattern, own in special.items():
            # Python's own `re` has no limit: a pattern can take it longer than anybody waits.
            if regex.match(rf"(.*\.)?({pattern})$", module, timeout=_PATTERN_SECONDS):
                value = own
                break
    except (AttributeError, RecursionError, TimeoutError, regex.error) as error:
        raise CheckpointError(f"{directory / CONFIG}: {patterns} is not read ({error}): {MERGE}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise CheckpointError(f"{directory / CONFIG} says {key} = {value!r} for {module!r}, which is no such number")
    return value
