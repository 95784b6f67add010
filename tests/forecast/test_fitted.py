"""How fitted scales stand: told of deep language models alone, and only where they are ahead beyond the errors."""

import pytest

from dgviz.forecast import fitted
from dgviz.forecast.fitted import FittedBase, alike, fits_lead, fits_words, lead_of, read_fits
from dgviz.rmt.diagnosis.advice import advise_verdict

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32}


def bases(*ahead, layers=6, architecture="LlamaForCausalLM"):
    name, size = f"{architecture}{layers}", 2_000_000
    ahead = [{"98": 0.0, "95": value, "90": 0.0} for value in ahead]
    return [FittedBase(f"{name}-{at}", architecture, layers, size, 1, 3, own) for at, own in enumerate(ahead)]


def test_a_lead_counts_every_base_once():
    deep, flat = lead_of(bases(4.0, 6.0, 8.0, 10.0)), lead_of(bases(-1.0, 1.0, layers=2))
    assert (deep.bases, deep.better, deep.mean) == (4, 4, 7.0)
    assert deep.stderr == pytest.approx((20 / 3) ** 0.5 / 2)  # sample variance 20/3, four of them
    assert (flat.bases, flat.better, flat.mean) == (2, 1, 0.0)
    assert deep.certain and not flat.certain


@pytest.mark.parametrize(
    ("ahead", "leads"),
    [
        ((5.0, 6.0, 7.0, 8.0), True),
        ((5.0, 6.0, 7.0), False),  # too few to tell
        ((-8.0, 9.0, 1.0, 5.0), False),
        ((12.3, 14.3, 0.3, 0.1, 3.9), False),  # by two standard errors, of five that differ much
        ((), False),
    ],
)
def test_fits_lead_where_they_are_ahead_beyond_the_errors(ahead, leads):
    assert fits_lead(LLAMA, bases(*ahead)) is leads


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["ViTForImageClassification"], "num_hidden_layers": 12},
        {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2},
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": None, "num_hidden_layers": 12},
        {},
    ],
)
def test_other_models_are_not_told_of_them(config):
    known = bases(5.0, 6.0, 7.0, 8.0)
    assert fits_lead(LLAMA, known) and not fits_lead(config, known)


def test_another_architecture_tells_nothing():
    known = bases(5.0, 6.0, 7.0, 8.0) + bases(1.0, -2.0, 1.0, 0.5, architecture="GPT2LMHeadModel")
    gpt2 = {"architectures": ["GPT2LMHeadModel"], "n_layer": 12}
    assert fits_lead(LLAMA, known) and not fits_lead(gpt2, known)
    assert len(alike(gpt2, known)) == 4 and fits_lead(gpt2, bases(5.0, 6.0, 7.0, 8.0, architecture="GPT2LMHeadModel"))


def test_the_words_hold_both_kinds_of_bases():
    words = fits_words(LLAMA, bases(4.0, 6.0, 8.0, -2.0) + bases(-1.0, -3.0, layers=2))
    assert words.startswith("on 3 of 4 bases of this architecture (2 to 2 million parameters) it healed more than")
    assert "by 4.0 ± 2.2 points at 95 %" in words and "on 2 others" in words and "by -2.0 ± 1.0" in words


def test_a_verdict_names_them_first_but_never_for_another_base(monkeypatch):
    monkeypatch.setattr(fitted, "read_fits", lambda: tuple(bases(5.0, 6.0, 7.0, 8.0)))
    first, second, *_ = advise_verdict("care", [], model=True, config=LLAMA)
    assert first == f"Fit scales to texts that both sides write (dgviz fit): {fits_words(LLAMA)}."
    assert second == advise_verdict("care", [], model=True)[0]
    assert advise_verdict("care", [], True, LLAMA | {"num_hidden_layers": 2}) == advise_verdict("care", [], True)
    apart = advise_verdict("not_applicable", ["unrelated"], model=True, config=LLAMA)
    assert apart == advise_verdict("not_applicable", ["unrelated"], model=True) and "base that it" in apart[0]


def test_the_table_of_the_package_is_whole():
    assert len({base.base for base in read_fits()}) == len(read_fits())
    for base in read_fits():
        assert set(base.ahead) == {"98", "95", "90"} and base.pairs > 0 and base.seeds == 3 and base.layers > 0
