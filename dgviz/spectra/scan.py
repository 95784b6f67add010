"""What a scan does with one weight: all that needs the update itself in one pass, so that no later question reads it.

Runs in worker processes; what is in the store already is only read.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dgviz.checkpoint import CheckpointPair
from dgviz.device import out_of_memory
from dgviz.rmt.assess import matrix_row, needs_delta
from dgviz.rmt.directions import NO_DIRECTIONS, Directions
from dgviz.rmt.law import aspect_ratio
from dgviz.spectra.open_weight import OpenWeight, open_together
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.svd.decompose import resolve_device
from dgviz.spectra.weight import Weight, find_matrices


def list_places(device: str) -> list[tuple[str, int | None]]:
    """Return the devices a scan runs on, each with its free bytes; None for the CPU, whose memory all share."""
    places = [resolve_device(device)]
    if device == "auto" and places != ["cpu"]:
        places = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [(place, None if place == "cpu" else torch.cuda.mem_get_info(place)[0]) for place in places]


def scan_weights(
    weights: list[Weight],
    settings: list[tuple],
    device: str,
    threads: int,
    root: Path,
) -> list[dict[str, Any] | Exception]:
    """Return every weight's figures, or what befell it, and see to it that the store holds all there is to know.

    Several weights are of one shape, and decomposed together; each has a rule, parameters and perhaps directions.
    """
    torch.set_num_threads(threads)
    opened = open_together(weights, device, SpectrumStore(root), len(weights))
    return [_outcome(weight, *own) for weight, own in zip(opened, settings, strict=True)]


def _outcome(weight: OpenWeight, *settings: Any) -> dict[str, Any] | Exception:
    """Return a weight's figures, from the CPU where a GPU has no memory for it; or what befell it."""
    try:
        return _scan_open(weight, *settings)
    except torch.OutOfMemoryError:
        pass
    except Exception as error:  # whatever befalls one weight is its result; the others go on
        return error
    row = _outcome(OpenWeight(weight.weight, "cpu", weight.store), *settings)
    return row if isinstance(row, Exception) else row | {"warnings": [*row["warnings"], out_of_memory(weight.device)]}


def _scan_open(
    weight: OpenWeight, rule: str, params: Mapping[str, Any], directions: Directions = NO_DIRECTIONS
) -> dict[str, Any]:
    """Return the figures of a weight; retained factors are stored with a spectrum that is new."""
    started = time.perf_counter()
    found = weight.spectrum()
    if found.stored and not needs_delta(found, rule, params):
        return matrix_row(found, rule, params, directions)
    spectrum = weight.spectrum_with(rule, params)
    if not found.stored:
        spectrum = weight.store_factors(("dg_hard", {}), (rule, params))
    return matrix_row(dataclasses.replace(spectrum, seconds=time.perf_counter() - started), rule, params, directions)


def spectrum_report(
    pair: CheckpointPair,
    name: str,
    rule: str,
    params: Mapping[str, Any],
    device: str = "auto",
    own: Callable[[Weight], tuple[str, Mapping[str, Any], Directions]] | None = None,
) -> dict[str, Any]:
    """Return the spectrum and threshold of every matrix of a tensor as plain values."""
    weights = find_matrices(pair, name)
    tensor, rows, directions = weights[0].tensor, [], NO_DIRECTIONS
    for weight in weights:
        rule, params, directions = own(weight) if own else (rule, params, directions)
        spectrum = OpenWeight(weight, device).spectrum_with(rule, params)
        more = {"beta": aspect_ratio(spectrum.nonzero_shape), "singular_values": spectrum.s.tolist()}
        rows.append(matrix_row(spectrum, rule, params, directions) | more)
    return {"name": tensor.name, "shape": list(tensor.tuned.shape), "rule": rule, "params": params, "matrices": rows}
