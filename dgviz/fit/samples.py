"""Text that a model writes itself: what is fitted to in place of data."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dgviz.errors import MethodError

_ASKED = 0.15  # share of a text's tokens that are masked, as encoders are trained
_ROUNDS = 16  # in which an encoder writes a text
_BATCH = 8  # texts that are in memory at once

Ask = Callable[..., Any]
"""A model: takes ``input_ids`` and more, and returns what transformers' models do."""


@dataclass(frozen=True)
class Samples:
    """Texts of one length.

    Attributes
    ----------
    shown : (n, length) int64 tensor
        Tokens as the model is given them.
    asked : (n, length) bool tensor
        Where its distribution is looked at.
    """

    shown: torch.Tensor
    asked: torch.Tensor

    def batches(self) -> Iterator["Samples"]:
        """Yield a few texts at a time."""
        for start in range(0, len(self.shown), _BATCH):
            rows = slice(start, start + _BATCH)
            yield Samples(self.shown[rows], self.asked[rows])

    def to_json(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {"shown": self.shown.tolist(), "asked": self.asked.int().tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Samples":
        """Return the samples that `to_json` described."""
        return cls(torch.tensor(values["shown"]), torch.tensor(values["asked"], dtype=torch.bool))


def hash_samples(*samples: Samples) -> str:
    """Return the SHA-256 of samples, one after the other."""
    found = hashlib.sha256()
    for item in samples:
        found.update(item.shown.numpy().tobytes() + item.asked.numpy().tobytes())
    return found.hexdigest()


def draw_texts(ask: Ask, config: Any, count: int, length: int, seed: int) -> Samples:
    """Return texts that a causal model writes, from its first token on or, where it has none, from a random one."""
    config = config.get_text_config()
    draws = torch.Generator().manual_seed(seed)
    first, longest = config.bos_token_id, getattr(config, "max_position_embeddings", None) or length
    if length > longest:
        raise MethodError(f"texts of {length} tokens are longer than the {longest} that the model takes")
    texts = torch.randint(config.vocab_size, (count, 1), generator=draws)
    if isinstance(first, int):
        texts = torch.full_like(texts, first)
    written = []
    with torch.inference_mode():
        for known in texts.split(_BATCH):
            last, past = known, None
            while known.shape[1] < length:
                out = ask(input_ids=last, past_key_values=past, use_cache=True)
                last, past = _drawn(out.logits[:, -1:], draws), out.past_key_values
                known = torch.cat([known, last], dim=1)
            written.append(known)
    shown = torch.cat(written)
    return Samples(shown, torch.ones_like(shown, dtype=torch.bool))


def draw_gaps(ask: Ask, mask: int, count: int, length: int, seed: int) -> Samples:
    """Return texts that a masked model writes, filling nothing but gaps in random order; then with gaps again."""
    draws = torch.Generator().manual_seed(seed)
    written = []
    with torch.inference_mode():
        for text in torch.full((count, length), mask).split(_BATCH):
            turns = torch.rand(text.shape, generator=draws).argsort(dim=1) * _ROUNDS // length
            for turn in range(_ROUNDS):
                logits = ask(input_ids=text).logits.clone()
                logits[..., mask] = -torch.inf
                text = torch.where(turns == turn, _drawn(logits, draws), text)
            written.append(text)
    shown = torch.cat(written)
    gaps = torch.rand(shown.shape, generator=draws) < _ASKED
    gaps[:, 0] |= ~gaps.any(dim=1)
    return Samples(shown.masked_fill(gaps, mask), gaps)


def _drawn(logits: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Return one token of every distribution; drawn on the CPU, where the seed means the same for every device."""
    p = logits.float().softmax(-1).cpu()
    return torch.multinomial(p.flatten(0, -2), 1, generator=draws).reshape(p.shape[:-1])
