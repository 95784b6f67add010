"""What a rule makes of every weight of a model, kept beside the spectra: thresholds and verdicts.

They are found again for as long as every spectrum is the one they were made from, and the code that makes them is the
same: both are part of the name under which they are kept.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgviz import forecast, rmt, words
from dgviz.analysis.model_spectra import Assessment, ModelSpectra, assess, read_spectra
from dgviz.checkpoint import CheckpointPair
from dgviz.rmt.diagnosis import Diagnosis, Flag
from dgviz.rmt.threshold import Threshold, find_rule
from dgviz.spectra.kept_rows import digest_code
from dgviz.spectra.pack import read_text, text_array
from dgviz.spectra.store import FEWEST, SpectrumStore

_CODE = digest_code(rmt, forecast, words, __file__)  # when this is imported, as the code itself is
_NUMBERS = ("tau", "sigma", "edge", "rank", "degenerate")  # of a threshold


def keep_assessments(
    spectra: ModelSpectra, rule: str, params: Mapping[str, Any], rows: Sequence[Assessment], store: SpectrumStore
) -> None:
    """Keep what a rule makes of all weights, diagnoses too; nothing where spectra are missing or few."""
    if not rows or spectra.missing or not spectra.digest:
        return
    flags, sentences = _Table(), _Table()
    diagnoses = [
        (
            row.diagnosis.verdict,
            sentences.add(row.diagnosis.reasons),
            sentences.add(row.diagnosis.advice),
            [flags.add(flag) for flag in row.diagnosis.flags],
        )
        for row in rows
    ]
    about = {
        "warnings": [row.threshold.warnings for row in rows],
        "diagnoses": diagnoses,
        "sentences": list(sentences),
        "flags": [list(vars(flag).values()) for flag in flags],
    }
    numbers = [[float(getattr(row.threshold, name)) for name in _NUMBERS] + [row.energy_kept] for row in rows]
    arrays = {"numbers": np.array(numbers), "about": text_array(about)}
    store.put_arrays(_question(spectra, rule, params), arrays, len(rows))


def read_assessments(
    spectra: ModelSpectra, rule: str, params: Mapping[str, Any], store: SpectrumStore
) -> list[Assessment] | None:
    """Return what `keep_assessments` has kept of these spectra, as they are now, or None."""
    arrays = store.get_arrays(_question(spectra, rule, params)) if spectra.digest and not spectra.missing else None
    if arrays is None:
        return None
    about, settings = read_text(arrays["about"]), find_rule(rule).checked(params)
    flags, sentences = [Flag(*flag) for flag in about["flags"]], list(map(tuple, about["sentences"]))
    rows = []
    columns = zip(spectra.weights, arrays["numbers"].tolist(), about["warnings"], about["diagnoses"], strict=True)
    for stored, (tau, sigma, edge, rank, degenerate, kept), warnings, (verdict, reasons, advice, raised) in columns:
        threshold = Threshold(rule, settings, tau, sigma, edge, int(rank), tuple(warnings), bool(degenerate))
        row = Assessment(stored.weight, stored.spectrum, threshold, int(rank), kept)
        found = Diagnosis(verdict, sentences[reasons], sentences[advice], tuple(flags[at] for at in raised))
        vars(row)["diagnosis"] = found  # where the property keeps it
        rows.append(row)
    return rows


def assess_scanned(pair: CheckpointPair, rule: str, params: Mapping[str, Any]) -> None:
    """Assess all weights of a pair that was just scanned, so that its pages find that done."""
    store = SpectrumStore()
    spectra = read_spectra(pair, store)
    if len(spectra.weights) >= FEWEST and read_assessments(spectra, rule, params, store) is None:
        keep_assessments(spectra, rule, params, [assess(one, rule, params) for one in spectra.weights], store)


class _Table(dict):
    """Values by their places, each once: most matrices of a model have the same said of them."""

    def add(self, value: Any) -> int:
        """Return the place of a value."""
        return self.setdefault(value, len(self))


def _question(spectra: ModelSpectra, rule: str, params: Mapping[str, Any]) -> str:
    names = (stored.weight.name for stored in spectra.weights)
    return json.dumps([_CODE, spectra.digest, rule, sorted(find_rule(rule).checked(params).items()), *names])
