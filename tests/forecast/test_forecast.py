"""The forecast: a monotone fit whose intervals hold what they say, and no number where none is known."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from dgviz.forecast import CalibratedPair, Calibration, UpdateShare, calibration, foretell, read_pairs, stand
from dgviz.forecast.fit import fit_monotone, leave_one_out
from dgviz.forecast.foretell import rank_correlation
from dgviz.forecast.report import BAND_TITLES, FIT_TITLES, PAIR_TITLES, band_rows, fit_rows, pair_rows
from dgviz.forecast.words import averaging_leads, averaging_words, control_words

FAMILIES = ("image classifiers", "language models", "encoders", "merged adapters")
CONFIG = {"architectures": ["LlamaForCausalLM"]}


def value(number, stderr=1.0):
    return {"value": number, "stderr": stderr}


def made_pair(index, dropped, healed, kept, family, ahead=5.0, damage=20.0):
    """A row as a calibration writes it."""
    both = {"healed": value(healed), "target_kept": value(kept)}
    averaged = {"healed": value(healed + ahead), "target_kept": value(kept + 0.5)}
    return CalibratedPair.from_json(
        {
            "name": f"pair-{index}",
            "family": family,
            "architecture": "made",
            "recipe": "made",
            "seed": 0,
            "parameters": 400_000,
            "largest": [256, 128],
            "dropped": dropped,
            "damage": value(damage),
            "gain": value(30.0),
            "dg_hard": both,
            "wise_ft": {**averaged, "alpha": 0.8, "ahead": value(ahead)},
            "norm_matched": {**averaged, "ahead": value(ahead), "ahead_target": value(0.5)},
        }
    )


def made_pairs(count=96, spread=3.0, shift=0.0, seed=4, **more):
    """Pairs that heal half of what they drop; the last family by `shift` more."""
    draws, pairs = np.random.default_rng(seed), []
    for index in range(count):
        family = FAMILIES[index % 4]
        dropped = float(draws.uniform(0, 95))
        healed = 0.5 * dropped + float(draws.normal(0, spread)) + shift * (family == FAMILIES[3])
        kept = 100 - 0.2 * dropped + float(draws.normal(0, spread))
        pairs.append(made_pair(index, dropped, healed, kept, family, **more))
    return tuple(pairs)


MADE = Calibration(made_pairs())


def told(dropped, measured=MADE, parameters=500_000, config=CONFIG, calibrated=True):
    return foretell([UpdateShare(100.0, dropped, calibrated)], parameters, config, measured)


class TestFit:
    @pytest.mark.parametrize("increasing", [True, False])
    def test_it_is_monotone_and_near_the_truth(self, increasing):
        draws = np.random.default_rng(1)
        x = draws.uniform(0, 100, 80)
        y = (x if increasing else 100 - x) + draws.normal(0, 4, 80)
        fit = fit_monotone(x, y, np.ones(80), [FAMILIES[i % 4] for i in range(80)], increasing)
        steps = np.diff(fit.predict(np.linspace(-10, 110, 500)))
        assert np.all(steps >= -1e-9 if increasing else steps <= 1e-9)
        assert abs(fit.predict(50.0) - 50) < 8
        low, high = fit.interval(50.0)
        assert low < fit.predict(50.0) < high and 4 < high - low < 25

    def test_a_point_without_certainty_weighs_little(self):
        x, y = np.arange(20.0), np.arange(20.0)
        y[10] = 500.0
        stderr = np.ones(20)
        stderr[10] = 1000.0
        fit = fit_monotone(x, y, stderr, [FAMILIES[i % 4] for i in range(20)], True)
        assert abs(fit.predict(12.0) - 12) < 60 < abs(float(np.mean(y[10:])) - 12) + 30

    def test_equal_places_are_one(self):
        fit = fit_monotone([1.0, 1.0, 2.0, 2.0], [0.0, 2.0, 3.0, 5.0], np.ones(4), list(FAMILIES), True)
        assert fit.x.tolist() == [1.0, 2.0] and fit.y.tolist() == pytest.approx([1.0, 4.0])

    def test_intervals_cover_families_alike_and_miss_one_that_is_not(self):
        def covered(shift):
            pairs = made_pairs(120, shift=shift)
            given = [pair.dropped for pair in pairs], [pair.dg_hard.healed.value for pair in pairs]
            found = leave_one_out(*given, np.ones(len(pairs)), [pair.family for pair in pairs], True)
            return {left.family: left for left in found}

        alike = covered(0.0)
        assert set(alike) == set(FAMILIES) and all(left.pairs == 30 for left in alike.values())
        assert all(left.covered >= 0.65 and left.error < 6 for left in alike.values())
        assert covered(60.0)[FAMILIES[3]].covered < 0.2

    def test_rank_correlation_is_spearmans(self):
        draws = np.random.default_rng(2)
        x, y = draws.integers(0, 6, 40), draws.integers(0, 6, 40)
        assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)


class TestForecast:
    def test_a_number_has_a_range_and_says_what_it_is_made_from(self):
        found = told(60.0)
        assert found.reason is None and found.dropped == 60.0
        assert abs(found.healed.value - 30) < 6 and abs(found.target_kept.value - 88) < 6
        for outcome in (found.healed, found.target_kept):
            assert outcome.low < outcome.value < outcome.high
        assert "96 pairs, 4 families" in found.sentence and "80 % ranges" in found.sentence

    def test_more_dropped_heals_no_less_and_keeps_no_more(self):
        several = [told(float(dropped)) for dropped in range(0, 101, 10)]
        healed, kept = ([getattr(f, name).value for f in several] for name in ("healed", "target_kept"))
        assert healed == sorted(healed) and kept == sorted(kept, reverse=True)

    def test_json_has_the_names_that_scripts_look_for(self):
        values = json.loads(json.dumps(told(60.0).to_json()))
        assert values["healed"].keys() == values["target_kept"].keys() == {"value", "low", "high"}
        assert values["reason"] is None
        without = json.loads(json.dumps(told(60.0, parameters=10**9).to_json()))
        assert without["healed"] is without["target_kept"] is None and without["reason"]

    @pytest.mark.parametrize(
        ("dropped", "words"),
        [
            (4.9, "almost nothing changes"),
            (50.0, "part of what was learned goes"),
            (80.1, "much of what was learned"),
        ],
    )
    def test_the_direction_is_said_in_words(self, dropped, words):
        assert words in told(dropped).sentence and words in told(dropped, parameters=10**9).sentence

    def test_a_far_larger_model_gets_no_number(self):
        found = told(60.0, parameters=1_200_000_000)
        assert found.healed is None and "from models 3,000 times smaller" in found.reason

    @pytest.mark.parametrize("config", [{}, {"architectures": ["WhisperForConditionalGeneration"]}])
    def test_nor_does_one_of_another_kind(self, config):
        found = told(60.0, config=config)
        assert found.healed is None and "encoders" in found.reason

    def test_nor_a_plan_that_is_not_mostly_dg_hard(self):
        updates = [UpdateShare(30.0, 10.0, False), UpdateShare(70.0, 10.0, True)]
        found = foretell(updates, 500_000, CONFIG, MADE)
        assert found.healed is None and "for 70 % of the update's energy only" in found.reason
        assert found.dropped == 20.0
        few = [UpdateShare(5.0, 5.0, False), UpdateShare(95.0, 55.0, True)]
        assert foretell(few, 500_000, CONFIG, MADE).healed is not None

    def test_nor_an_update_that_is_zero(self):
        found = foretell([UpdateShare(0.0, 0.0, True)], 500_000, CONFIG, MADE)
        assert found.dropped is None and "changed no matrix" in found.reason

    def test_a_family_that_the_others_do_not_foretell_takes_the_number_away(self):
        found = told(60.0, Calibration(made_pairs(shift=60.0)))
        assert (
            found.healed is None
            and "merged adapters" in found.reason
            and "range of healing held only" in found.reason
        )
        assert found.target_kept is not None and "No number for healing" in found.sentence

    def test_few_pairs_give_no_number(self):
        found = told(60.0, Calibration(made_pairs(20)))
        assert found.healed is None and "20 pairs of 4 families were measured" in found.reason

    def test_pairs_without_certain_damage_are_listed_and_not_fitted(self):
        measured = Calibration((*made_pairs(), made_pair(99, 50.0, 900.0, 100.0, FAMILIES[0], damage=1.9)))
        assert len(measured.pairs) == 97 and len(measured.counted) == 96
        assert told(50.0, measured).healed == told(50.0).healed
        assert pair_rows(measured.pairs)[-1][0] == "pair-99 (left out)"


def test_every_counted_pair_is_in_one_band():
    rows = band_rows(MADE)
    assert sum(int(row[1]) for row in rows) == 96 and rows[0][0] == "0 to 5 %"
    assert all(len(row) == len(BAND_TITLES) for row in rows)


class TestStanding:
    def test_the_better_method_leads(self):
        pairs = made_pairs()
        found = stand(pairs, "wise_ft")
        assert (found.pairs, found.ahead, found.behind, found.certain, found.both) == (96, 96, 0, 96, 96)
        assert found.mean == pytest.approx(5.0) and found.better
        assert averaging_leads(Calibration(pairs)) and "on all 96 pairs" in averaging_words(Calibration(pairs))
        worse = Calibration(made_pairs(ahead=-5.0))
        assert not averaging_leads(worse) and "points less" in averaging_words(worse)
        assert "on 0 of the 96 pairs" in control_words(worse) and "less on 96" in control_words(worse)

    def test_mean_and_error_are_over_pairs(self):
        pairs = [made_pair(i, 50.0, 10.0, 90.0, FAMILIES[0], ahead=a) for i, a in enumerate((1.0, 2.0, 6.0))]
        found = stand(pairs, "wise_ft")
        assert found.mean == pytest.approx(3.0)
        assert found.stderr == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))


class TestPackagedTable:
    def test_its_rows_are_as_described(self):
        pairs = read_pairs()
        assert len({pair.name for pair in pairs}) == len(pairs)
        for pair in pairs:
            assert -1e-9 <= pair.dropped <= 100 and pair.parameters > 0 and min(pair.largest) >= 64
            for found in (pair.damage, pair.gain, pair.dg_hard.healed, pair.dg_hard.target_kept):
                assert (found.stderr is None) == (found.value is None)
        assert all(len(row) == len(PAIR_TITLES) for row in pair_rows(pairs))
        assert all(len(row) == len(FIT_TITLES) for row in fit_rows(calibration()))

    def test_a_number_ships_only_where_every_left_out_family_is_covered(self):
        measured = calibration()
        found = told(50.0, measured)
        for name, outcome in measured.outcomes.items():
            covered = all(left.covered >= 0.7 for left in outcome.left_out) and len(outcome.left_out) >= 4
            assert (getattr(found, name) is not None) == (covered and len(measured.counted) >= 30)
