"""The calibration table: pairs that were trained, repaired and scored, one row each."""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

TABLE = Path(__file__).parent / "pairs.json"
_CERTAIN = 2.0  # standard errors from which on damage, or gain, is taken for one


@dataclass(frozen=True)
class Value:
    """A figure and its standard error; both None where it is not defined."""

    value: float | None
    stderr: float | None

    @property
    def certain(self) -> bool:
        """Whether it is above zero by two standard errors."""
        return self.value is not None and self.value > 0 and self.value >= _CERTAIN * self.stderr


@dataclass(frozen=True)
class Repaired:
    """What a repair did to one pair, in percent.

    Attributes
    ----------
    healed : Value
        Of the damage to base's own task; 0 is tuned, 100 is base.
    target_kept : Value
        Of the gain on the target; 0 is base, 100 is tuned.
    """

    healed: Value
    target_kept: Value


@dataclass(frozen=True)
class CalibratedPair:
    """One pair of the table.

    Attributes
    ----------
    name, family, architecture, recipe, seed
        Which it is and how it was made; a family is what is left out together.
    parameters : int
        Entries of all tensors of the model.
    largest : (int, int)
        Rows and columns of its largest matrix.
    dropped : float
        Share of the update's energy that DG-Hard drops, in percent.
    damage, gain : Value
        What fine-tuning cost on base's task and brought on the target, in points.
    dg_hard, wise_ft, norm_matched : Repaired
        DG-Hard with its own settings; WiSE-FT at the strength that heals most of those that were scored and keep the
        target score that DG-Hard reaches; every matrix's update shortened to the length of DG-Hard's.
    alpha : float
        That strength of WiSE-FT.
    wise_ft_ahead, norm_matched_ahead : Value
        Healing above DG-Hard's, in points, the two compared on the same examples.
    norm_matched_ahead_target : Value
        Target kept above DG-Hard's.
    """

    name: str
    family: str
    architecture: str
    recipe: str
    seed: int
    parameters: int
    largest: tuple[int, int]
    dropped: float
    damage: Value
    gain: Value
    dg_hard: Repaired
    wise_ft: Repaired
    norm_matched: Repaired
    alpha: float
    wise_ft_ahead: Value
    norm_matched_ahead: Value
    norm_matched_ahead_target: Value

    @property
    def counted(self) -> bool:
        """Whether damage and gain are above two standard errors, so that shares of them mean something."""
        return self.damage.certain and self.gain.certain

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "CalibratedPair":
        """Return the pair that a row of the table describes."""
        control, averaged = row["norm_matched"], row["wise_ft"]
        plain = ("name", "family", "architecture", "recipe", "seed", "parameters", "dropped")
        return cls(
            **{name: row[name] for name in plain},
            largest=tuple(row["largest"]),
            damage=Value(**row["damage"]),
            gain=Value(**row["gain"]),
            dg_hard=_repaired(row["dg_hard"]),
            wise_ft=_repaired(averaged),
            norm_matched=_repaired(control),
            alpha=averaged["alpha"],
            wise_ft_ahead=Value(**averaged["ahead"]),
            norm_matched_ahead=Value(**control["ahead"]),
            norm_matched_ahead_target=Value(**control["ahead_target"]),
        )


def _repaired(row: Mapping[str, Any]) -> Repaired:
    return Repaired(Value(**row["healed"]), Value(**row["target_kept"]))


@functools.cache
def read_pairs(path: Path = TABLE) -> tuple[CalibratedPair, ...]:
    """Return the pairs of a table, by default of the one that comes with the package.

    Parameters
    ----------
    path : Path
        What ``dgviz calibrate`` has written.
    """
    return tuple(CalibratedPair.from_json(row) for row in orjson.loads(path.read_bytes())["pairs"])


@dataclass(frozen=True)
class Standing:
    """How a method stands against DG-Hard over pairs.

    Attributes
    ----------
    pairs, ahead, behind : int
        Pairs compared, and those on which it healed more, or less, than DG-Hard did.
    certain : int
        Those on which it healed more by two standard errors.
    mean, stderr : float
        Of the healing above DG-Hard's, in points, over the pairs.
    both : int
        Pairs on which it healed no less and kept no less of the target, and more of one.
    """

    pairs: int
    ahead: int
    behind: int
    certain: int
    mean: float
    stderr: float
    both: int

    @property
    def better(self) -> bool:
        """Whether it healed more on most pairs, and on average by two standard errors."""
        return self.ahead > self.pairs / 2 and self.mean >= _CERTAIN * self.stderr


def stand(pairs: Iterable[CalibratedPair], method: str) -> Standing:
    """Return how ``"wise_ft"``, at DG-Hard's target, or ``"norm_matched"`` stands against DG-Hard.

    Parameters
    ----------
    pairs : iterable of CalibratedPair
        Of these the counted ones.
    method : str
        Which of the two.
    """
    counted = [pair for pair in pairs if pair.counted]
    healed = [getattr(pair, f"{method}_ahead") for pair in counted]
    kept = [getattr(pair, method).target_kept.value - pair.dg_hard.target_kept.value for pair in counted]
    values = [gap.value for gap in healed]
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n * (n - 1))) if n > 1 else math.inf
    both = sum(min(gap) >= 0 and max(gap) > 0 for gap in zip(values, kept, strict=True))
    ahead, behind = sum(value > 0 for value in values), sum(value < 0 for value in values)
    return Standing(n, ahead, behind, sum(gap.certain for gap in healed), mean, spread, both)
