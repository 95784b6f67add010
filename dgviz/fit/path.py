"""From tuned towards base: scales that keep both sides' own distributions, at one strength after another.

At strength w the scales minimise

    w KL(tuned | blend) / KL(tuned | base) + (1 - w) KL(base | blend) / KL(base | tuned),

the first over tuned's own samples and the second over base's. Were both divergences quadratic in one alpha, the best
would be alpha = w: there each fit begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import log_softmax

from dgviz.errors import MethodError
from dgviz.fit.blend import Blend
from dgviz.fit.samples import Samples

STRENGTHS = (0.9, 0.75, 0.6, 0.45)
STEPS = 50
_RATE = 0.05
_CACHED = 2**30  # bytes of either side's own distributions that are kept
_SEARCHED = 6  # points looked at between two of the path


@dataclass(frozen=True)
class Point:
    """Scales, and what they come to on the samples.

    Attributes
    ----------
    strength : float
        Weight of tuned's side in the fit; 1 is tuned.
    scales : tuple of float
        One a part of the blend.
    target_kept : float
        Estimated from tuned's samples, in percent: 100 is tuned, 0 is base.
    """

    strength: float
    scales: tuple[float, ...]
    target_kept: float


class Side:
    """One side's samples, and what it says of them itself."""

    def __init__(self, blend: Blend, samples: Samples, own: float, other: float) -> None:
        self._blend, self.batches = blend, list(samples.batches())
        self._own = blend.scales(own)
        self._known: dict[int, torch.Tensor] = {}
        self._other = blend.scales(other)
        with torch.no_grad():
            parts = [self.divergence(self._other, number) for number in range(len(self.batches))]
        self.whole = float(torch.stack(parts).mean())
        """KL(own | other), in nats a place."""
        self._ends = self._right(self._other), self._right(self._own)
        if not (self.whole > 0 and self._ends[1] > self._ends[0]):
            raise MethodError("base and tuned say the same of what they write themselves: there is nothing to fit")

    def _at(self, scales: torch.Tensor, number: int) -> torch.Tensor:
        """Return the blend's log-distributions at the asked places of one batch."""
        batch = self.batches[number]
        logits = self._blend.at(scales)(input_ids=batch.shown).logits
        return log_softmax(logits[batch.asked.to(logits.device)].float(), dim=-1)

    def _said(self, number: int) -> torch.Tensor:
        """Return the side's own."""
        if number in self._known:
            return self._known[number]
        with torch.no_grad():
            found = self._at(self._own, number)
        if found.nbytes * len(self.batches) <= _CACHED:
            self._known[number] = found
        return found

    def divergence(self, scales: torch.Tensor, number: int) -> torch.Tensor:
        """Return KL(own | blend) on one batch, in nats a place."""
        own = self._said(number)
        return (own.exp() * (own - self._at(scales, number))).sum(-1).mean()

    def _right(self, scales: torch.Tensor) -> float:
        """Return how likely the blend's first guess is under the side's own distribution, on average."""
        hits, places = 0.0, 0
        with torch.no_grad():
            for number in range(len(self.batches)):
                guess = self._at(scales, number).argmax(-1, keepdim=True)
                hits += float(self._said(number).gather(-1, guess).exp().sum(dtype=torch.float64))
                places += len(guess)
        return hits / places

    def share(self, scales: torch.Tensor) -> float:
        """Return how near the blend is to the side, in percent of KL(own | other)."""
        with torch.no_grad():
            parts = [self.divergence(scales, number) for number in range(len(self.batches))]
        return 100 * (1 - float(torch.stack(parts).mean()) / self.whole)

    def kept(self, scales: torch.Tensor) -> float:
        """Return how much of what the side is ahead of the other the blend has, in percent of right first guesses."""
        other, own = self._ends
        return 100 * (self._right(scales) - other) / (own - other)


class Objective:
    """Both sides, each on its own samples."""

    def __init__(self, blend: Blend, base: Samples, tuned: Samples) -> None:
        self.blend, self.base, self.tuned = blend, Side(blend, base, 0.0, 1.0), Side(blend, tuned, 1.0, 0.0)

    def point(self, strength: float, scales: torch.Tensor) -> Point:
        """Return scales, rounded as a plan has them, with their estimate."""
        rounded = tuple(round(scale, 4) for scale in scales.tolist())
        return Point(strength, rounded, self.tuned.kept(self.tensor(rounded)))

    def tensor(self, scales: Sequence[float]) -> torch.Tensor:
        """Return scales on the blend's device."""
        return torch.tensor(scales, device=self.blend.device)

    def fit(self, strength: float, start: torch.Tensor, steps: int, seed: int) -> torch.Tensor:
        """Return the scales, between 0 and 1, that Adam finds in so many steps of one batch a side."""
        scales = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([scales], lr=_RATE)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        draws = torch.Generator().manual_seed(seed)
        weighed = [(self.base, 1 - strength), (self.tuned, strength)]
        turns = [_turns(len(side.batches), draws) for side, _ in weighed]
        for _ in range(steps):
            optimizer.zero_grad()
            for (side, weight), order in zip(weighed, turns, strict=True):
                (weight / side.whole * side.divergence(scales, next(order))).backward()
            optimizer.step()
            rate.step()
            with torch.no_grad():
                scales.clamp_(0, 1)
        return scales.detach()


def _turns(count: int, draws: torch.Generator) -> Iterator[int]:
    """Yield numbers below a count, every one once in each turn."""
    while True:
        yield from torch.randperm(count, generator=draws).tolist()


def iter_path(
    objective: Objective, keep: float, seed: int = 0, steps: int = STEPS, known: Sequence[Point] = ()
) -> Iterator[Point]:
    """Yield tuned, then the fit at every strength until less than `keep` percent of the target is kept.

    Parameters
    ----------
    objective : Objective
        What is fitted.
    keep : float
        Where to stop.
    seed : int
        Of the order of batches.
    steps : int
        Of Adam at the first strength; half of it at the others, which begin at the fit before.
    known : sequence of Point
        What an earlier run has found: it is yielded first, and not fitted again.
    """
    point = None
    for number, strength in enumerate((1.0, *STRENGTHS)):
        if number < len(known):
            point = known[number]
        elif point is None:
            point = objective.point(strength, objective.blend.scales(1.0))
        else:
            start = strength / point.strength * objective.tensor(point.scales)
            share = steps if number == 1 else max(1, steps // 2)
            point = objective.point(strength, objective.fit(strength, start, share, seed))
        yield point
        if point.target_kept < keep:
            return


def choose_point(objective: Objective, path: Sequence[Point], keep: float) -> Point:
    """Return the point that keeps so many percent of the target: between two of the path, on the straight line.

    Where all of the path keeps more it is the last of them.
    """
    for before, after in pairwise(path):
        if after.target_kept < keep:
            return _between(objective, before, after, keep)
    return path[-1]


def _between(objective: Objective, kept: Point, lost: Point, keep: float) -> Point:
    """Return the point between two that keeps what is asked for, by secants and halves in turn."""
    for turn in range(_SEARCHED):
        share = 0.5 if turn % 2 else (kept.target_kept - keep) / (kept.target_kept - lost.target_kept)
        mix = [(1 - share) * a + share * b for a, b in zip(kept.scales, lost.scales, strict=True)]
        strength = (1 - share) * kept.strength + share * lost.strength
        point = objective.point(strength, objective.tensor(mix))
        if point.scales in (kept.scales, lost.scales):
            break
        kept, lost = (point, lost) if point.target_kept >= keep else (kept, point)
    return kept
