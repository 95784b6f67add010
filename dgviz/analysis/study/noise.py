"""Noise tables of a study's pairs: the files that ``noise --json`` wrote, pooled by model and method (Table 16)."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dgviz.errors import ScoresError
from dgviz.scores.read import read_scores_file
from dgviz.scores.recovery import Study

Noise = Mapping[tuple[str, str], Mapping[str, tuple[float, float]]]
"""By cell and method: of every class of weight, mean noise and norm share."""


def noise_files(study: Study, folder: Path) -> dict[tuple[str, str], Path]:
    """Return where the noise table of every cell and method lies, whether it is there or not.

    Parameters
    ----------
    study : Study
        Its design says the places.
    folder : Path
        That of the study file, from which places are told.
    """
    return {
        (cell.name, method): folder / place.replace("{cell}", cell.name)
        for method, place in study.design.noise.items()
        for cell in study.cells
    }


def read_noise(files: Mapping[tuple[str, str], Path]) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
    """Return the noise tables that are there.

    Parameters
    ----------
    files : mapping of (cell, method) to Path
        From `noise_files`.

    Raises
    ------
    ScoresError
        If a file is no noise table, or one of a part of the weights.
    """
    return {key: _read(file) for key, file in files.items() if file.exists()}


def _read(file: Path) -> dict[str, tuple[float, float]]:
    """Return mean noise and norm share of every class in one file."""
    try:
        content = json.loads(read_scores_file(file))
        found = {row["group"]: (float(row["mean_noise"]), float(row["norm_share"])) for row in content["classes"]}
        lacking = len(content["missing"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ScoresError(f"{file} is no noise table ({error}): write it with `noise BASE TUNED --json`") from error
    if lacking:
        raise ScoresError(f"{file} lacks {lacking} weights: scan the whole pair, and write the noise table again")
    return found


@dataclass(frozen=True)
class PooledNoise:
    """One class of weight of one model and method, over its cells.

    Attributes
    ----------
    group : str
        Class of weight.
    mean_noise, norm_share : float
        Means over the cells.
    product : float
        Of the two.
    """

    group: str
    mean_noise: float
    norm_share: float
    product: float


def pool_noise(tables: list[Mapping[str, tuple[float, float]]]) -> list[PooledNoise]:
    """Return the mean of several noise tables, each class over the tables that have it."""
    rows = []
    for group in dict.fromkeys(group for table in tables for group in table):
        noise, share = (statistics.fmean(t[group][part] for t in tables if group in t) for part in (0, 1))
        rows.append(PooledNoise(group, noise, share, noise * share))
    return rows
