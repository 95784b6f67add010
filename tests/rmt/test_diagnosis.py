"""No false keep is silent: noise of every kind, alone and with a signal planted; trimming; verdicts in words."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dgviz.checkpoint.module_path import module_path
from dgviz.forecast.words import averaging_leads, averaging_words, control_words
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.diagnosis import LIMITS, SEVERITIES, VERDICTS, Diagnosis, WeighedDiagnosis, diagnose, diagnose_model
from dgviz.rmt.diagnosis.advice import advise, advise_verdict
from dgviz.rmt.law import bulk_edge, optimal_threshold, sigma_from_median
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import RULES
from dgviz.spectra.entries import describe_entries
from dgviz.spectra.svd.decompose import decompose
from tests.deltas import low_rank, noise, power_law, spiked, with_values
from tests.noises import NOISES, planted

SHAPE = (640, 240)
SOUND = spiked(1024, 384, 5, 4)  # five directions over iid noise, the strongest four times its edge


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def looked_at(delta, summary=True):
    """The spectrum a scan would store of a delta."""
    delta = delta.float()
    found = decompose(delta, "cpu")
    moments = describe_entries(delta, found, torch.ones(1), None) if summary else {}
    s = found.s.numpy()
    return Spectrum(s, tuple(delta.shape), {"route": "", "checks": [], "rejected": []}, moments, "w")


def judged(delta, rule="dg_hard", **params):
    spectrum = looked_at(delta)
    threshold = apply_rule(spectrum, rule, params)
    return threshold, diagnose(spectrum, threshold)


def judged_pair(base, tuned):
    """The verdict on two stored sides."""
    delta = tuned.float() - base.float()
    found = decompose(delta, "cpu")
    summary = describe_entries(delta, found, base, tuned)
    spectrum = Spectrum(found.s.numpy(), tuple(delta.shape), {}, summary, "w")
    return diagnose(spectrum, apply_rule(spectrum, "dg_hard", {}))


def serious(diagnosis):
    return [flag for flag in diagnosis.flags if flag.severity in ("warn", "error")]


@pytest.mark.parametrize("name", NOISES)
def test_no_false_keep_is_silent(name):
    threshold, diagnosis = judged(NOISES[name](*SHAPE))
    if threshold.rank:
        assert serious(diagnosis), f"{threshold.rank} directions of pure noise are kept without a word"
        assert diagnosis.verdict != "applies"


@pytest.mark.parametrize("name", NOISES)
def test_a_planted_signal_is_found_or_flagged(name):
    delta, left = planted(NOISES[name](*SHAPE))
    threshold, diagnosis = judged(delta)
    kept = decompose(delta.float(), "cpu").triplets(threshold.rank)[0].double()
    if threshold.rank:
        basis = torch.linalg.qr(kept).Q
        share = torch.linalg.vector_norm(basis.T @ left, dim=0).square().min()
    else:
        share = torch.zeros(())
    # Noise three times weaker than the signal turns a direction by about 1 / 3 at most.
    assert float(share) > 0.7 or serious(diagnosis)


@pytest.mark.parametrize("name", ["iid", "int8-like steps", "uniform", "signs", "stored in bfloat16"])
def test_noise_as_the_law_has_it_is_dropped_whole(name):
    threshold, diagnosis = judged(NOISES[name](*SHAPE))
    assert threshold.rank == 0
    assert {flag.check for flag in serious(diagnosis)} <= {"nothing_kept"}


def test_a_few_directions_over_such_noise_are_what_the_rule_is_for():
    threshold, diagnosis = judged(SOUND)
    assert threshold.rank == 5 and diagnosis.verdict == "applies" and not serious(diagnosis)


@pytest.mark.parametrize("name", ["half the rows zero", "60 % of the columns zero", "a few rows of an embedding"])
def test_zero_rows_and_columns_are_left_out_first(name):
    delta = NOISES[name](*SHAPE).float()
    live = delta[(delta != 0).any(dim=1)][:, (delta != 0).any(dim=0)]
    threshold, diagnosis = judged(delta)
    median = float(np.median(torch.linalg.svdvals(live.double()).numpy()))
    shape = tuple(live.shape)
    sigma = sigma_from_median(median, shape)
    assert threshold.sigma == pytest.approx(sigma, rel=1e-6)
    assert threshold.edge == pytest.approx(bulk_edge(sigma, shape), rel=1e-6)
    assert threshold.tau == pytest.approx(optimal_threshold(sigma, shape), rel=1e-6)
    assert threshold.rank == 0
    trimmed = next(flag for flag in diagnosis.flags if flag.check == "trimmed")
    assert trimmed.severity == "info" and str(shape[0]) in trimmed.message


def test_a_merged_lora_is_an_error_and_never_a_silent_identity():
    _, diagnosis = judged(low_rank(*SHAPE))
    assert diagnosis.verdict == "not_applicable"
    first = diagnosis.flags[0]
    assert (first.check, first.severity) == ("low_rank", "error") and "LoRA of rank 16" in first.message
    assert diagnosis.advice


def test_a_merged_lora_stored_in_bfloat16_is_not_called_sound():
    base = (0.02 * noise(*SHAPE, 9)).bfloat16()
    diagnosis = judged_pair(base, (base.double() + 0.1 * low_rank(*SHAPE)).bfloat16())
    assert diagnosis.verdict == "not_applicable" and diagnosis.flags[0].check == "merged_lora"
    assert "LoRA of rank about 16 merged in bfloat16" in diagnosis.reasons[0]


def test_a_frozen_tensor_is_named():
    _, diagnosis = judged(torch.zeros(*SHAPE))
    assert diagnosis.verdict == "no_effect" and "frozen" in diagnosis.flags[0].message


def test_many_strong_directions_are_flagged():
    _, diagnosis = judged(spiked(*SHAPE, 60, 12))
    assert "kept_share" in {flag.check for flag in serious(diagnosis)}


def test_what_was_not_looked_at_is_said():
    spectrum = looked_at(noise(*SHAPE), summary=False)
    diagnosis = diagnose(spectrum, apply_rule(spectrum, "dg_hard", {}))
    assert "unmeasured" in {flag.check for flag in diagnosis.flags}


def test_size_does_not_matter():
    delta = NOISES["rows log-normal .5"](*SHAPE)
    (one, small), (two, large) = judged(delta), judged(1e-6 * delta)
    assert one.rank == two.rank and small.verdict == large.verdict
    assert [flag.check for flag in small.flags] == [flag.check for flag in large.flags]


@pytest.mark.parametrize("name", ["iid", "rows log-normal 1"])
def test_flags_are_complete_and_travel_as_json(name):
    _, diagnosis = judged(NOISES[name](*SHAPE))
    assert diagnosis.verdict in VERDICTS and diagnosis.word == VERDICTS[diagnosis.verdict]
    order = [SEVERITIES.index(flag.severity) for flag in diagnosis.flags]
    assert order == sorted(order, reverse=True)
    for flag in diagnosis.flags:
        assert flag.message.endswith(".") and len(flag.message) > 20
    assert Diagnosis.from_json(json.loads(json.dumps(diagnosis.to_json()))) == diagnosis


def test_every_limit_has_a_reason():
    assert all(limit.reason for limit in LIMITS.values())


def weighed(delta):
    spectrum = looked_at(delta)
    threshold = apply_rule(spectrum, "dg_hard", {})
    diagnosis = diagnose(spectrum, threshold)
    fields = {field.name: None for field in dataclasses.fields(WeighedDiagnosis)}
    known = {"name": "w", "diagnosis": diagnosis, "parameters": delta.numel()}
    known |= {"tower": "", "layer": ()}
    known["energy"] = float(np.sum(spectrum.s**2))
    assert known.keys() >= fields.keys(), fields
    return WeighedDiagnosis(**{name: known[name] for name in fields})


def test_the_verdict_of_a_model_is_that_of_most_of_it():
    sound, lora = weighed(SOUND), weighed(low_rank(*SHAPE))
    frozen = weighed(torch.zeros(*SHAPE))
    assert diagnose_model([sound] * 9).verdict == "applies"
    assert diagnose_model([lora] * 9 + [frozen]).verdict == "not_applicable"
    assert diagnose_model([frozen] * 3).verdict == "no_effect"
    mixed = diagnose_model([sound] * 2 + [lora] * 2)
    assert mixed.verdict != "applies" and mixed.reasons


def named(name, delta):
    path = module_path(name)
    return dataclasses.replace(weighed(delta), name=name, tower=path.tower, layer=path.layer)


def test_layers_left_out_are_named_by_number():
    still, sound = torch.zeros(*SHAPE), SOUND
    layers = [
        named(f"model.layers.{i}.{kind}.weight", sound if i in (2, 3) else still) for i in range(6) for kind in "qv"
    ]
    found = diagnose_model(layers)
    assert found.verdict == "applies"
    assert any(
        "all of layers 0-1, 4-5: frozen, or left out as CoFi-Tune leaves them" in text for text in found.reasons
    )
    some = diagnose_model([named("model.layers.0.q", sound), named("model.layers.0.k", still)])
    assert any("such as model.layers.0.k: frozen, or no target of an adapter" in text for text in some.reasons)


def test_an_embedding_whose_tokens_never_occurred_is_named_for_weight_and_model():
    embedding = named("model.embed_tokens.weight", NOISES["a few rows of an embedding"](*SHAPE))
    assert "other tokens never occurred" in embedding.diagnosis.flags[0].message
    found = diagnose_model([embedding, named("model.layers.0.q", SOUND)])
    assert any("model.embed_tokens.weight" in text and "never occurred" in text for text in found.reasons)


def test_the_rank_that_merged_matrices_share_is_named():
    lora = [named(f"model.layers.{i}.q", low_rank(*SHAPE)) for i in range(4)]
    found = diagnose_model([*lora, named("model.layers.4.q", low_rank(*SHAPE, 8))])
    assert found.verdict == "not_applicable" and "rank 16 in 4 of them" in " ".join(found.reasons)


def test_advice_to_a_model_is_about_weights_and_says_everything_once():
    uneven = [
        named(f"w{i}", NOISES[name](*SHAPE))
        for i, name in enumerate(("rows log-normal 1", "neighbours correlated .5"))
    ]
    lora = [named(f"l{i}", low_rank(*SHAPE)) for i in range(3)]
    found = diagnose_model([*uneven, *lora])
    text = " ".join(found.advice)
    assert "this weight" not in text and "these weights" in text
    assert len({advice.split(":")[0] for advice in found.advice}) == len(found.advice)
    assert text.count("ScreeNOT:") == 1 and "unequal size" in text and "move together" in text
    assert "this weight" in " ".join(lora[0].diagnosis.advice)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("model", [True, False])
def test_every_verdict_leads_with_one_action(verdict, model):
    first, *rest = advise_verdict(verdict, ["near_tau", "kurtosis"], model)
    assert first.endswith(".") and first not in rest
    if model and verdict in ("applies", "care"):
        text = f"{first} {rest[0]}"
        assert all(words in text for words in ("WiSE-FT", averaging_words(), "norm_matched", control_words()))
        assert first.startswith("Average with base") == averaging_leads()


def test_a_rule_that_keeps_more_does_not_stand_beside_one_that_keeps_less():
    assert "bulk edge" in " ".join(advise(["near_tau"], True))
    for check in ("screenot", "row_variance", "kept_share", "autocorrelation"):
        for checks in (["near_tau", check], [check, "near_tau"]):
            text = " ".join(advise(checks, True))
            assert "ScreeNOT" in text and "bulk edge" not in text


SMALL = (0.02 * noise(*SHAPE, 9)).bfloat16()


def stored(update):
    return (SMALL.double() + update).float().bfloat16()


@pytest.mark.parametrize("rank", [4, 16, 48])
@pytest.mark.parametrize("relative", [3e-2, 3e-3])
def test_a_lora_merged_in_bfloat16_is_recognised_with_its_rank(rank, relative):
    diagnosis = judged_pair(SMALL, stored(0.02 * relative * low_rank(*SHAPE, rank) / (1e-3 * rank**0.5)))
    assert diagnosis.verdict == "not_applicable" and diagnosis.flags[0].check == "merged_lora"
    assert diagnosis.flags[0].value == rank and "what lies below is rounding" in diagnosis.reasons[0]


def test_a_lora_both_of_whose_sides_were_rounded_is_recognised():
    start = 0.02 * noise(*SHAPE, 9)
    for relative in (3e-2, 3e-3):
        diagnosis = judged_pair(start.bfloat16(), (start + 0.02 * relative * low_rank(*SHAPE) / 4e-3).bfloat16())
        assert diagnosis.flags[0].check == "merged_lora" and "rounding of both sides" in diagnosis.reasons[0]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("relative", [3e-2, 3e-3, 1e-3])
def test_a_clean_full_update_stored_in_bfloat16_is_no_lora(exponent, relative):
    update = power_law(*SHAPE, exponent)
    diagnosis = judged_pair(SMALL, stored(0.02 * relative * update / update.square().mean().sqrt()))
    assert diagnosis.verdict == "care" and "merged_lora" not in {flag.check for flag in diagnosis.flags}


@pytest.mark.parametrize(
    ("relative", "check"), [(3e-3, "rounding_noise"), (1.2e-3, "rounding_bulk"), (3e-4, "swallowed")]
)
def test_rounding_is_said_the_louder_the_more_it_is(relative, check):
    diagnosis = judged_pair(SMALL, stored(0.02 * relative * noise(*SHAPE, 1)))
    assert check in {flag.check for flag in diagnosis.flags}
    assert (diagnosis.verdict == "applies") == (check == "rounding_noise")


def test_noise_that_rounding_would_put_back_is_flagged_with_what_to_do():
    signal = with_values(*SHAPE, [0.6, 0.5, 0.4])
    diagnosis = judged_pair(SMALL, stored(signal + 8e-5 * noise(*SHAPE, 1)))
    flag = next(flag for flag in diagnosis.flags if flag.check == "rounding_back")
    assert flag.severity == "warn" and flag.value > flag.limit == LIMITS["rounding_back"].value
    assert any("Write the repair in float32" in advice for advice in diagnosis.advice)
    large = judged_pair(SMALL, stored(signal + 3e-3 * noise(*SHAPE, 1)))
    assert "rounding_back" not in {flag.check for flag in large.flags}


def test_strong_directions_do_not_raise_the_checks_of_variance():
    _, diagnosis = judged(spiked(*SHAPE, 5, 12))
    assert diagnosis.verdict == "applies" and not serious(diagnosis)


def test_a_strong_direction_of_one_row_is_flagged():
    delta = noise(*SHAPE)
    delta[7] *= 20
    threshold, diagnosis = judged(delta)
    assert threshold.rank and [flag.check for flag in serious(diagnosis)] == ["concentrated"]


@pytest.mark.parametrize("rule", ["mp_edge", "mp_edge_tw", "screenot"])
def test_other_rules_keep_nothing_of_iid_noise(rule):
    threshold = RULES[rule].apply(np.sort(np.linalg.svd(noise(*SHAPE).numpy(), compute_uv=False))[::-1], SHAPE)
    assert threshold.rank <= (1 if rule == "mp_edge" else 0)


def test_a_diagnosis_is_read_in_a_notebook_whatever_a_name_holds():
    found = Diagnosis("care", ("<b>w</b>: values between edge and tau",), ("Compare with WiSE-FT.",), ())
    assert str(found) == (
        "The rule passes with warnings.\nWhat to do first: Compare with WiSE-FT.\n"
        "Why: <b>w</b>: values between edge and tau"
    )
    shown = found._repr_html_()
    assert "<strong>The rule passes with warnings.</strong>" in shown and "<li>Compare with WiSE-FT.</li>" in shown
    assert "&lt;b&gt;w" in shown and "<b>" not in shown
    assert Diagnosis("applies", (), (), ())._repr_html_() == "<p><strong>The rule passes the checks.</strong></p>"


def messages(diagnosis):
    return {flag.check: flag.message for flag in diagnosis.flags}


def test_what_is_said_of_what_is_kept_is_not_said_where_nothing_is():
    spectrum = looked_at(noise(256, 192))
    summary = spectrum.summary | {"row_variance_cv": 3.0, "kurtosis": 500.0, "row_autocorrelation": 0.9}
    spectrum = dataclasses.replace(spectrum, summary=summary)
    threshold = apply_rule(spectrum, "dg_hard", {})
    assert threshold.rank == 0
    told = messages(diagnose(spectrum, threshold))
    for check in ("row_variance", "autocorrelation", "kurtosis"):
        assert "is kept may be noise" not in told[check] and "are kept" not in told[check]
    kept = messages(diagnose(spectrum, apply_rule(spectrum, "fixed_rank", {"rank": 3})))
    assert "some of what is kept may be noise" in kept["row_variance"] and "which are kept" in kept["kurtosis"]


def test_one_value_is_no_noise_and_equal_values_are_none_either():
    def told(s, shape):
        spectrum = Spectrum(np.array(s, dtype=float), shape, {"route": "", "checks": [], "rejected": []}, {}, "w")
        return {flag.check: flag for flag in diagnose(spectrum, apply_rule(spectrum, "dg_hard", {})).flags}

    one = told([40.0], (1, 64))
    assert one["nothing_kept"].severity == "warn" and "its own median" in one["nothing_kept"].message
    assert one["small"].message.startswith("Only one singular value:")
    equal = told([3.0] * 8, (8, 64))
    assert (
        equal["nothing_kept"].severity == "warn" and "has not the spectrum of noise" in equal["nothing_kept"].message
    )
    assert "whole update has the spectrum of noise" in messages(judged(noise(256, 192))[1])["nothing_kept"]


def test_values_between_edge_and_tau_are_said_to_be_dropped_only_where_they_are():
    s = np.concatenate([np.full(20, 33.6), np.linalg.svd(noise(256, 256).numpy(), compute_uv=False)[20:]])  # edge 32
    spectrum = Spectrum(np.sort(s)[::-1], (256, 256), {"route": "", "checks": [], "rejected": []}, {}, "w")
    for rule, said in (("dg_hard", "edge and tau, where"), ("mp_edge", "edge and DG-Hard's tau, where")):
        found = diagnose(spectrum, apply_rule(spectrum, rule, {}))
        told = messages(found)["near_tau"]
        assert said in told and ("are dropped there" in told) == (rule == "dg_hard")
        assert any("bulk edge" in advice for advice in found.advice) == (rule == "dg_hard")
