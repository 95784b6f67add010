"""What a file of scores says: one number per model, benchmark and metric, and what the names mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Score:
    """One number that a model reached on a benchmark.

    Attributes
    ----------
    model, benchmark : str
        Names, as the file gives them.
    value : float or None
        In the benchmark's own unit; None where the file names the score but gives no finite number.
    stderr : float or None
        Standard error in the same unit, where the file gives one.
    n : int or None
        How many examples were scored.
    cell : str
        Which (model, task) pair of a larger study the score belongs to; empty where there is only one.
    metric : str
        Such as ``acc_norm`` or ``exact_match,strict-match``; empty where the file names none.
    higher_is_better : bool or None
        None where neither file nor harness says so.
    group : str
        The group whose own score already counts this benchmark; empty where there is none.
    conditions : str
        How it was measured, as far as scores under other conditions are not comparable.
    source : str
        The file.
    """

    model: str
    benchmark: str
    value: float | None
    stderr: float | None = None
    n: int | None = None
    cell: str = ""
    metric: str = ""
    higher_is_better: bool | None = None
    group: str = ""
    conditions: str = ""
    source: str = ""


@dataclass(frozen=True)
class ModelRole:
    """What a file says a model is.

    Attributes
    ----------
    role : str
        ``base``, ``tuned`` or ``repaired``; empty where the file does not say.
    base, tuned : str
        The models it descends from, where they are named.
    label : str
        What a repair is called in every cell: its method with its parameters.
    family : str
        Its method.
    control : bool
        Whether it is no repair but what repairs are compared with, such as the complement of one.
    """

    role: str = ""
    base: str = ""
    tuned: str = ""
    label: str = ""
    family: str = ""
    control: bool = False


@dataclass(frozen=True)
class ScoreTable:
    """All that was read.

    Attributes
    ----------
    scores : tuple of Score
        In the order of the files.
    models : mapping of name to ModelRole
        Only of models whose file says what they are.
    roles : mapping of benchmark to str
        ``on_task``, ``held_out`` or ``summary``, where a file says so.
    notes : tuple of str
        What was left aside, in words.
    """

    scores: tuple[Score, ...]
    models: Mapping[str, ModelRole] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def model_names(self) -> tuple[str, ...]:
        """Return every model's name, in the order of the files."""
        return tuple(dict.fromkeys(score.model for score in self.scores))

    def benchmark_names(self) -> tuple[str, ...]:
        """Return every benchmark's name, in the order of the files."""
        return tuple(dict.fromkeys(score.benchmark for score in self.scores))

    def role_of(self, model: str) -> ModelRole:
        """Return what the files say a model is; nothing of one that they do not describe.

        Parameters
        ----------
        model : str
            Its name.
        """
        return self.models.get(model, ModelRole())


def objects(value: Any) -> dict[str, dict[str, Any]]:
    """Return the objects of a JSON object that may be absent."""
    return {key: row for key, row in value.items() if isinstance(row, dict)} if isinstance(value, dict) else {}


def finite(value: Any) -> float | None:
    """Return a JSON number as a float, or None when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def count(value: Any) -> int | None:
    """Return a JSON number as a positive whole number, or None when it is none."""
    number = finite(value)
    return int(number) if number is not None and number >= 1 and number == int(number) else None
