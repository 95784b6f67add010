"""Which tensor of base belongs to which tensor of tuned. Renamed and wrapped models are to be matched here."""

from dgviz.checkpoint.types import Checkpoint

HEAD = "lm_head.weight"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def match_names(base: Checkpoint, tuned: Checkpoint) -> dict[str, str]:
    """Return base's name for every tensor of tuned that has one.

    The same name on both sides; and where base ties its output head to the embedding and so does not store it, but
    tuned does, the head belongs to base's embedding. (Kept as it is beside a repaired embedding, the head would
    silently be untied by transformers.)
    """
    matches = {name: name for name in tuned.tensors if name in base.tensors}
    tied = _tied_embedding(base)
    if HEAD in tuned.tensors and HEAD not in base.tensors and tied is not None:
        matches[HEAD] = tied
    return matches


def _tied_embedding(checkpoint: Checkpoint) -> str | None:
    """Return the embedding that a checkpoint's head is tied to, or None."""
    config = checkpoint.config
    sections = [config, *(value for value in config.values() if isinstance(value, dict))]
    stated = [section["tie_word_embeddings"] for section in sections if "tie_word_embeddings" in section]
    architectures = config.get("architectures") or []
    # Many configs leave the default unsaid; a language model without a stored head can only be tied.
    tied = any(stated) if stated else any(str(name).endswith(_LANGUAGE_MODELS) for name in architectures)
    embeddings = [name for name in checkpoint.tensors if name.endswith(_EMBEDDINGS)]
    return embeddings[0] if tied and len(embeddings) == 1 else None
