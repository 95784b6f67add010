"""What a rule makes of a model, kept: as made anew, and only while spectra, code and settings are the same."""

import pytest

from dgviz.analysis import assessed
from dgviz.analysis.assessed import assess_scanned, keep_assessments, read_assessments
from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.checkpoint import open_pair
from dgviz.spectra import store as stores
from dgviz.spectra.store import SpectrumStore
from tests.checkpoints import write_pair
from tests.scans import scan_here

RULES = [("dg_hard", {}), ("mp_edge", {"scale": 1.5}), ("energy", {"fraction": 0.5})]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    home = tmp_path_factory.mktemp("assessed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DGVIZ_CACHE_DIR", str(home / "cache"))
        for module in (stores, assessed):
            patch.setattr(module, "FEWEST", 4)
        pair = open_pair(*write_pair(home / "pair", config={"model_type": "synthetic"}))
        scan_here(pair)
        yield pair


def computed(spectra, rule, params):
    return [assess(stored, rule, params) for stored in spectra.weights]


@pytest.mark.parametrize(("rule", "params"), RULES)
def test_kept_assessments_are_those_made_anew(pair, rule, params):
    assess_scanned(pair, rule, params)
    spectra, store = read_spectra(pair), SpectrumStore()
    kept, rows = read_assessments(spectra, rule, params, store), computed(spectra, rule, params)
    assert all("diagnosis" in vars(row) for row in kept)
    for one, other in zip(kept, rows, strict=True):
        assert (one.weight, one.threshold, one.diagnosis) == (other.weight, other.threshold, other.diagnosis)
        assert one.spectrum is other.spectrum and one.energy_kept == other.energy_kept
        assert all(figure.value(one) == figure.value(other) for figure in FIGURES.values())


def test_other_spectra_settings_or_code_find_none(pair, monkeypatch):
    store, spectra = SpectrumStore(), read_spectra(pair)
    keep_assessments(spectra, "dg_hard", {}, computed(spectra, "dg_hard", {}), store)
    assert read_assessments(spectra, "dg_hard", {"scale": 1.0}, store) is not None  # the default
    assert read_assessments(spectra, "dg_hard", {"scale": 1.1}, store) is None
    with monkeypatch.context() as patch:
        patch.setattr(assessed, "_CODE", "another")
        assert read_assessments(spectra, "dg_hard", {}, store) is None
    weight, old = spectra.weights[0].weight, spectra.weights[0].spectrum
    store.put(weight.key, old.s * 2, old.shape, old.certificate, {"kurtosis": 3.0})
    changed = read_spectra(pair)
    assert changed.weights[0].spectrum.s[0] == 2 * old.s[0]
    assert read_assessments(changed, "dg_hard", {}, store) is None


def test_nothing_is_kept_of_a_part(pair):
    whole = read_spectra(pair)
    part = type(whole)(whole.weights[1:], (whole.weights[0].weight,), whole.digest)
    keep_assessments(part, "mp_edge", {}, computed(part, "mp_edge", {}), SpectrumStore())
    assert read_assessments(part, "mp_edge", {}, SpectrumStore()) is None
    grown = read_spectra(pair, previous=part)
    assert len(grown.weights) == len(whole.weights) and grown.digest == ""
