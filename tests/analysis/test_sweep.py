"""Methods at every strength: the plans of a sweep, its figures against the ends that are known, the chart."""

import json

import numpy as np
import pytest

from dgviz import cli
from dgviz.analysis.sweep import find_standing, read_sweep, standing_words, sweep_lines, sweep_plans
from dgviz.checkpoint import open_pair
from dgviz.demo import read_frontier
from dgviz.errors import MethodError, ScoresError
from dgviz.export.passing import iter_written
from dgviz.export.plan import plan_export
from dgviz.export.write import iter_export
from dgviz.figures import frontier_plot
from dgviz.figures.style import ACCENT, MUTED
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan, read_plan
from tests.checkpoints import write_pair


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), config={"name": "synthetic"})


class TestLines:
    def test_every_method_has_a_first_strength_with_its_points(self):
        lines = sweep_lines([RepairPlan(method=name) for name in METHODS])
        assert [line.method for line in lines] == list(METHODS)
        for line in lines:
            strength = METHODS[line.method].strengths[0]
            assert line.parameter == strength.parameter and line.control == METHODS[line.method].control
            assert [value for value, _ in line.points] == list(strength.points)
            for value, plan in line.points:
                assert {**plan.params, **plan.method_params}[line.parameter] == value

    def test_the_rest_of_a_plan_stays(self):
        (line,) = sweep_lines([read_plan("dg_hard:shrinker=frobenius", include="h", dtype="float32")], "alpha")
        assert line.label == "dg_hard:shrinker=frobenius, alpha"
        assert {(plan.shrinker, plan.include, plan.dtype) for _, plan in line.points} == {
            ("frobenius", "h", "float32")
        }

    def test_lines_that_meet_are_planned_once(self):
        lines = sweep_lines([RepairPlan()], every=True)
        assert [line.parameter for line in lines] == ["scale", "alpha"]
        labels = [plan.label for plan in sweep_plans(lines)]
        assert len(labels) == len(set(labels)) == sum(len(line.points) for line in lines) - 1
        assert labels.count("dg_hard") == 1

    def test_complaints(self):
        with pytest.raises(MethodError, match="dg_hard is swept over scale or alpha, not over 'p'"):
            sweep_lines([RepairPlan()], "p")
        with pytest.raises(MethodError, match="swept over scale of its rule, and rule energy has none"):
            sweep_lines([read_plan("dg_hard:rule=energy")])


def test_a_checkpoint_lies_there_while_it_is_looked_at(paths, tmp_path):
    pair = open_pair(*paths)
    plans = [read_plan(f"wise_ft:alpha={number / 20}") for number in range(14)]  # more than one batch
    seen = []
    for plan, folder, result in iter_written(pair, plans, "cpu"):
        assert result.report["plan"] == plan.to_json()
        seen.append((plan.label, folder, (folder / "model.safetensors").read_bytes()))
    assert [label for label, *_ in seen] == [plan.label for plan in plans]
    assert not any(folder.exists() for _, folder, _ in seen)
    list(iter_export(plan_export(pair, plans[13], tmp_path / "alone"), "cpu"))
    assert seen[13][2] == (tmp_path / "alone" / "model.safetensors").read_bytes()
    looking = iter_written(pair, plans[:2], "cpu")
    folder = next(looking)[1]
    looking.close()
    assert not folder.exists()


class TestCommand:
    def test_the_ends_are_base_and_tuned(self, paths, tmp_path, capsys):
        command = ["sweep", *map(str, paths), "--methods", "wise_ft,magnitude,dg_hard"]
        assert cli.main([*command, "--json", "--save", str(tmp_path / "sweep.json")]) == 0
        result = json.loads(capsys.readouterr().out)
        assert json.loads((tmp_path / "sweep.json").read_text()) == result
        assert result["evaluator"] is None and result["ends"] is None
        wise_ft, magnitude, dg_hard = result["lines"]
        assert [point["norm_kept"] for point in wise_ft["points"]] == pytest.approx(np.arange(11) / 10, abs=2e-3)
        assert wise_ft["points"][0]["drift"] == 0 and wise_ft["points"][0]["sparsity"] == 1
        sparsity = [point["sparsity"] for point in magnitude["points"]]
        assert sparsity == sorted(sparsity, reverse=True) and sparsity[0] > sparsity[-1]
        kept = {point["value"]: point["norm_kept"] for point in dg_hard["points"]}
        assert kept[0.0] == pytest.approx(1) and kept[1.0] <= kept[0.25] + 1e-6
        assert {point["value"]: point["distance"] for point in dg_hard["points"]}[1.0] == 0

    def test_text_has_a_line_per_point(self, paths, capsys):
        assert cli.main(["sweep", *map(str, paths), "--methods", "dg_hard", "--parameter", "alpha"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["strength", "norm_kept", "drift", "sparsity", "method"]
        assert len(lines) == 12 and lines[-1].endswith("dg_hard, alpha")

    def test_an_unknown_strength_is_one_line(self, paths, capsys):
        assert cli.main(["sweep", *map(str, paths), "--methods", "dare", "--parameter", "alpha"]) == 2
        assert capsys.readouterr().err == "dgviz sweep: dare is swept over p, not over 'alpha'\n"

    @pytest.mark.slow
    def test_the_demo_cannot_score_another_model(self, paths, capsys):
        assert cli.main(["sweep", *map(str, paths), "--methods", "rank_r", "--evaluate", "demo"]) == 2
        assert "does not load as an image classifier" in capsys.readouterr().err


def scored(target, held_out):
    spread = {"stderr": 0.02, "n": 449}
    return {"target": {"score": target, **spread}, "held_out": {"score": held_out, **spread}}


def line(method, parameter, *points):
    rows = [
        {"value": value, "label": f"{method}:{value}", "norm_kept": value, "scores": scored(*at)}
        for value, *at in points
    ]
    known = {"label": f"{method} {parameter}", "method": method, "parameter": parameter}
    return {**known, "control": METHODS[method].control, "points": rows}


SWEEP = {
    "ends": {"base": scored(0.1, 0.95), "tuned": scored(0.9, 0.5)},
    "lines": [
        line("dg_hard", "scale", (0.0, 0.9, 0.5), (1.0, 0.8, 0.7), (2.0, 0.5, 0.6)),
        line("dg_hard", "alpha", (0.0, 0.1, 0.95), (1.0, 0.8, 0.7)),
        line("wise_ft", "alpha", (0.0, 0.1, 0.95), (0.5, 0.7, 0.9)),
        line("norm_matched", "scale", (1.0, 0.85, 0.8)),
    ],
}


class TestStanding:
    def test_the_best_at_an_equal_or_higher_target_is_named(self):
        lines = [
            line("dg_hard", "scale", (0.0, 0.9, 0.5), (1.0, 0.8, 0.7)),
            line("dg_hard", "alpha", (0.9, 0.8, 0.75)),
            line("wise_ft", "alpha", (0.5, 0.79, 0.9), (0.7, 0.8, 0.85), (0.9, 0.85, 0.6)),
            line("norm_matched", "scale", (1.0, 0.85, 0.8)),
        ]
        lines[0]["points"][1]["label"] = "dg_hard"
        found = find_standing(lines)
        assert found.own is lines[0]["points"][1]
        assert found.best[1]["value"] == 0.7 and found.control[0]["method"] == "norm_matched"
        assert found.stronger[0]["parameter"] == "alpha"
        words = standing_words(found)
        assert words.startswith(
            "DG-Hard is worse than WiSE-FT, alpha = 0.7 at a target score of at least 80.0 ± 2.0 %"
        )
        assert "held-out 70.0 ± 2.0 % against 85.0 ± 2.0 %" in words and "15.0 points apart, 5.3 standard" in words
        assert (
            "the best control (as long as D*, scale = 1) keeps 80.0" in words
            and "DG-Hard, alpha = 0.9 keeps" in words
        )
        lines[2]["points"][1]["scores"] = scored(0.8, 0.69)
        assert "is better than WiSE-FT" in standing_words(find_standing(lines))
        assert "0.4 standard errors, which may be chance" in standing_words(find_standing(lines))
        assert "No other repair here has a target score" in standing_words(find_standing([lines[0], lines[3]]))
        assert find_standing(lines[1:]) is None and "not among the points" in standing_words(None)

    @pytest.mark.parametrize("tuned", ["clean", "noisy"])
    def test_the_demo_says_that_dg_hard_loses(self, tuned):
        """What the packaged sweep holds, found again by a plain loop."""
        lines = read_frontier()[tuned]["lines"]
        points = [(n["method"], n["control"], p) for n in lines for p in n["points"]]
        own = next(p for _, _, p in points if p["label"] == "dg_hard")["scores"]
        best = max(
            p["scores"]["held_out"]["score"]
            for method, control, p in points
            if not control and method != "dg_hard" and p["scores"]["target"]["score"] >= own["target"]["score"]
        )
        assert best > own["held_out"]["score"]
        assert find_standing(lines).best[1]["scores"]["held_out"]["score"] == best
        words = standing_words(find_standing(lines))
        assert words.startswith("DG-Hard is worse than Base-space damping") and f"{100 * best:.1f}" in words


class TestOwnScores:
    @pytest.fixture
    def scores(self, tmp_path):
        rows = ["model,benchmark,score,stderr,n"]
        for model, task, a, b in (
            ("base", 0.1, 0.9, 0.8),
            ("tuned", 0.9, 0.5, 0.4),
            ("dg_hard", 0.8, 0.6, 0.5),
            ("wise_ft:alpha=0.5", 0.8, 0.7, 0.7),
            ("stranger", 0.8, 0.7, 0.7),
            ("dg_hard-scale=2", 0.7, 0.7, 0.7),
        ):
            for benchmark, value in (("task", task), ("a", a), ("b", b)):
                rows.append(f"{model},{benchmark},{value},0.03,100")
        path = tmp_path / "scores.csv"
        path.write_text("\n".join(rows))
        return path

    def test_they_stand_beside_the_figures(self, paths, scores, tmp_path, capsys):
        out = tmp_path / "sweep.json"
        command = ["sweep", *map(str, paths), "--scores", str(scores), "--on-task", "task", "--save", str(out)]
        assert cli.main(command) == 0
        printed = capsys.readouterr()
        assert "no point of this sweep is called stranger" in printed.err
        assert "points have no scores and are left out" in printed.err
        assert "DG-Hard is worse than WiSE-FT, alpha = 0.5" in printed.out
        sweep = read_sweep(out.read_bytes(), "sweep.json")
        assert {(n["method"], p["value"]) for n in sweep["lines"] for p in n["points"]} == {
            ("dg_hard", 1.0),
            ("dg_hard", 2.0),
            ("wise_ft", 0.5),
        }
        held_out = sweep["lines"][0]["points"][0]["scores"]["held_out"]
        assert held_out == {"score": pytest.approx(0.55), "stderr": pytest.approx(0.03 / 2**0.5), "n": 200}
        assert sweep["ends"]["tuned"]["target"]["score"] == 0.9
        assert [trace.name for trace in frontier_plot(sweep).data][-2:] == ["base", "tuned"]

    def test_complaints(self, paths, scores, capsys):
        command = ["sweep", *map(str, paths), "--scores", str(scores)]
        for extra, change, said in (
            ((), None, "--scores needs --on-task BENCHMARK"),
            (("--on-task", "c"), None, "wanted are scores on 'c' and on another benchmark; there are task, a, b"),
            (("--on-task", "task"), ("base,", "start,"), "no scores of a model called 'base'"),
            (("--on-task", "task"), (",0.7,", ",70,"), "shares of 1, higher being better; got 70"),
            (
                ("--on-task", "task"),
                ("\ntuned,b,0.4,0.03,100", ""),
                "tuned was scored on task, a, others on task, a, b",
            ),
        ):
            text = scores.read_text()
            if change:
                scores.write_text(text.replace(*change))
            assert cli.main([*command, *extra]) == 2
            assert said in capsys.readouterr().err
            scores.write_text(text)

    def test_a_file_that_is_none(self):
        for content, said in (
            (b"{", "cannot be read as JSON"),
            (b"[]", "holds no sweep"),
            (b'{"lines": [], "ends": null}', "was swept without scores"),
            (json.dumps({**SWEEP, "ends": {"base": {}}}).encode(), "was swept without scores"),
        ):
            with pytest.raises(ScoresError, match=f"sweep.json {said}"):
                read_sweep(content, "sweep.json")
        assert read_sweep(json.dumps(SWEEP).encode(), "sweep.json")["lines"][0]["method"] == "dg_hard"


class TestFigure:
    def test_lines_are_what_was_measured_in_the_order_of_strength(self):
        figure = frontier_plot(SWEEP)
        traces = {trace.name: trace for trace in figure.data}
        dg_hard = traces["DG-Hard (scale)"]
        np.testing.assert_allclose(dg_hard.x, [90, 80, 50])
        np.testing.assert_allclose(dg_hard.y, [50, 70, 60])
        np.testing.assert_allclose(dg_hard.error_y.array, 2)
        assert dg_hard.line.color == ACCENT and dg_hard.line.dash == "solid"
        assert traces["DG-Hard (alpha)"].line.dash == "dot"
        control = traces[f"{METHODS['norm_matched'].title} (scale)"]
        assert control.line.dash == "dash" and control.line.color == MUTED
        assert traces["WiSE-FT (alpha)"].line.color not in (ACCENT, MUTED)
        assert (traces["base"].x, traces["base"].y) == ((10.0,), (95.0,)) and not traces["base"].showlegend
        assert "norm_matched:1.0" in control.customdata[0] and "85.0 ± 2.0 %" in control.customdata[0]

    def test_only_some_methods(self):
        names = [trace.name for trace in frontier_plot(SWEEP, methods=["wise_ft"]).data]
        assert names == ["WiSE-FT (alpha)", "base", "tuned"]

    def test_labels_are_strengths_and_give_way(self):
        figure = frontier_plot(SWEEP)
        shown = [list(trace.text) for trace in figure.data if trace.line.dash]
        assert shown[0] == ["0", "1", "2"]
        crowd = {**SWEEP, "lines": [line("dare", "p", *((k / 100, 0.5, 0.5) for k in range(30)))]}
        assert sum(map(bool, frontier_plot(crowd).data[0].text)) < 8

    def test_axes_hold_everything(self):
        figure = frontier_plot(SWEEP, x="held_out", y="target")
        assert figure.layout.xaxis.title.text == "held-out mean, %"
        low, high = figure.layout.xaxis.range
        assert low < 50 and high > 95
