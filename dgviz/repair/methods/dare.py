"""DARE: entries dropped at random, the others scaled up for them."""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from dgviz.repair.methods.method import Edit, EntryMethod, Params, Strength, Update, number
from dgviz.rmt.threshold import Parameter

if TYPE_CHECKING:
    pass


class Dare(EntryMethod):
    """A mask of 32 random bits an entry, from a stream that the seed and the tensor's name begin."""

    name = "dare"
    title = "DARE"
    formula = "W0 + D m / (1 - p), m = 0 with probability p for every entry, else 1"
    citation = "Yu et al. 2024, arXiv 2311.03099"
    parameters = (
        number("p", 0.9, 0.999, "share of entries dropped"),
        Parameter("seed", 0, 0, 2**31, True, "seed of the random mask"),
    )
    strengths = (Strength("p", (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)),)

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the mask at work. Blocks but the last are even, so that the stream never shifts."""
        import torch

        p, seed = params["p"], int(params["seed"])
        key = hashlib.sha256(f"{seed}\n{update.name}".encode()).digest()
        bits = np.random.Philox(key=int.from_bytes(key[:16], "little"))
        limit, share = round((1 - p) * 2**32), 1 - p

        def drop(base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
            """Return the masked and rescaled delta."""
            drawn = bits.random_raw((delta.numel() + 1) // 2).view(np.uint32)[: delta.numel()]
            kept = torch.from_numpy(drawn.astype(np.int64)).to(delta.device) < limit
            return torch.where(kept, delta if share == 1 else delta / share, 0.0)

        return drop
