"""The metrics of recovery: worked vectors, published aggregates, properties, intervals, and what is said of them."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgviz.cli import main
from dgviz.demo import demo_scores
from dgviz.errors import ScoresError
from dgviz.scores import Score, ScoreTable, choose_scores, parse_scores
from dgviz.scores.recovery import (
    METRICS,
    PAPER_COMBINED,
    PAPER_COUNTS,
    Cell,
    Tolerance,
    assess,
    plan_study,
    read_study,
    recovery_report,
)
from dgviz.scores.recovery.metrics import combine

VECTORS = json.loads((Path(__file__).parents[1] / "rmt" / "theory_vectors.json").read_text())["metrics_inferred"]
TASK = ("task", 0.2, 0.8, 0.76)


def table(*rows, cell="", stderr=None, higher=None):
    """A table of (benchmark, base, tuned, repaired) rows."""
    return ScoreTable(
        tuple(
            Score(model, name, float(value), stderr=stderr, cell=cell, higher_is_better=(higher or {}).get(name))
            for name, *values in rows
            for model, value in zip(("base", "tuned", "repaired"), values, strict=True)
        )
    )


def recover(scores, tolerance=None, study=None, **options):
    study = {"base": "base", "tuned": "tuned", "on_task": "task"} | (study or {})
    options = {"replicates": 0} | options
    return assess(plan_study(scores, **study), choose_scores(scores), tolerance or Tolerance(), **options)


def value(recovery, name, label="repaired"):
    return recovery.repaired[label].metrics[name].value


class TestVectors:
    @pytest.mark.parametrize("name", ["healed", "healed_overshoot"])
    def test_healed(self, name):
        v = VECTORS[name]
        found = recover(table(("b", v["base"], v["tuned"], v["repaired"]), TASK))
        assert value(found, "healed") == pytest.approx(v["percent"], abs=1e-9)
        assert value(found, "preserved") is None

    @pytest.mark.parametrize("name", ["preserved", "preserved_negative"])
    def test_preserved(self, name):
        v = VECTORS[name]
        found = recover(table(("b", v["base"], v["tuned"], v["repaired"]), TASK))
        assert value(found, "preserved") == pytest.approx(v["percent"], abs=1e-9)

    def test_on_task(self):
        v = VECTORS["on_task"]
        found = recover(table(("b", 0.5, 0.4, 0.45), ("task", 0.1, v["tuned"], v["repaired"])))
        assert value(found, "on_task_retention") == pytest.approx(v["percent"], abs=1e-9)

    def test_harmonic_mean(self):
        v = VECTORS["hm"]
        assert float(combine(np.float64(v["a"]), np.float64(v["b"]))) == pytest.approx(v["hm"], abs=1e-9)
        for side in (0.0, -20.0):
            assert float(combine(np.float64(side), np.float64(90))) == 0.0

    def test_every_metric_by_hand(self):
        found = recover(
            table(
                ("damaged", 0.6, 0.5, 0.58),  # 80 healed
                ("damaged too", 0.8, 0.6, 0.62),  # 10 healed
                ("improved", 0.5, 0.6, 0.57),  # 70 preserved
                ("unchanged", 0.5, 0.505, 0.49),  # 98 non-damage
                TASK,  # 95
            )
        )
        healed, preserved, non_damage, on_task = 45.0, 70.0, 98.0, 95.0
        hm = lambda a, b: 2 * a * b / (a + b)  # noqa: E731
        ratios = [100 * r / b for b, r in ((0.6, 0.58), (0.8, 0.62), (0.5, 0.57), (0.5, 0.49))]
        expected = {
            "healed": (healed, 2),
            "preserved": (preserved, 1),
            "non_damage": (non_damage, 1),
            "on_task_retention": (on_task, 1),
            "clean_up": (hm(healed, non_damage), 3),
            "retention": (hm(preserved, on_task), 2),
            "combined_population": (hm(hm(healed, non_damage), hm(preserved, on_task)), 5),
            "combined_cell": (hm(healed, preserved), 1),
            "balance": (hm(np.mean(ratios), on_task), 5),
        }
        metrics = found.repaired["repaired"].metrics
        assert {name: (pytest.approx(v, abs=1e-9), n) for name, (v, n) in expected.items()} == {
            name: (item.value, item.n) for name, item in metrics.items()
        }
        assert found.counts() == {"damaged": 2, "improved": 1, "unchanged": 1}
        pooled = recover(
            table(("a", 0.6, 0.5, 0.58), ("b", 0.8, 0.6, 0.62), TASK), average="pooled", combination="geometric"
        )
        assert value(pooled, "healed") == pytest.approx(100 * 0.10 / 0.30)
        assert value(pooled, "combined_population") == pytest.approx(math.sqrt(100 / 3 * 95))


class TestPaper:
    def test_the_figures_shown_are_those_of_the_theory(self):
        assert PAPER_COMBINED["DG-Hard"] == {"all": 83.3, "Knowledge": 84.8, "Cognition": 82.1}
        assert PAPER_COMBINED["WiSE-FT"] == {"all": 76.4, "Cognition": 66.8}

    def test_the_parts_make_the_population(self):
        # 14 cells of 9 held-out benchmarks each.
        assert sum(PAPER_COUNTS.values()) == 126 == 14 * 9

    def test_a_population_of_that_make_is_counted_so(self):
        parts = ["damaged"] * 30 + ["improved"] * 55 + ["unchanged"] * 41
        change = {"damaged": -0.1, "improved": 0.1, "unchanged": 0.0}
        rows = []
        for number, part in enumerate(parts):
            cell, benchmark = f"cell {number // 9}", f"benchmark {number % 9}"
            rows += [
                Score("base", benchmark, 0.5, cell=cell),
                Score("tuned", benchmark, 0.5 + change[part], cell=cell),
                Score("dg_hard", benchmark, 0.5, cell=cell),
            ]
        for cell in range(14):
            rows += [
                Score(m, "task", v, cell=f"cell {cell}") for m, v in (("base", 0.1), ("tuned", 0.8), ("dg_hard", 0.8))
            ]
        found = recover(ScoreTable(tuple(rows)), replicates=50)
        assert found.counts() == PAPER_COUNTS
        metrics = found.repaired["dg_hard"].metrics
        assert metrics["healed"].value == 100 and metrics["healed"].n == 30
        assert metrics["on_task_retention"].n == 14 and metrics["combined_cell"].n == 14


scores = st.floats(0.05, 0.95)
rows = st.lists(st.tuples(scores, scores, scores), min_size=1, max_size=8).map(
    lambda found: [(f"b{number}", *values) for number, values in enumerate(found)]
)


class TestProperties:
    @given(rows)
    def test_reverting_and_keeping(self, rows):
        found = recover(table(*rows, TASK))
        reverted, kept = found.controls["revert to base"].metrics, found.controls["keep tuned"].metrics
        counts = found.counts()
        if counts["damaged"]:
            assert reverted["healed"].value == pytest.approx(100) and kept["healed"].value == pytest.approx(0)
            assert kept["combined_population"].value == 0
        if counts["improved"]:
            assert reverted["preserved"].value == pytest.approx(0) and kept["preserved"].value == pytest.approx(100)
            assert reverted["combined_population"].value == 0
        if counts["unchanged"]:
            assert reverted["non_damage"].value == pytest.approx(100)
        assert kept["on_task_retention"].value == pytest.approx(100)

    @given(rows, st.randoms())
    def test_order_does_not_matter(self, rows, random):
        shuffled = [*rows, TASK]
        random.shuffle(shuffled)
        a, b = recover(table(*rows, TASK)), recover(table(*shuffled))
        for name in METRICS:
            assert value(a, name) == (None if value(b, name) is None else pytest.approx(value(b, name)))

    @given(rows, st.floats(0.01, 1000))
    def test_the_unit_does_not_matter(self, rows, scale):
        scaled = [(name, *(v * scale for v in values)) for name, *values in (*rows, TASK)]
        a, b = recover(table(*rows, TASK)), recover(table(*scaled), Tolerance(0.01 * scale))
        if a.counts() == b.counts():  # rounding may move a change across the tolerance
            for name in METRICS:
                assert value(a, name) == (None if value(b, name) is None else pytest.approx(value(b, name), rel=1e-6))

    @given(rows, st.integers(0, 7), st.floats(0.001, 0.5))
    def test_a_better_score_never_lowers_a_metric(self, rows, which, more):
        better = list(rows)
        name, base, tuned, repaired = better[which % len(rows)]
        better[which % len(rows)] = (name, base, tuned, repaired + more)
        a, b = recover(table(*rows, TASK)), recover(table(*better, TASK))
        for metric in METRICS:
            if value(a, metric) is not None:
                assert value(b, metric) >= value(a, metric) - 1e-9

    @given(rows)
    def test_turning_the_direction_over_keeps_differences(self, rows):
        turned = {name: False for name, *_ in rows}
        a = recover(table(*rows, TASK))
        b = recover(table(*((n, -x, -y, -z) for n, x, y, z in rows), TASK, higher=turned))
        assert a.counts() == b.counts()
        for metric in ("healed", "preserved", "combined_cell"):
            assert value(a, metric) == (None if value(b, metric) is None else pytest.approx(value(b, metric)))


class TestParts:
    def test_the_tolerance_is_inclusive_and_survives_decimals(self):
        rows = [("a", 0.6, 0.59, 0.6), ("b", 0.3, 0.31, 0.3), ("c", 0.6, 0.58, 0.6), TASK]
        found = recover(table(*rows), Tolerance(0.01))
        assert found.counts() == {"damaged": 1, "improved": 0, "unchanged": 2}
        assert recover(table(*rows), Tolerance(0.0)).counts()["unchanged"] == 0

    def test_standard_errors_widen_it(self):
        scores = table(("a", 0.6, 0.55, 0.6), TASK, stderr=0.02)  # 1.77 standard errors of the difference
        assert recover(scores).counts()["unchanged"] == 1
        assert recover(scores, Tolerance(0.01, z=1.0)).counts()["damaged"] == 1
        assert recover(scores).comparisons[0].limit == pytest.approx(1.96 * 0.02 * math.sqrt(2))

    def test_one_benchmark_may_have_its_own(self):
        scores = table(("ppl", 12.0, 12.4, 12.1), ("a", 0.6, 0.5, 0.6), TASK, higher={"ppl": False})
        found = recover(scores, Tolerance(0.01, {"ppl": 0.5}))
        assert [item.part for item in found.comparisons] == ["unchanged", "damaged", "on_task"]
        with pytest.raises(ScoresError, match="no benchmark 'x' to give a tolerance; there are"):
            recover(scores, Tolerance(0.01, {"x": 0.5}))
        with pytest.raises(ScoresError, match="tolerance z is -1"):
            Tolerance(z=-1)

    def test_lower_is_better(self):
        scores = table(("ppl", 10.0, 14.0, 11.0), TASK)
        assert recover(scores).counts()["improved"] == 1
        found = recover(scores, study={"lower_is_better": ["ppl"]})
        assert found.counts()["damaged"] == 1
        assert value(found, "healed") == pytest.approx(75)
        assert value(found, "balance") == pytest.approx(float(combine(np.float64(1000 / 11), np.float64(95))))
        assert any("lower is better of ppl: differences change their sign" in note for note in found.notes)
        assert any("ppl is no share of 1" in note for note in found.notes)

    def test_sensitivity_covers_the_tolerance(self):
        found = recover(table(("a", 0.6, 0.585, 0.6), ("b", 0.6, 0.5, 0.55), TASK, stderr=0.001))
        rows = found.sensitivity("repaired")
        assert [(row["tolerance"], row["z"]) for row in rows] == [
            (factor * 0.01, z) for z in (1.96, 0.0) for factor in (0, 0.5, 1, 2, 4)
        ]
        assert [row["damaged"] for row in rows] == [2, 2, 2, 1, 1] * 2
        assert [row["healed"] for row in rows[2:4]] == [pytest.approx(75), pytest.approx(50)]

    def test_by_size_of_change(self):
        found = recover(table(("a", 0.5, 0.48, 0.49), ("b", 0.5, 0.46, 0.5), ("c", 0.5, 0.2, 0.2), TASK))
        sizes = found.repaired["repaired"].sizes
        assert [(i.percent_of_base, i.n) for i in sizes] == [("up to 5 %", 1), ("5 to 10 %", 1), ("over 50 %", 1)]
        assert [item.percent for item in sizes] == [pytest.approx(v) for v in (50, 100, 0)]
        assert sizes[0].mean_change == pytest.approx(-0.02)


class TestSaid:
    def test_empty_parts(self):
        found = recover(table(("b", 0.6, 0.5, 0.58), TASK))
        metrics = found.repaired["repaired"].metrics
        assert metrics["preserved"].value is None and metrics["preserved"].n == 0
        assert metrics["clean_up"].value == metrics["healed"].value  # the empty side is left out
        assert metrics["retention"].value == metrics["on_task_retention"].value
        assert metrics["combined_cell"].value == pytest.approx(2 * 80 * 100 / 180)  # the empty side counts 100
        notes = found.repaired["repaired"].notes
        assert any(note.startswith("no held-out benchmark is improved") and "100" in note for note in notes)
        assert "no held-out benchmark is unchanged: Clean-up is % healed alone" in notes

    def test_small_denominators(self):
        notes = recover(table(("b", 0.6, 0.585, 0.7), TASK)).repaired["repaired"].notes
        assert any("b in cell tuned: its percentage divides by a change of only -0.015" in note for note in notes)

    def test_ratios_that_mean_nothing(self):
        found = recover(table(("b", 0.0, 0.0, 0.0), ("c", 0.5, 0.5, 0.5), TASK))
        assert found.repaired["repaired"].metrics["non_damage"].n == 1
        assert any("a ratio of 0 to 0 means nothing" in note for note in found.repaired["repaired"].notes)

    def test_missing_scores_are_listed(self):
        rows = [Score("base", "b", 0.6), Score("tuned", "b", 0.5), Score("x", "b", 0.55), Score("base", "c", 0.6)]
        rows += [Score("y", "c", 0.5)]
        found = recover(ScoreTable(tuple(rows)), study={"on_task": ""})
        assert set(found.missing) == {"y on b", "tuned on c", "x on c"}
        assert any("no benchmark is called on-task" in note for note in found.notes)

    @pytest.mark.parametrize(
        ("study", "words"),
        [
            ({"base": "nope"}, "base model 'nope' has no scores; there are base, tuned, repaired"),
            ({"on_task": "nope"}, "on-task benchmark 'nope' has no scores"),
            ({"base": "tuned"}, "base and tuned are both 'tuned'"),
            ({"tuned": ""}, "name it with --tuned"),
            ({"base": ""}, "name it with --base"),
            ({"repaired": ["nope"]}, "nope model 'nope' has no scores"),
            ({"cohorts": {"K": ["nope"]}}, "cohort K: benchmark or cell 'nope' has no scores"),
            ({"lower_is_better": ["nope"]}, "lower is better: benchmark 'nope' has no scores"),
        ],
    )
    def test_wrong_names(self, study, words):
        with pytest.raises(ScoresError) as caught:
            recover(table(("b", 0.6, 0.5, 0.58), TASK), study=study)
        assert words in str(caught.value)

    def test_nothing_to_compare(self):
        with pytest.raises(ScoresError, match="no benchmark beside the on-task one has a score of both"):
            recover(table(TASK))
        with pytest.raises(ScoresError, match="no repaired model has scores"):
            recover(parse_scores(b"model,benchmark,score\nbase,b,1\ntuned,b,2\nbase,task,1\n", "s.csv"))

    def test_ambiguous_metrics_are_asked_for(self):
        rows = [Score(m, "b", 0.5, metric=metric) for m in ("base", "tuned", "x") for metric in ("em,a", "em,b")]
        with pytest.raises(ScoresError, match="b has em,a, em,b; name it with --metric BENCHMARK=METRIC"):
            recover(ScoreTable(tuple(rows)), study={"on_task": ""})


class TestIntervals:
    SCORES = table(*((f"b{n}", 0.6, 0.4 + n / 100, 0.5 + n / 200) for n in range(6)), TASK, stderr=0.01)

    def test_they_contain_the_value_and_repeat(self):
        found = recover(self.SCORES, replicates=400).repaired["repaired"].metrics
        again = recover(self.SCORES, replicates=400).repaired["repaired"].metrics
        other = recover(self.SCORES, replicates=400, seed=1).repaired["repaired"].metrics
        assert found == again and found != other
        for name in ("healed", "on_task_retention", "combined_population", "balance"):
            low, high = found[name].interval
            assert low < found[name].value < high

    def test_against_a_plain_bootstrap(self):
        """Without standard errors and with one cell it is the ordinary bootstrap of a mean."""
        percents = np.array([10.0, 40.0, 55.0, 80.0, 90.0])
        scores = table(*((f"b{n}", 0.6, 0.5, 0.5 + p / 1000) for n, p in enumerate(percents)), TASK)
        low, high = recover(scores, replicates=4000).repaired["repaired"].metrics["healed"].interval
        draws = np.random.default_rng(3).choice(percents, size=(40000, 5)).mean(axis=1)
        assert [low, high] == pytest.approx(list(np.quantile(draws, [0.025, 0.975])), abs=2.0)

    def test_a_lone_score_without_error_has_none(self):
        found = recover(table(("b", 0.6, 0.5, 0.58), TASK), replicates=50).repaired["repaired"].metrics
        assert found["healed"].interval is None and found["healed"].value is not None

    def test_cells_are_drawn_whole(self):
        """Two cells of identical benchmarks: only drawing cells makes the mean vary."""
        rows = table(*((f"b{n}", 0.6, 0.5, 0.6) for n in range(3)), TASK, cell="one").scores
        rows += table(*((f"b{n}", 0.6, 0.5, 0.5) for n in range(3)), TASK, cell="two").scores
        metric = recover(ScoreTable(rows), replicates=400).repaired["repaired"].metrics["healed"]
        assert metric.value == pytest.approx(50) and metric.interval == (pytest.approx(0), pytest.approx(100))


class TestCells:
    def test_cells_by_column(self):
        first = table(("b", 0.6, 0.5, 0.58), ("task", 0.2, 0.8, 0.8), ("maths", 0.5, 0.4, 0.4), cell="one").scores
        second = table(("b", 0.6, 0.5, 0.52), ("task", 0.8, 0.6, 0.8), ("maths", 0.3, 0.6, 0.3), cell="two").scores
        found = recover(ScoreTable(first + second), study={"on_task": {"one": "task", "two": "maths"}})
        assert [(item.cell, item.benchmark) for item in found.comparisons if item.on_task] == [
            ("one", "task"),
            ("two", "maths"),
        ]
        assert value(found, "on_task_retention") == pytest.approx((100 + 50) / 2)
        cells = found.repaired["repaired"].cells
        assert cells["one"] == pytest.approx(2 * 40 * 100 / 140)
        assert value(found, "combined_cell") == pytest.approx(np.mean(list(cells.values())))

    def test_cells_of_the_demo_come_from_its_roles(self):
        content = json.dumps(demo_scores()).encode()
        scores = parse_scores(content, "scores.json")
        study = plan_study(scores)
        assert [(cell.name, cell.base, cell.on_task) for cell in study.cells] == [
            ("clean", "base", "target"),
            ("noisy", "base", "target"),
        ]
        assert {"dg_hard", "wise_ft_0.5"} <= set(study.labels())
        one = plan_study(scores, base="base", tuned="noisy", on_task="target")
        assert [cell.name for cell in one.cells] == ["noisy"]
        assert "noisy/dg_hard" in one.cells[0].repaired.values() and "clean" not in one.cells[0].repaired.values()

    def test_a_study_file(self, tmp_path):
        path = tmp_path / "study.json"
        cell = {"name": "c", "base": "base", "tuned": "tuned", "on_task": "task", "repaired": {"dg_hard": "repaired"}}
        path.write_text(json.dumps({"cells": [cell], "cohorts": {"K": ["b"]}, "lower_is_better": ["b"]}))
        said = read_study(path)
        assert said["cells"] == [Cell(**cell)]
        scores = table(("b", 0.6, 0.7, 0.62), TASK)
        found = assess(plan_study(scores, **said), choose_scores(scores), replicates=0)
        assert value(found, "healed", "dg_hard") == pytest.approx(80)
        assert found.repaired["dg_hard"].cohorts["K"]["healed"].n == 1

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("[", "cannot be read as JSON"),
            ([], "is no study: it may hold cells, cohorts, lower_is_better"),
            ({"other": 1}, "is no study"),
            ({"cells": {}}, "cells is no list"),
            ({"cells": [{"name": "c"}]}, "cells[0] needs name, base and tuned"),
            ({"cells": [{"name": "c", "base": "b", "tuned": "t", "repaired": []}]}, "repaired is no object"),
            ({"cohorts": {"K": "b"}}, "cohort K is no list"),
        ],
    )
    def test_complaints_about_a_study(self, tmp_path, content, words):
        path = tmp_path / "study.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(ScoresError) as caught:
            read_study(path)
        assert words in str(caught.value)

    def test_cohorts_of_cells_and_benchmarks(self):
        cells = [
            table(("b", 0.6, 0.5, r), ("c", 0.6, 0.5, 0.5), TASK, cell=c).scores for c, r in (("x", 0.6), ("y", 0.5))
        ]
        study = {"cohorts": {"only b": ["b"], "only x": ["x"], "both": ["b", "y"]}}
        cohorts = recover(ScoreTable(tuple(itertools.chain(*cells))), study=study).repaired["repaired"].cohorts
        assert {name: (m["healed"].value, m["healed"].n) for name, m in cohorts.items()} == {
            "only b": (pytest.approx(50), 2),
            "only x": (pytest.approx(50), 2),
            "both": (pytest.approx(0), 1),
        }
        assert [m["on_task_retention"].n for m in cohorts.values()] == [2, 1, 1]


class TestCommand:
    CSV = "model,benchmark,score,stderr\n" + "".join(
        f"{model},{name},{v},0.01\n"
        for name, *values in (("b", 0.6, 0.5, 0.58), ("c", 0.5, 0.6, 0.57), TASK)
        for model, v in zip(("base", "tuned", "fixed"), values, strict=True)
    )

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "scores.csv"
        path.write_text(self.CSV)
        return path

    def run(self, capsys, *arguments):
        status = main(["recovery", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    def test_json(self, capsys, path):
        status, out, _ = self.run(
            capsys, path, "--base", "base", "--tuned", "tuned", "--on-task", "task", "--bootstrap", 100, "--json"
        )
        found = json.loads(out)
        assert status == 0
        fixed = found["repaired"]["fixed"]
        for name in METRICS:
            assert {"value", "n", "interval", "definition"} <= fixed[name].keys()
        assert fixed["healed"]["value"] == pytest.approx(80) and fixed["healed"]["n"] == 1
        assert fixed["preserved"]["value"] == pytest.approx(70)
        low, high = fixed["healed"]["interval"]
        assert low < 80 < high
        assert found["counts"] == {"damaged": 1, "improved": 1, "unchanged": 0}
        assert found["benchmarks"][0]["repaired"]["fixed"]["change_from_tuned"] == pytest.approx(0.08)
        assert "drawn anew from a normal distribution" in found["bootstrap"]["resampled"]
        assert found["controls"]["revert to base"]["healed"]["value"] == pytest.approx(100)

    def test_text(self, capsys, path):
        status, out, err = self.run(
            capsys, path, "--base", "base", "--tuned", "tuned", "--on-task", "task", "--tolerance", "0.2",
            "--tolerance", "b=0.02", "--cohort", "K=b,c", "--bootstrap", 20,
        )  # fmt: skip
        assert status == 0
        assert "1 damaged, 0 improved, 1 unchanged" in out and "0.2, 0.02 on b in units of the score" in out
        assert "revert to base" in out and "is improved: there is no side gain" in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--tolerance", "x"], "--tolerance takes a number or BENCHMARK=NUMBER; got 'x'"),
            (["--cohort", "K"], "--cohort takes NAME=VALUE; got 'K'"),
            (["--average", "median"], "no average 'median'"),
            (["--bootstrap", "-1"], "neither may be negative"),
            (["--metric", "b=acc"], "b has no metric 'acc'"),
        ],
    )
    def test_complaints(self, capsys, path, arguments, words):
        status, out, err = self.run(capsys, path, "--base", "base", "--tuned", "tuned", *arguments)
        assert status == 2 and out == "" and words in err and err.count("\n") == 1

    def test_the_report_is_plain_json(self):
        found = recover(table(("b", 0.6, 0.5, 0.58), TASK), replicates=20)
        json.dumps(recovery_report(found), allow_nan=False)
