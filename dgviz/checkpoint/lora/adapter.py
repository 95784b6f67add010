"""A PEFT LoRA adapter as the tuned side: base plus scaling * B @ A, without a merged copy on disk.

The tuned checkpoint that results has base's names, dtypes, shards and config; a weight the adapter does not touch is
base's own. Format: https://huggingface.co/docs/peft/developer_guides/checkpoint. What an adapter holds that is not
read is refused by name: left out silently, its part of the update would be lost.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dgviz.checkpoint.derived import PlacedTensor, derive
from dgviz.checkpoint.header import read_header
from dgviz.checkpoint.lora.config import CONFIG, MERGE, PICKLED, WEIGHTS, AdapterConfig, read_adapter_config
from dgviz.checkpoint.lora.tensor import (
    LoraTensor,
    lora_members,
    lora_stack,
    lora_tensor,
    parameter_names,
    stores_transposed,
)
from dgviz.checkpoint.names import unwrapped_names
from dgviz.checkpoint.pickled import ALLOW, bin_allowed, read_pickled
from dgviz.checkpoint.read import same_bytes
from dgviz.checkpoint.renaming import Member, rename_like_transformers
from dgviz.checkpoint.tied import is_head, unstored_head, untied
from dgviz.checkpoint.types import WARNING, Checkpoint, Notice, TensorInfo
from dgviz.checkpoint.ungathered import refuse_ungathered
from dgviz.errors import CheckpointError
from dgviz.words import some

_MODELS = "model*.safetensors", "diffusion_pytorch_model*.safetensors"
_STATE = re.compile(r"optimizer|scheduler|scaler|rng_state|random_states|training_args|_states\b|^global_step")
_FACTORS = re.compile(r"^(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<factor>[AB])(?:\.default)?(?:\.weight)?$")


def adapter_folder(path: Path) -> Path | None:
    """Return the folder of the PEFT adapter that a path means: itself, or its weights; None where it is none.

    A model's own weights beside it come first: what is merged has its adapter's config left over.
    """
    folder = path.parent if path.name in (WEIGHTS, PICKLED) and path.is_file() else path
    if not (folder / CONFIG).is_file():
        return None
    if (folder / WEIGHTS).is_file() or (folder / PICKLED).is_file():
        beside = any(file.is_file() for name in _MODELS for file in folder.glob(name))
    else:
        beside = any(file.is_file() for file in folder.glob("*.safetensors"))
    return None if beside else folder


def open_adapter(directory: Path, base: Checkpoint) -> Checkpoint:
    """Return the tuned checkpoint that an adapter makes of a base."""
    directory = directory.resolve()
    config = read_adapter_config(directory)
    weights = config.weights
    if not weights.is_file():
        raise CheckpointError(f"{directory} has {CONFIG} but no {WEIGHTS}: fetch it, or {MERGE}")
    if weights.name == PICKLED and not bin_allowed():
        raise CheckpointError(
            f"{weights} is a PyTorch pickle: set {ALLOW}=1 if you trust it, or save it as {WEIGHTS}"
        )
    header = read_pickled(weights) if weights.name == PICKLED else read_header(weights)
    refuse_ungathered(weights, header.tensors)
    factors, whole = _sort_tensors(weights, header.tensors)
    if not factors and not whole:
        raise CheckpointError(f"{weights} holds no tensors: save the adapter again")
    changed = _stacked(config, factors, base)
    targets = _base_names(base, [*factors, *whole])
    tie = unstored_head(base)
    head = next((name for name in (*factors, *whole) if tie and name not in targets and is_head(name)), None)
    targets |= {head: tie[0]} if head else {}
    named = {name: tie[1] if name == head else targets.get(name) for name in (*factors, *whole)}
    for name, pair in factors.items():
        info = _target(base, targets, name, weights)
        changed[named[name]] = _lora(config, info, name, pair)
    _check_orientation(config, list(changed.values()))
    for name, stored in whole.items():
        info = _target(base, targets, name, weights)
        if name in factors:
            # PEFT may write a targeted embedding's own weight along; what the factors are added to is base's.
            if not same_bytes(stored, info):
                raise CheckpointError(
                    f"{weights}, tensor {stored.name!r} is not base's {info.name!r}, to which the factors beside it "
                    f"are to be added: is this the base it was trained on? If so, {MERGE}"
                )
            continue
        if info.shape != stored.shape:
            raise CheckpointError(
                f"{weights}, tensor {stored.name!r} is {stored.shape}, but base's {info.name!r} is {info.shape}: the "
                f"adapter belongs to another base, or changes the vocabulary; {MERGE}"
            )
        changed[named[name]] = derive(PlacedTensor, info, (stored,), shape=info.shape, dtype=stored.dtype)
    tensors = {name: changed.get(name, info) for name, info in base.tensors.items()}
    settings = base.config
    if tie is not None and (head or tie[0] in changed):
        apart = _head_apart(config, base, *tie, changed)
        tensors |= {apart.name: apart} if apart else {}
        settings = untied(base.config) if apart else base.config
    text = "|".join([base.fingerprint, hashlib.sha256(config.raw).hexdigest(), header.digest])
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(directory, tensors, settings, base.shards, fingerprint, True, _beside(directory, weights))


def _beside(directory: Path, weights: Path) -> tuple[Notice, ...]:
    """Return a warning of trained weights beside an adapter: projectors, heads, embeddings saved on their own."""
    names = [
        file.name
        for file in sorted(directory.iterdir())
        if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".safetensors")
        and file.name not in (weights.name, WEIGHTS, PICKLED)
        and not _STATE.search(file.name)
    ]
    if not names:
        return ()
    message = f"{some(names)} beside the adapter in {directory} {'is' if len(names) == 1 else 'are'} not read."
    remedy = (
        "What was trained beside the LoRA (a projector, a head, embeddings) is missing from tuned: load adapter and "
        "file by the code that wrote them, save the merged model, and give that."
    )
    return (Notice("beside_adapter", WARNING, message, remedy),)


def _head_apart(
    config: AdapterConfig, base: Checkpoint, embedding: str, head: str, changed: Mapping[str, TensorInfo]
) -> TensorInfo | None:
    """Return the head of a model that is tied in base and not with the adapter; None where it stays tied.

    PEFT changes one module at a time: where only the embedding or only the head is one of them, the other stays as in
    base while the adapter runs. With ``ensure_weight_tying`` both are changed alike.
    """
    before, new = changed.get(embedding), changed.get(head)
    if new is None and config.values.get("ensure_weight_tying"):
        return None
    if None not in (before, new) and same_bytes(before, new):
        return None
    inner = unwrapped_names(base.tensors)
    known = rename_like_transformers(base.config, inner.values())
    source = known.tied.get(known.target(inner[embedding]))
    names = [name for name, shared in known.tied.items() if source == shared != name]
    if source is None or len(names) != 1:
        which = "the embedding" if new is None else "the head"
        raise CheckpointError(
            f"{config.weights} changes {which} and not the other of two tensors that base ties "
            f"({embedding!r}), and {known.problem or 'more than these two are tied'}: {MERGE}"
        )
    if new is None:
        info = base.tensors[embedding]
        return derive(PlacedTensor, info, (info,), shape=info.shape, name=names[0])
    return replace(new, name=names[0])


def _sort_tensors(
    weights: Path, tensors: Mapping[str, TensorInfo]
) -> tuple[dict[str, dict[str, TensorInfo]], dict[str, TensorInfo]]:
    """Return the factors A and B by the weight they change, and the tensors saved whole by their name in base."""
    factors: dict[str, dict[str, TensorInfo]] = {}
    whole: dict[str, TensorInfo] = {}
    for name, inner in unwrapped_names(tensors).items():
        info = tensors[name]
        inner = re.sub(r"modules_to_save\.(default\.)?|original_module\.", "", inner)
        found = _FACTORS.match(inner)
        plain = inner.replace("base_layer.", "")
        if found:
            key = "embedding_" * bool(found["kind"]) + found["factor"]
            factors.setdefault(f"{found['module']}.weight", {})[key] = info
        elif ".lora_" in plain or plain in whole:
            raise CheckpointError(f"{weights} holds {name!r}, which is not read: {MERGE}")
        else:
            whole[plain] = info
    for name, pair in factors.items():
        if set(pair) not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            raise CheckpointError(
                f"{weights} holds only {', '.join(sorted(pair))} of the two LoRA factors of {name!r}: "
                "save the adapter again"
            )
    return factors, whole


def _stacked(
    config: AdapterConfig, factors: dict[str, dict[str, TensorInfo]], base: Checkpoint
) -> dict[str, TensorInfo]:
    """Take the factors of target_parameters out of all factors; return the tensors they change, by base's names."""
    targets = config.target_parameters
    nested: dict[str, list[str]] = {}
    for name in factors:
        module = name.removesuffix(".weight").replace(".base_layer", "")
        if parameter_names(module, targets):
            nested.setdefault(module, []).append(name)
    changed: dict[str, TensorInfo] = {}
    for module, found in nested.items():
        names = parameter_names(module, targets)
        stored, members = _base_names(base, names), _members(base, names)
        for key in found:
            pair = factors.pop(key)
            updates = [_update_stack(config, base, name, pair, stored, members) for name in names]
            fitting = [update for update in updates if update]
            if len(fitting) != 1 or not changed.keys().isdisjoint(fitting[0]):
                raise CheckpointError(
                    f"{config.weights}: by their shapes it is open which factors of {module!r} belong to which of "
                    f"{', '.join(map(repr, names)) or 'its parameters'}: {MERGE}"
                )
            changed |= fitting[0]
    return changed


def _update_stack(
    config: AdapterConfig,
    base: Checkpoint,
    name: str,
    pair: Mapping[str, TensorInfo],
    stored: Mapping[str, str],
    members: Mapping[str, Mapping[str, Member]],
) -> dict[str, TensorInfo]:
    """Return what a pair of factors makes of one parameter, by base's names; nothing where they do not fit it."""
    if "A" not in pair:
        return {}
    rank, scaling = config.rank_and_scaling(name)
    if name in stored:
        info = base.tensors[stored[name]]
        turned = stores_transposed(base, info.name)
        new = lora_stack(info, pair["A"], pair["B"], scaling, bool(turned))
        if new is not None and new.square and turned is None:
            raise CheckpointError(
                f"{config.weights}: the experts of {info.name!r} are square, so it is open how they are stored: "
                f"{MERGE}"
            )
        if new is None and len(info.shape) == 2 and pair["A"].shape[:1] == (rank,):
            return {info.name: lora_tensor(info, pair["A"], pair["B"], scaling, False, False)}
        return {} if new is None or new.rank != rank else {info.name: new}
    return lora_members(base, members[name], pair["A"], pair["B"], scaling) if name in members else {}


def _members(base: Checkpoint, names: list[str]) -> dict[str, dict[str, Member]]:
    """Return the matrices that base stores one by one, by the stack that transformers makes of them."""
    if all(name in base.tensors for name in names):
        return {}
    inner = unwrapped_names(base.tensors)
    stacks = rename_like_transformers(base.config, inner.values()).stored_as(inner).stacks
    return {name: members for name in names for stack, members in stacks.items() if _is_end(stack, name)}


def _is_end(first: str, second: str) -> bool:
    """Say whether one name ends with the other: a model and the head around it differ in a prefix."""
    return f".{first}".endswith(f".{second}") or f".{second}".endswith(f".{first}")


def _base_names(base: Checkpoint, names: list[str]) -> dict[str, str]:
    """Return base's name for each name in an adapter: the same apart from wrappers, or the same to transformers."""
    stored = {inner: name for name, inner in unwrapped_names(base.tensors).items()}
    found = {name: stored[name] for name in names if name in stored}
    if len(found) < len(names):
        # One question for both, for names that transformers would rename only together.
        known, others = (rename_like_transformers(base.config, inner) for inner in (stored, names))
        by_target = {known.target(inner): name for inner, name in stored.items()}
        targets = {name: others.target(name) for name in names}
        found = {name: by_target[target] for name, target in targets.items() if target in by_target} | found
    counts = Counter(found.values())
    twice = sorted(name for name, other in found.items() if counts[other] > 1)
    if twice:
        both = " and ".join(map(repr, twice[:2]))
        raise CheckpointError(f"the adapter's {both} are one tensor of {base.path}: {MERGE}")
    return found


def _target(base: Checkpoint, targets: Mapping[str, str], name: str, weights: Path) -> TensorInfo:
    if name not in targets:
        raise CheckpointError(
            f"{weights} changes {name!r}, which {base.path} does not hold: is this the base it was trained on? "
            f"If so (a tied head, or experts stored another way), {MERGE}"
        )
    return base.tensors[targets[name]]


def _lora(config: AdapterConfig, base: TensorInfo, name: str, pair: Mapping[str, TensorInfo]) -> LoraTensor:
    """Return base plus one module's update, with the rank and scaling that the config says."""
    embedding = "embedding_A" in pair
    first, second = (pair[key] for key in sorted(pair))
    module = name.removesuffix(".weight")
    rank, scaling = config.rank_and_scaling(module)
    if first.shape[:1] != (rank,):
        raise CheckpointError(
            f"{config.weights}, tensor {first.name!r} is {first.shape}, but {CONFIG} says rank {rank!r} for "
            f"{module!r}: the two files belong to different adapters"
        )
    return lora_tensor(base, first, second, scaling, embedding or config.transposed, embedding)


def _check_orientation(config: AdapterConfig, changed: list[TensorInfo]) -> None:
    """Refuse a fan_in_fan_out that the weights' shapes contradict where square weights depend on it.

    GPT-2 stores its layers transposed (Conv1D); shapes tell for most weights, and only for square ones the config.
    """
    plain = [item for item in changed if isinstance(item, LoraTensor)]
    if not any(item.square for item in plain):
        return
    seen = {item.transposed for item in plain if not item.square and not item.embedding}
    if seen and config.transposed not in seen:
        raise CheckpointError(
            f"{config.file} says fan_in_fan_out = {config.transposed}, but the shapes say otherwise, so it is open "
            f"how the square weights are stored: {MERGE}"
        )
