"""What an adapter's config says: which adapters are read, with which rank and scaling; all others refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, parse_json_object, read_document
from dgviz.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"

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


@dataclass(frozen=True)
class AdapterConfig:
    """What the config in a directory says of plain LoRA; `raw` are its bytes."""

    directory: Path
    values: Mapping[str, Any]
    raw: bytes

    @property
    def file(self) -> Path:
        """The config itself."""
        return self.directory / CONFIG

    @property
    def weights(self) -> Path:
        """The factors beside it."""
        pickled = self.directory / PICKLED
        return pickled if pickled.is_file() and not (self.directory / WEIGHTS).is_file() else self.directory / WEIGHTS

    @property
    def transposed(self) -> bool:
        """Whether it says that base's weights are (in, out)."""
        return bool(self.values.get("fan_in_fan_out"))

    @property
    def target_parameters(self) -> list[str]:
        """The stacks of experts that it says are changed."""
        targets = self.values.get("target_parameters") or []
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise CheckpointError(f"{self.file} says target_parameters = {targets!r}, not a list of names")
        return targets

    def rank_and_scaling(self, module: str) -> tuple[int, float]:
        """Return the rank that it says of a module, and the factor of its update."""
        rank, alpha = self._setting("rank_pattern", "r", module), self._setting("alpha_pattern", "lora_alpha", module)
        if not isinstance(rank, int) or rank < 1:
            raise CheckpointError(f"{self.file} says rank {rank!r} for {module!r}, which is no such number")
        return rank, alpha / rank**0.5 if self.values.get("use_rslora") else alpha / rank

    def _setting(self, patterns: str, key: str, module: str) -> Any:
        """Return a number for one module: the first pattern that matches the end of its name, or the common one."""
        import regex

        value = self.values.get(key, 8)  # PEFT's default for both
        try:
            for pattern, own in (self.values.get(patterns) or {}).items():
                # Python's own `re` has no limit: a pattern can take it longer than anybody waits.
                if regex.match(rf"(.*\.)?({pattern})$", module, timeout=_PATTERN_SECONDS):
                    value = own
                    break
        except (AttributeError, RecursionError, TimeoutError, regex.error) as error:
            raise CheckpointError(f"{self.file}: {patterns} is not read ({error}): {MERGE}") from error
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
            raise CheckpointError(f"{self.file} says {key} = {value!r} for {module!r}, which is no such number")
        return value


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Return an adapter's config; what is not plain LoRA is refused by its name."""
    file = directory / CONFIG
    try:
        raw = read_document(file, MAX_CONFIG_BYTES, "config")
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    values = parse_json_object(raw, str(file))
    check_adapter_config(values, file)
    return AdapterConfig(directory, values, raw)


def check_adapter_config(values: Mapping[str, Any], file: Path) -> None:
    """Refuse what is not plain LoRA, by its name; `file` says so."""
    kind, start = values.get("peft_type"), values.get("init_lora_weights")
    if kind != "LORA":
        raise CheckpointError(f"{file} says peft_type {kind!r}, and only LORA adapters are read: {MERGE}")
    for key, what in _REFUSED.items():
        if values.get(key):
            raise CheckpointError(f"{file} says {key} = {values[key]!r} ({what}), which is not read: {MERGE}")
    for key, value in values.items():
        if value and key not in _KNOWN:
            raise CheckpointError(f"{file} says {key} = {value!r}, which is not known here: {MERGE}")
    if start not in _PLAIN_START:
        raise CheckpointError(
            f"{file} says init_lora_weights = {start!r}, which changes the base's own weights too: {MERGE}"
        )
