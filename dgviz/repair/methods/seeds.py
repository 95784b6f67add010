"""Random streams that depend on a seed and on a tensor's name only: on no device, shard, order or other tensor."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dgviz.device import send
from dgviz.repair.methods.method import Params
from dgviz.rmt.threshold import Parameter

if TYPE_CHECKING:
    import torch

SEED = Parameter("seed", 0, 0, 2**31, True, "seed of what is drawn")


def begin_stream(params: Params, name: str) -> np.random.Philox:
    """Return the stream of one tensor."""
    key = hashlib.sha256(f"{int(params['seed'])}\n{name}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(key[:16], "little"))


def entry_words(params: Params, name: str) -> "Callable[[torch.Tensor], torch.Tensor]":
    """Return what draws 32 random bits, as a whole number, for every entry of a block; blocks come in order.

    Blocks but the last are even, so that the stream never shifts.
    """
    import torch

    bits = begin_stream(params, name)

    def draw(block: torch.Tensor) -> torch.Tensor:
        """Return the numbers of a block's entries."""
        drawn = bits.random_raw((block.numel() + 1) // 2).view(np.int32)[: block.numel()]
        return send(torch.from_numpy(drawn), block.device).to(torch.int64).bitwise_and_(2**32 - 1)

    return draw
