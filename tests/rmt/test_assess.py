"""The verdict on one weight: of noise, signals, low ranks and frozen weights, and how the page says it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dgviz.app.verdict import diagnosed
from dgviz.rmt.assess import matrix_row
from dgviz.rmt.diagnosis import VERDICTS, WeighedDiagnosis, diagnose, diagnose_model
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import RULES
from dgviz.spectra.entries import describe_entries
from dgviz.spectra.moments import compute_moments
from dgviz.spectra.svd.decompose import decompose

SHAPE = (300, 200)


def spectrum(matrix):
    """The spectrum of a matrix and what a scan would have gathered of its entries."""
    s = np.linalg.svd(matrix, compute_uv=False)
    summary = asdict(compute_moments(torch.from_numpy(matrix), float(np.linalg.norm(matrix))))
    return Spectrum(s, matrix.shape, {}, summary, "w")


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE)


def signal(strength, rank=3):
    generator = np.random.default_rng(5)
    left, right = (np.linalg.qr(generator.standard_normal((length, rank)))[0] for length in SHAPE)
    return strength * left @ right.T


def uneven():
    return noise() * np.geomspace(0.05, 20, SHAPE[0])[:, None]


def verdict(matrix, rule="dg_hard"):
    found = spectrum(matrix)
    return diagnose(found, RULES[rule].apply(found.nonzero_s, found.nonzero_shape))


@pytest.mark.parametrize("seed", range(8))
def test_noise_alone_applies_and_says_that_base_comes_back(seed):
    found = verdict(noise(seed))
    assert found.verdict == "applies"
    assert "gives back base here: the whole update has the spectrum of noise" in found.reasons[0]
    flag = next(flag for flag in found.flags if flag.check == "nothing_kept")
    assert flag.severity == "info" and "goes with it" in flag.message


def test_nothing_kept_of_another_spectrum_needs_care():
    # Uniform singular values: below tau, and nothing like the law.
    flat = signal(1.0, rank=200) * np.linspace(0.9, 1.1, 200)
    found = verdict(flat)
    assert found.verdict == "care"
    flag = next(flag for flag in found.flags if flag.check == "nothing_kept")
    assert flag.severity == "warn" and "not the spectrum of noise alone" in flag.message


def test_a_signal_above_noise_applies_without_nothing_kept():
    found = verdict(noise() + signal(100.0))
    assert found.verdict == "applies" and found.reasons[0].startswith("3 of 200 directions stand above")
    assert "nothing_kept" not in {flag.check for flag in found.flags}


def test_every_flag_has_a_title_in_words():
    seen = set()
    for matrix in (noise(), uneven(), signal(1.0), 0 * noise(), noise() + signal(100.0, 60), noise()[:40]):
        for flag in verdict(matrix).flags:
            seen.add(flag.check)
            assert flag.title[0].isupper() and "_" not in flag.title
    assert {"nothing_kept", "row_variance", "low_rank", "unchanged", "kept_share", "small"} <= seen


def test_the_reasons_of_a_model_are_sentences():
    weights = [WeighedDiagnosis(f"layer{i}", 100, 1.0, verdict(uneven())) for i in range(3)]
    found = diagnose_model(weights)
    assert found.verdict == "care"
    assert any(
        reason.startswith("Rows of unequal variance in 3 of 3 matrices, such as layer0: ") for reason in found.reasons
    )


def test_a_rule_without_a_noise_model_leaves_the_verdict_to_dg_hard():
    found = spectrum(signal(1.0))
    title, diagnosis = diagnosed(found, RULES["fixed_rank"], RULES["fixed_rank"].apply(found.s, SHAPE, rank=3))
    assert title == "DG-Hard" and diagnosis.verdict == "not_applicable"
    title, diagnosis = diagnosed(found, RULES["mp_edge"], RULES["mp_edge"].apply(found.s, SHAPE))
    assert title == RULES["mp_edge"].title and diagnosis.verdict == "not_applicable"


def draw(values):
    """What the page shows of a diagnosis, as a script of its own."""
    from dgviz.app.verdict import draw_verdict
    from dgviz.rmt.diagnosis import Diagnosis

    draw_verdict("DG-Hard", Diagnosis.from_json(values))


@pytest.mark.parametrize("word", VERDICTS)
def test_the_banner_shows_word_reasons_advice_and_every_flag(word):
    found = replace(verdict(uneven()), verdict=word)
    app = AppTest.from_function(draw, args=(found.to_json(),)).run()
    assert not app.exception
    text = "\n".join(item.value for item in [*app.markdown, *app.caption])
    assert f"DG-Hard {VERDICTS[word]}]" in text
    for sentence in (*found.reasons, *found.advice, *(flag.reference for flag in found.flags)):
        assert sentence in text
    assert app.expander[0].label == f"What the checks found ({len(found.flags)})"
    assert f"**What to do first:** {found.advice[0]}" in text


def test_without_flags_there_is_nothing_to_unfold():
    found = replace(verdict(noise()), flags=(), advice=())
    app = AppTest.from_function(draw, args=(found.to_json(),)).run()
    assert not app.exception and not app.expander and not app.caption


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, None), (torch.bfloat16, 0.2)])
def test_a_row_says_how_much_of_the_bulk_is_rounding(dtype, share):
    generator = torch.Generator().manual_seed(0)
    base, update = (torch.randn(96, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    base = (0.02 * base).to(dtype)
    tuned = (base.double() + 6e-5 * update).to(dtype)
    delta = tuned.float() - base.float()
    found = decompose(delta, "cpu")
    summary = describe_entries(delta, found, base, tuned)
    spectrum = Spectrum(found.s.numpy(), (96, 64), {"route": ""}, summary, "w")
    row = json.loads(json.dumps(matrix_row(spectrum, "dg_hard", {})))
    if share is None:
        assert row["rounding"] is None
    else:
        assert row["rounding"]["share"] == pytest.approx(share, abs=0.05) and row["rounding"]["format"] == "bfloat16"
        assert row["rounding"]["share"] <= row["rounding"]["share_most"] <= 1
