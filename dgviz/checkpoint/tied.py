"""Tied tensors: heads that are their embedding, and embeddings that an encoder and a decoder share."""

import re

from dgviz.checkpoint.documents import config_sections
from dgviz.checkpoint.read import same_bytes
from dgviz.checkpoint.types import Checkpoint

_HEADS = ("lm_head.weight", "proj_out.weight", "cls.predictions.decoder.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight")
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")

# T5, BART and their kind hold one embedding under three names; which of them are written depends on the writer.
_SHARED = re.compile(r"(?P<stem>(?:.*\.)?)(?:shared|(?:en|de)coder\.embed_tokens)\.weight")


def is_head(name: str) -> bool:
    """Say whether a tensor is the output head of a language model, by its name."""
    return any(name == head or name.endswith(f".{head}") for head in _HEADS)


def tied_embedding(checkpoint: Checkpoint) -> str | None:
    """Return the embedding that a checkpoint's head is tied to, or None."""
    config = checkpoint.config
    sections = config_sections(config).values()
    stated = [section["tie_word_embeddings"] for section in sections if "tie_word_embeddings" in section]
    architectures = config.get("architectures")
    known = isinstance(architectures, list) and any(str(name).endswith(_LANGUAGE_MODELS) for name in architectures)
    # Many configs leave the default unsaid; a language model without a stored head can only be tied.
    tied = any(stated) if stated else known
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
    return stored[0] if stored and all(same_bytes(copies[0], other) for other in copies[1:]) else None


def original(name: str, checkpoint: Checkpoint) -> str | None:
    """Return the tensor of a checkpoint that another of its tensors is a copy of, bit for bit; None for an original.

    Only what a model ties counts: a head and its embedding, or the names of a shared embedding.
    """
    tied = tied_embedding(checkpoint) if is_head(name) else shared_embedding(name, checkpoint)
    if tied is None or tied == name or not same_bytes(checkpoint.tensors[tied], checkpoint.tensors[name]):
        return None
    return tied


def unstored_head(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """Return the embedding and the usual name of a head that is tied to it and not stored, or None."""
    embedding = tied_embedding(checkpoint)
    if embedding is None or any(map(is_head, checkpoint.tensors)):
        return None
    return embedding, _HEADS[0]


def _stem(name: str) -> str | None:
    found = _SHARED.fullmatch(name)
    return found["stem"] if found else None
