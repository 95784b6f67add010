"""The one place that asks transformers under which name a model loads a stored tensor.

transformers renames what checkpoints hold while it loads them: prefixes of multimodal models moved in version 5,
experts are fused into stacks, old layer norms have other names. Its table of these renamings is semi-private
(``transformers.conversion_mapping``), so it is used here only, on the pinned version, and whatever goes wrong means:
no other names are known.
"""

import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dgviz.packages import is_installed

_COUNTS = re.compile(
    r"(?:^|_)(?:layers?|depths?|experts?|blocks?|stages?|levels?|codebooks?)(?:_|$)(?!(?:id|size|dim)s?$)"
)
"""Config entries that say how many modules a model has."""

_LAYERS = re.compile(r"(?:^|_)(?:n|num)_(?:\w+_)?layers?$|^depths?$")
"""Those that are never a width, whatever the tensors show."""
_MANY = 4096


@dataclass(frozen=True)
class Member:
    """One stored tensor that transformers makes part of a stack of experts.

    Attributes
    ----------
    stack : str
        The stack's name in the model.
    part, parts : int
        Which of the matrices of one expert it is, and how many there are (gate and up: 2).
    expert : int
        Which expert.
    """

    stack: str
    part: int
    parts: int
    expert: int


@dataclass(frozen=True)
class Renaming:
    """What transformers knows of a list of stored names.

    Attributes
    ----------
    names : dict of str to str
        For stored names, names that are equal exactly where two checkpoints of the model mean the same tensor.
    members : dict of str to Member
        The stored names that become part of a stack.
    problem : str
        Why nothing is known, or empty.
    tied : dict of str to str
        For names of the model that are tied, one name for all that are one parameter.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)
    problem: str = ""
    tied: Mapping[str, str] = field(default_factory=dict)

    def stored_as(self, inner: Mapping[str, str]) -> "Renaming":
        """Return the same of the names under which a checkpoint stores what was asked about."""
        names = {name: self.names[short] for name, short in inner.items() if short in self.names}
        members = {name: self.members[short] for name, short in inner.items() if short in self.members}
        return Renaming(names, members, self.problem, self.tied)

    def target(self, name: str) -> str:
        """Return what decides whether a name means the same tensor as another."""
        return self.names.get(name, name)

    @property
    def stacks(self) -> dict[str, dict[str, Member]]:
        """The members of every stack."""
        found: dict[str, dict[str, Member]] = {}
        for name, member in self.members.items():
            found.setdefault(member.stack, {})[name] = member
        return found


def rename_like_transformers(
    config: Mapping[str, Any], names: Iterable[str], widths: Container[int] = ()
) -> Renaming:
    """Return the names under which the model of a config holds stored tensors.

    Builds the model without weights (on torch's meta device) from transformers' own classes; code that a checkpoint
    brings along is never run. Imports transformers and torch, which takes seconds, so it is called only where exact
    names leave tensors unmatched on both sides. `widths` are the lengths of the tensors' axes: a number in the config
    that is one of them counts no modules.
    """
    if not isinstance(config.get("model_type"), str):
        return Renaming()  # nothing to ask about
    names = sorted(names)  # the order in which transformers sees them, which some renamings depend on
    problem = _unfit(config, len(names), widths)
    if not is_installed("transformers"):
        problem = "transformers is not installed, which knows the names of this model"
    if problem:
        return Renaming(problem=problem)
    try:
        return _rename(json.dumps(config, sort_keys=True), tuple(names))
    except Exception as error:  # a config that its own class refuses raises anything
        cause = " ".join(str(error).split())[:160]
        return Renaming(problem=f"transformers cannot build this model ({type(error).__name__}: {cause})")


def _unfit(config: Mapping[str, Any], count: int, widths: Container[int]) -> str:
    """Return why a config is not given to transformers, or an empty string.

    A model has a tensor or more per layer, so a config with more layers than there are tensors describes something
    else, and building it could take all memory.
    """
    entries = [("", config)]
    while entries:
        key, value = entries.pop()
        if isinstance(value, Mapping):
            entries += [(str(inner), item) for inner, item in value.items()]
        elif isinstance(value, list):
            entries += [(key, item) for item in value]
        elif isinstance(value, int) and value > max(_MANY, count) and _COUNTS.search(key):
            if value in widths and not _LAYERS.search(key):
                continue
            return f"config.json says {key} = {value}, more than the {count} tensors allow"
    return ""


@lru_cache(maxsize=8)
def _rename(config_json: str, names: tuple[str, ...]) -> Renaming:
    import logging
    import warnings

    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            logger.setLevel(logging.ERROR)  # what it thinks of the config is not what was asked
            return _ask(json.loads(config_json), names)
        finally:
            logger.setLevel(level)


def _ask(config: dict[str, Any], names: tuple[str, ...]) -> Renaming:
    """Build the model and apply transformers' renamings; raises whatever transformers raises."""
    import torch
    import transformers
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    if "auto_map" in config and config["model_type"] not in transformers.CONFIG_MAPPING:
        raise ValueError("the model brings its own code (auto_map), which is not run")
    settings = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(
        {key: value for key, value in config.items() if key not in ("quantization_config", "torch_dtype", "dtype")}
    )
    architecture = (config.get("architectures") or [""])[0]
    kind = getattr(transformers, architecture, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        kind = transformers.MODEL_MAPPING[type(settings)]
    with torch.device("meta"):
        model = kind(settings)
    conversions = get_model_conversion_mapping(model)
    renamings = [item for item in conversions if isinstance(item, WeightRenaming)]
    converters = [item for item in conversions if isinstance(item, WeightConverter)]
    loaded = model.state_dict()
    result, members = {}, {}
    for name in names:
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, loaded)
        if pattern is None:
            result[name] = target
            continue
        # Several stored tensors become one: told apart by the pattern and by the number that its star stands for.
        numbered = pattern.replace("*.", r"(?P<index>\d+)\.", 1)
        found = re.search(numbered, rename_source_key(name, renamings, [])[0])
        index = found.groupdict().get("index", "") if found else name
        result[name] = f"{target}|{pattern}|{index}"
        converter = next(item for item in converters if pattern in item.source_patterns)
        if _fuses_experts(converter) and index.isdigit():
            part = converter.source_patterns.index(pattern)
            members[name] = Member(target, part, len(converter.source_patterns), int(index))
    ties = {name: source for name, source in model.all_tied_weights_keys.items() if name in loaded}
    return Renaming(result, members, tied=ties | {source: source for source in ties.values()})


def _fuses_experts(converter: Any) -> bool:
    """Say whether a conversion stacks per-expert matrices, those of one expert below one another, and no more."""
    steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
    fusing = [("MergeModulelist", 0), ("Concatenate", 1)][: len(converter.source_patterns)]
    return len(converter.target_patterns) == 1 and steps == fusing
