"""All stored spectra of the pair in view and what a rule makes of them, read once and kept while the server runs."""

from collections.abc import Mapping
from typing import Any

from dgviz.analysis.assessed import read_assessments
from dgviz.analysis.model_spectra import Assessment, ModelSpectra, assess, read_spectra
from dgviz.analysis.rules import ModelCut, TauCurve, cut_model, refuse_unknown, rule_label, trace_tau
from dgviz.app.kept import kept
from dgviz.checkpoint import CheckpointPair
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.store import SpectrumStore

_RULES_KEPT = 8  # settings of a rule whose figures are kept beside each other: going back to one costs nothing
_CUTS_KEPT = 24  # the same of the comparison of rules, which has several on one page


class _Known:
    """What has been read of one pair; it grows while a scan runs."""

    def __init__(self) -> None:
        self.spectra: ModelSpectra | None = None
        self.assessed: dict[tuple, dict[str, Assessment]] = {}
        self.cuts: dict[str, tuple[ModelCut, TauCurve | None]] = {}
        self.scan = ""

    @property
    def kept_bytes(self) -> int:
        """What it holds, estimated: spectra, and as much again of what rules make of each."""
        own = sum(stored.spectrum.s.nbytes for stored in self.spectra.weights) if self.spectra else 0
        return own * (2 + len(self.assessed)) + 2048 * sum(map(len, self.assessed.values()))


@kept
def _known(fingerprints: tuple[str, str, int]) -> _Known:
    """Return the place where a pair's spectra are kept."""
    return _Known()


def _place(pair: CheckpointPair) -> _Known:
    """Return what is kept of a pair."""
    return _known((pair.base.fingerprint, pair.tuned.fingerprint, len(pair.repairable)))


def load_spectra(pair: CheckpointPair, scan: str = "") -> ModelSpectra:
    """Return the stored spectra of a pair; only those that were missing at the last look are looked for again."""
    known = _place(pair)
    again = scan not in ("", known.scan)
    if again or known.spectra is None or known.spectra.missing:
        known.spectra = read_spectra(pair, previous=None if again else known.spectra)
        known.scan = scan or known.scan
    return known.spectra


def load_assessments(
    pair: CheckpointPair, spectra: ModelSpectra, rule: str, params: Mapping[str, Any]
) -> list[Assessment]:
    """Return what a rule makes of every stored matrix, in the order of the checkpoint."""
    kept = _place(pair).assessed
    own = kept.setdefault((rule, tuple(sorted(params.items()))), {})
    if not own:
        rows = read_assessments(spectra, rule, params, SpectrumStore()) or ()
        own |= {row.weight.name: row for row in rows}
    for matrix in spectra.weights:
        if matrix.weight.name not in own:
            own[matrix.weight.name] = assess(matrix, rule, params)
    for settings in list(kept)[:-_RULES_KEPT]:
        kept.pop(settings, None)
    return [own[matrix.weight.name] for matrix in spectra.weights]


def load_cut(pair: CheckpointPair, spectra: ModelSpectra, plan: RepairPlan) -> tuple[ModelCut, TauCurve | None]:
    """Return what a rule, with or without a shrinker, makes of every stored matrix, also over multiples of tau."""
    kept = _place(pair).cuts
    found = kept.pop(rule_label(plan), None)
    if found is None or len(found[0].rows) != len(spectra.weights):
        refuse_unknown(spectra.weights, plan)
        cut = cut_model(spectra.weights, plan, load_assessments(pair, spectra, plan.rule, plan.params))
        found = cut, trace_tau(cut)
    kept[rule_label(plan)] = found
    for label in list(kept)[:-_CUTS_KEPT]:
        kept.pop(label, None)
    return found
