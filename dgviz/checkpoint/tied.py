"""Tied tensors: heads that are their embedding, and embeddings that an encoder and a decoder share."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from dgviz.checkpoint.documents import config_sections
from dgviz.checkpoint.module_path import EMBEDDING, module_path
from dgviz.checkpoint.read import same_bytes
from dgviz.checkpoint.sample import TENSOR_BYTES, read_runs, sampled_runs
from dgviz.checkpoint.types import Checkpoint, TensorInfo

_HEADS = ("lm_head.weight", "proj_out.weight", "cls.predictions.decoder.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight")
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")

# T5, BART and their kind hold one embedding under three names; which of them are written depends on the writer.
_SHARED = re.compile(r"(?P<stem>(?:.*\.)?)(?:shared|(?:en|de)coder\.embed_tokens)\.weight")


def is_head(name: str) -> bool:
    """Say whether a tensor is the output head of a language model, by its name."""
    return any(name == head or name.endswith(f".{head}") for head in _HEADS)


def is_embedding(name: str) -> bool:
    """Say whether a tensor is an embedding of tokens, by its name."""
    return name.endswith(_EMBEDDINGS)


def tied_embedding(checkpoint: Checkpoint) -> str | None:
    """Return the embedding that a checkpoint's head is tied to, or None."""
    stated = ties(checkpoint.config)
    architectures = checkpoint.config.get("architectures")
    known = isinstance(architectures, list) and any(str(name).endswith(_LANGUAGE_MODELS) for name in architectures)
    # Many configs leave the default unsaid; a language model without a stored head can only be tied.
    tied = known if stated is None else stated
    embeddings = [name for name in checkpoint.tensors if name.endswith(_EMBEDDINGS)]
    shared = [name for name in embeddings if name.endswith("shared.weight")]
    if len(shared) == 1 and all(_stem(name) == _stem(shared[0]) for name in embeddings):
        embeddings = shared
    return embeddings[0] if tied and len(embeddings) == 1 else None


def shared_embedding(name: str, checkpoint: Checkpoint) -> str | None:
    """Return the tensor under which a checkpoint stores a shared embedding, or None."""
    stem = _stem(name)
    if stem is None:
        return None
    whole = f"{stem}shared.weight"
    stored = [whole] if whole in checkpoint.tensors else [key for key in checkpoint.tensors if _stem(key) == stem]
    copies = [checkpoint.tensors[key] for key in stored]
    return stored[0] if stored and all(same_entries(copies[0], other, False) for other in copies[1:]) else None


def find_copies(checkpoint: Checkpoint, whole: bool = True) -> dict[str, str]:
    """Return tensors that are another of the checkpoint, bit for bit, by name, and which: they are tied.

    Only what lies outside the layers counts, and nothing where the config says that head and embedding are not tied.
    `whole`: all bytes are compared, not a sample of them.
    """
    if ties(checkpoint.config) is False:
        return {}
    alike: dict[tuple, list[str]] = {}
    for name, info in checkpoint.tensors.items():
        if len(info.shape) == 2 and info.is_floating and info.numel and not module_path(name).layer:
            alike.setdefault((info.shape, info.dtype), []).append(name)
    found: dict[str, str] = {}
    for names in (names for names in alike.values() if len(names) > 1):
        for name in sorted(names, key=_rank):
            earlier = next((first for first in sorted(names, key=_rank) if first not in found), name)
            same = earlier != name and same_entries(checkpoint.tensors[earlier], checkpoint.tensors[name], whole)
            if same and _varies(checkpoint.tensors[name]):
                found[name] = earlier
    return found


def _rank(name: str) -> tuple[bool, bool, bool]:
    """Return what sorts the names of one tensor: the embedding first, a shared one before those of its users."""
    return not name.endswith("shared.weight"), not is_embedding(name), module_path(name).kind != EMBEDDING


def same_entries(first: TensorInfo, second: TensorInfo, whole: bool) -> bool:
    """Say whether two tensors are the same, bit for bit; without `whole` by a sample of their entries."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    runs = sampled_runs(first.numel, TENSOR_BYTES // 8)
    sides = [read_runs(info, runs) for info in (first, second)]
    if any(side is None for side in sides):
        return same_bytes(first, second)
    return np.array_equal(*sides, equal_nan=True) and (not whole or same_bytes(first, second))


def _varies(info: TensorInfo) -> bool:
    """Say whether a tensor holds more than one number: freshly made zeros are alike, and not tied."""
    values = read_runs(info, sampled_runs(info.numel, TENSOR_BYTES // 8))
    return values is None or bool((values != values[0]).any())


def ties(config: Mapping[str, Any]) -> bool | None:
    """Return whether a config ties head and embedding; None where it does not say."""
    stated = [own["tie_word_embeddings"] for own in config_sections(config).values() if "tie_word_embeddings" in own]
    return any(stated) if stated else None


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that says, wherever it is said, that head and embedding are two tensors."""

    def separate(section: Mapping[str, Any]) -> dict[str, Any]:
        """Change one section and those inside it."""
        changed = {key: separate(value) if isinstance(value, dict) else value for key, value in section.items()}
        return changed | ({"tie_word_embeddings": False} if "tie_word_embeddings" in section else {})

    return separate(config) | {"tie_word_embeddings": False}


def unstored_head(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """Return the embedding and the usual name of a head that is tied to it and not stored, or None."""
    embedding = tied_embedding(checkpoint)
    if embedding is None or any(map(is_head, checkpoint.tensors)):
        return None
    return embedding, _HEADS[0]


def _stem(name: str) -> str | None:
    found = _SHARED.fullmatch(name)
    return found["stem"] if found else None
