"""The paper's study: its preset, what is missing, every table against a second computation, and the three forms."""

import csv
import dataclasses
import io
import json
import random
import re
import statistics

import pytest

from dgviz.analysis.study import (
    FORMS,
    Entry,
    PaperTable,
    find_coverage,
    noise_files,
    paper_tables,
    preset_text,
    read_noise,
    typeset,
)
from dgviz.analysis.study.marks import rank_entries
from dgviz.analysis.study.tables import GAP
from dgviz.cli import main
from dgviz.errors import ScoresError
from dgviz.scores import Score, ScoreTable, choose_scores
from dgviz.scores.recovery import Tolerance, assess, plan_study
from dgviz.scores.recovery.study import study_arguments

BENCHMARKS, TASKS, METHODS = ("k1", "k2", "c1", "c2"), ("t1", "t2", "t3"), ("wise_ft", "LoRA", "dg_hard")
CELLS = {f"{model}-{task}": (model, task) for model in ("big_4B", "small") for task in TASKS}
TOLERANCE = 0.02
STUDY = {
    "cells": [
        {
            "name": cell,
            "model": model,
            "task": task.upper(),
            "base": model,
            "tuned": f"{cell}/tuned",
            "on_task": f"task_{task}",
            "repaired": {method: f"{cell}/{method}" for method in METHODS},
        }
        for cell, (model, task) in CELLS.items()
    ],
    "benchmarks": {name: {"title": name.upper(), "n": None} for name in BENCHMARKS},
    "axes": {"harm": {"title": "Harm", "lower_is_better": True}},
    "cohorts": {
        "Knowledge": ["k1", "k2"],
        "Cognition": None,
        "Big": [c for c in CELLS if c.startswith("big")],
        "Small": [c for c in CELLS if c.startswith("small")],
    },
    "head_to_head": ["dg_hard", "wise_ft"],
    "sizes": {"mild": 20, "large": "inf"},
    "noise": {"tuned": "noise/{cell}/tuned.json"},
}


@pytest.fixture(scope="module")
def values():
    """A score for every model and benchmark of the study, drawn at random."""
    draws, found = random.Random(3), {}
    for cell in STUDY["cells"]:
        for name in (*BENCHMARKS, cell["on_task"], "harm"):
            base = found.setdefault((cell["base"], name), round(draws.uniform(0.3, 0.7), 4))
            tuned = found[cell["tuned"], name] = round(base + draws.choice([-0.15, 0.0, 0.12]), 4)
            for model in cell["repaired"].values():
                found[model, name] = round(tuned + draws.uniform(-0.2, 1.1) * (base - tuned), 4)
    return found


def scores(values):
    return ScoreTable(tuple(Score(model, name, value) for (model, name), value in values.items()))


def recover(values, content=STUDY, **options):
    table = scores(values)
    study = plan_study(table, **study_arguments(content, "study.json"))
    chosen = choose_scores(table, study.design.metrics_of(table))
    return assess(study, chosen, Tolerance(TOLERANCE), replicates=options.pop("replicates", 0), **options)


@pytest.fixture(scope="module")
def recovery(values):
    return recover(values)


@pytest.fixture(scope="module")
def found(recovery):
    """Every table by its number."""
    return tables(recovery)


def tables(recovery, noise=None):
    return {table.number: table for table in paper_tables(recovery, noise)}


def entry(table, block, row, column):
    """Return the entry of a row, told by the start of its block and its first entry, in a column."""
    (found,) = [e for b, e in table.rows if b.startswith(block) and e[0].value == row]
    return found[table.columns.index(column)]


# What follows computes the metrics once more from their definitions, in plain Python.


def hm(a, b):
    if a is None or b is None:
        return a if b is None else b
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0


def mean(numbers):
    return statistics.fmean(numbers) if numbers else None


def triples(values, cells, benchmarks, method):
    for cell in (c for c in STUDY["cells"] if c["name"] in cells):
        for name in benchmarks:
            yield tuple(values[m, name] for m in (cell["base"], cell["tuned"], cell["repaired"][method]))


def aggregates(values, cells, benchmarks, method):
    """Return the seven columns of Table 1."""
    held_out = list(triples(values, cells, benchmarks, method))
    far = TOLERANCE + 1e-9
    healed = mean([100 * (r - t) / (b - t) for b, t, r in held_out if t - b < -far])
    preserved = mean([100 * (r - b) / (t - b) for b, t, r in held_out if t - b > far])
    non_damage = mean([100 * r / b for b, t, r in held_out if abs(t - b) <= far])
    own = [c for c in STUDY["cells"] if c["name"] in cells]
    on_task = mean(
        [100 * values[c["repaired"][method], c["on_task"]] / values[c["tuned"], c["on_task"]] for c in own]
    )
    clean_up, retention = hm(healed, non_damage), hm(preserved, on_task)
    return healed, non_damage, preserved, on_task, clean_up, retention, hm(clean_up, retention)


def balance(values, cell, benchmarks, method):
    ratios = [100 * r / b for b, _, r in triples(values, [cell["name"]], benchmarks, method)]
    retained = 100 * values[cell["repaired"][method], cell["on_task"]] / values[cell["tuned"], cell["on_task"]]
    return hm(mean(ratios), retained)


def combined(values, cell, method):
    far, sides = TOLERANCE + 1e-9, []
    for sign in (-1, 1):
        found = [
            min(max(100 * (r - (t if sign < 0 else b)) / ((b - t) if sign < 0 else (t - b)), 0), 100)
            for b, t, r in triples(values, [cell["name"]], BENCHMARKS, method)
            if sign * (t - b) > far
        ]
        sides.append(mean(found) if found else 100.0)
    return hm(*sides)


TITLES = {"wise_ft": "WiSE-FT", "LoRA": "LoRA", "dg_hard": "DG-Hard"}
COHORTS = {
    "Overall": (list(CELLS), BENCHMARKS),
    "Knowledge": (list(CELLS), ("k1", "k2")),
    "Big": ([c for c in CELLS if c.startswith("big")], BENCHMARKS),
    "Small": ([c for c in CELLS if c.startswith("small")], BENCHMARKS),
}


class TestPreset:
    def test_it_is_the_study_of_the_paper(self):
        content = json.loads(preset_text())
        study = plan_study(ScoreTable(()), **study_arguments(content, "paper"))
        assert len(study.cells) == 14 and len(study.design.benchmarks) == 9 and len(study.design.axes) == 3
        assert {cell.task for cell in study.cells} == {
            "RTE", "StrategyQA", "ReClor", "BoolQ", "MedQA", "WikiQA", "Winogrande",
        }  # fmt: skip
        assert all(cell.on_task == f"task_{cell.task.lower()}" and len(cell.repaired) == 7 for cell in study.cells)
        assert {len(members) for members in study.cohorts.values()} == {7}
        assert study.lower_is_better == set(study.design.axes)
        assert study.design.metrics["ifeval"].count("+") == 3
        assert study.design.inference["model_args"] == {
            "enforce_eager": True,
            "max_model_len": 8192,
            "dtype": "bfloat16",
        }

    def test_what_is_not_known_is_an_open_field_with_a_name(self):
        content = json.loads(preset_text())
        design = study_arguments(content, "paper")["design"]
        assert len(design.open) == preset_text().count("null")
        assert {"cohorts.Knowledge", "cohorts.Cognition", "sizes.mild", "tolerance", "benchmarks.mmlu.n"} <= set(
            design.open
        )
        study = plan_study(ScoreTable(()), **study_arguments(content, "paper"))
        assert study.open_cohorts() == ("Knowledge", "Cognition")
        found = find_coverage(study, choose_scores(ScoreTable(())))
        assert sum(len(item.missing) for item in found) == 14 * 9 * (9 + 1 + 3) and not any(i.there for i in found)

    @pytest.mark.parametrize(
        ("part", "value", "words"),
        [
            ("sizes", {"a": 5, "b": 3}, "growing upper bounds"),
            ("head_to_head", ["dg_hard"], "names 1 labels"),
            ("benchmarks", {"mmlu": 3}, "benchmarks.mmlu is no object"),
            ("note", 3, "note is no text"),
            ("tolerance", "x", "tolerance is no number"),
        ],
    )
    def test_what_a_study_file_cannot_say(self, part, value, words):
        with pytest.raises(ScoresError, match=words):
            study_arguments({part: value}, "study.json")


class TestTables:
    def test_aggregates_by_cohort(self, values, found):
        for cohort, (cells, benchmarks) in COHORTS.items():
            best = {}
            for method in METHODS:
                expected = aggregates(values, cells, benchmarks, method)
                columns = found["1"].columns[1:]
                shown = [entry(found["1"], f"{cohort} (", TITLES[method], column).value for column in columns]
                assert shown == [pytest.approx(value, abs=1e-9) for value in expected]
                best[TITLES[method]] = expected[-1]
            number = "12" if cohort in ("Big", "Small") else "11"
            marked = {name for name in best if entry(found[number], f"{cohort} (", name, "Combined").mark == "best"}
            assert marked == {name for name, value in best.items() if value == max(best.values())}
            rivals = {name: entry(found["13"], f"{cohort} (", name, "Combined") for name in ("DG-Hard", "WiSE-FT")}
            assert {name: e.value for name, e in rivals.items()} == {n: pytest.approx(best[n]) for n in rivals}
            assert [n for n, e in rivals.items() if e.mark] == [max(rivals, key=lambda n: best[n])]
        assert any("leaves open what belongs to it: Cognition" in note for note in found["1"].notes)

    def test_sizes(self, values, found):
        table = found["2"]
        far = TOLERANCE + 1e-9
        for size, low, high in (("mild", 0, 20), ("large", 20, 1e9)):
            improved = [
                100 * (r - b) / (t - b)
                for b, t, r in triples(values, CELLS, BENCHMARKS, "dg_hard")
                if t - b > far and low < 100 * (t - b) / b <= high
            ]
            assert entry(table, "", size, "DG-Hard").value == pytest.approx(mean(improved))
            assert entry(table, "", size, "DG-Hard: n").value == str(len(improved))

    def test_counts_and_balance(self, values, found):
        wins = dict.fromkeys(METHODS, 0)
        for cell in STUDY["cells"]:
            changes = [t - b for b, t, _ in triples(values, [cell["name"]], BENCHMARKS, "dg_hard")]
            expected = sum(c < -0.03 for c in changes), sum(c > 0.03 for c in changes), changes.count(0), 0
            for name, count in zip(("Damaged", "Improved", "Unchanged", "Missing"), expected, strict=True):
                assert entry(found["9"], cell["model"], cell["task"], name).value == count
            own = {method: balance(values, cell, BENCHMARKS, method) for method in METHODS}
            for method, value in own.items():
                shown = entry(found["10"], cell["model"], cell["task"], TITLES[method])
                assert shown.value == pytest.approx(value) and bool(shown.mark) == (max(own.values()) - value < 1e-9)
            best = [method for method in METHODS if max(own.values()) - own[method] < 1e-9]
            wins = {method: count + (method in best) for method, count in wins.items()}
            words = ", ".join(TITLES[method] for method in best)
            assert entry(found["10"], cell["model"], cell["task"], "Winner").value == words
        for method, count in wins.items():
            assert entry(found["10"], "Wins", "Overall (6)", TITLES[method]).value == count

    def test_every_score(self, values, found):
        for number, model in (("14", "big_4B"), ("15", "small")):
            for cell in (c for c in STUDY["cells"] if c["model"] == model):
                rows = {"Pre-trained": cell["base"], "Full-SFT": cell["tuned"]}
                rows |= {TITLES[method]: name for method, name in cell["repaired"].items()}
                columns = {name.upper(): {row: values[m, name] for row, m in rows.items()} for name in BENCHMARKS}
                columns["On-task"] = {row: values[m, cell["on_task"]] for row, m in rows.items()}
                columns["Avg."] = {row: mean([values[m, name] for name in BENCHMARKS]) for row, m in rows.items()}
                columns["Combined"] = {TITLES[method]: combined(values, cell, method) for method in METHODS}
                for column, expected in columns.items():
                    gap = 1e-9 if column == "Combined" else GAP
                    best = {r for r, v in expected.items() if max(expected.values()) - v < gap}
                    rest = [v for r, v in expected.items() if r not in best]
                    for row, value in expected.items():
                        shown = entry(found[number], cell["task"], row, column)
                        assert shown.value == pytest.approx(value)
                        second = row not in best and max(rest) - value < gap
                        assert shown.mark == ("best" if row in best else "second" if second else "")
                assert entry(found[number], cell["task"], "Full-SFT", "Combined").value == ""

    def test_noise(self, recovery, tmp_path):
        study = recovery.study
        for place, file in enumerate(noise_files(study, tmp_path).values()):
            file.parent.mkdir(parents=True)
            rows = [{"group": "MLP", "mean_noise": 0.1 * place, "norm_share": 0.6}]
            file.write_text(json.dumps({"classes": rows, "missing": []}))
        files = noise_files(study, tmp_path)
        file.unlink()  # the last one
        table = tables(recovery, read_noise(files))["16"]
        for block, noise in (("big_4B", statistics.fmean([0, 10, 20])), ("small", statistics.fmean([30, 40]))):
            assert entry(table, block, "MLP", "Mean noise").value == pytest.approx(noise)
            assert entry(table, block, "MLP", "Product").value == pytest.approx(0.6 * noise)
        assert "small, Full-SFT: 2 of 3 noise tables are there" in table.notes
        (tmp_path / "noise" / "big_4B-t1" / "tuned.json").write_text(json.dumps({"classes": [], "missing": ["a"]}))
        with pytest.raises(ScoresError, match=r"tuned\.json lacks 1 weights"):
            read_noise(files)
        assert entry(tables(recovery)["16"], "small", "every class", "Product").why == "missing"

    def test_safety(self, values, recovery, found):
        assert all(item.benchmark != "harm" for item in recovery.comparisons)
        own = [c for c in STUDY["cells"] if c["model"] == "small"]
        means = {"Pre-trained": values["small", "harm"], "Full-SFT": mean([values[c["tuned"], "harm"] for c in own])}
        means |= {TITLES[m]: mean([values[c["repaired"][m], "harm"] for c in own]) for m in METHODS}
        for name, value in means.items():
            shown = entry(found["3"], "", name, "small: Harm")
            assert shown.value == pytest.approx(value)
            assert bool(shown.mark) == (value - min(means.values()) < GAP)
        trend = found["safety-trends"]
        assert entry(trend, "Harm, small", "DG-Hard", "Change from tuned").value == pytest.approx(
            means["DG-Hard"] - means["Full-SFT"]
        )
        changes = [values[c["repaired"]["dg_hard"], "harm"] - values[c["tuned"], "harm"] for c in own]
        expected = sum(c < -TOLERANCE for c in changes), sum(c > TOLERANCE for c in changes)
        assert tuple(entry(trend, "Harm, small", "DG-Hard", n).value for n in ("Better", "Worse")) == expected

    def test_what_is_missing_is_said_and_never_zero(self, values):
        cell = STUDY["cells"][0]
        lost = {(cell["repaired"]["dg_hard"], "k1"), (cell["tuned"], "harm"), ("small", "c1")}
        recovery = recover({key: value for key, value in values.items() if key not in lost})
        found = tables(recovery)
        for column in ("K1", "Avg.", "Combined"):
            shown = entry(found["14"], cell["task"], "DG-Hard", column)
            assert shown.value is None and str(shown) == "missing" and not shown.mark
        assert entry(found["14"], cell["task"], "LoRA", "Combined").value is not None
        assert entry(found["10"], cell["model"], cell["task"], "DG-Hard").value is None
        assert entry(found["10"], cell["model"], cell["task"], "Winner").value.endswith("(of 2)")
        assert entry(found["10"], "small", "T1", "Winner").value == "none"
        assert entry(found["9"], "small", "T1", "Missing").value == 1
        assert str(entry(found["3"], "", "Full-SFT", "big_4B: Harm")) == "2 of 3 scored"
        assert any(note.startswith("DG-Hard: 4 scores") for note in found["1"].notes)
        assert f"{cell['tuned']} on harm in cell {cell['name']}" in recovery.missing
        empty = {key: value for key, value in values.items() if not key[0].startswith("small")}
        row = [e for b, e in tables(recover(empty))["1"].rows if b.startswith("Small (n = 0 / 0 / 0)")]
        assert len(row) == 3 and {str(item) for item in row[0][1:]} == {"missing"}

    def test_scores_that_the_study_does_not_name_are_left_aside(self, values):
        recovery = recover(values | {("stranger", "k1"): 0.5, ("small", "k9"): 0.5})
        assert any("models that the study does not name: stranger" in note for note in recovery.notes)
        assert any("benchmarks that the study does not name: k9" in note for note in recovery.notes)
        assert {item.benchmark for item in recovery.comparisons if not item.on_task} == set(BENCHMARKS)


class TestMarks:
    def test_what_is_level_shares_a_mark(self):
        marks = lambda numbers, **more: [e.mark for e in rank_entries([Entry(v) for v in numbers], GAP, **more)]  # noqa: E731
        assert marks([0.5, 0.5, 0.4, 0.3], second=True) == ["best", "best", "second", ""]
        assert marks([0.5, 0.4995, 0.499, 0.4985], second=True) == ["best", "best", "second", "second"]
        assert marks([0.5, None, 0.2], second=True, higher_is_better=False) == ["second", "", "best"]
        assert marks([0.5, None]) == ["", ""] and marks([]) == []


class TestMeans:
    def rows(self, models):
        found = (("a", 0.4, 0.02), ("b", 0.5, 0.04))
        rows = [Score(m, "ifeval", v, s, 541, metric=name) for m in models for name, v, s in found]
        return ScoreTable((*rows, Score("odd", "ifeval", 0.3, 0.01, 541, metric="a")))

    def test_a_metric_may_be_the_mean_of_several(self):
        chosen = choose_scores(self.rows(["base"]), {"ifeval": "a+b"})
        score = chosen.scores["", "base", "ifeval"]
        assert (score.value, score.stderr, score.n) == (pytest.approx(0.45), pytest.approx(0.03), 541)
        assert ("", "odd", "ifeval") not in chosen.scores
        assert any("odd on ifeval: not all of a+b" in text for text in chosen.missing)
        with pytest.raises(ScoresError, match="ifeval has no metric 'c'"):
            choose_scores(self.rows(["base"]), {"ifeval": "a+c"})


HOSTILE = "a_b & 50% {x}^2 | <b> \\ #$~"


class TestForms:
    def table(self):
        rows = (
            (HOSTILE, (Entry(HOSTILE), Entry(1.25, mark="best"), Entry(2 / 3, 3, mark="second"))),
            (HOSTILE, (Entry("y"), Entry(None), Entry(None, why="undefined"))),
        )
        return PaperTable("7", HOSTILE, "Block", ("Name", "A", HOSTILE), rows, (f"note {HOSTILE}",), "made up_")

    def test_latex_escapes_names_and_every_row_has_every_column(self):
        text = typeset(self.table(), "tex")
        bare = re.sub(r"\\[\\&%$#_{}]|\\[a-z]+", "", "\n".join(text.splitlines()[1:]))
        assert not re.search(r"[%$#_^~|<>\\]", bare)  # nothing that LaTeX would read as its own is left
        assert bare.count("{") == bare.count("}")
        rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert len(rows) == 3 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
        assert r"\textbf{1.2}" in text and r"\underline{0.667}" in text and "& missing & undefined" in text
        assert r"\begin{tabular}{lrr}" in text and r"(made up\_)" in text
        begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
        assert begun == ended[::-1] == ["table", "tabular"]

    def test_markdown_escapes_names_and_every_row_has_every_column(self):
        lines = [line for line in typeset(self.table(), "md").splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
        assert "**1.2**" in lines[3] and "<u>0.667</u>" in lines[3] and r"a\_b" in lines[3]

    def test_csv_reads_back(self):
        rows = list(csv.reader(io.StringIO(typeset(self.table(), "csv"))))
        assert rows[0] == ["Block", "Name", "A", "A: mark", HOSTILE, f"{HOSTILE}: mark", "note"]
        assert rows[1] == [HOSTILE, HOSTILE, "1.25", "best", str(2 / 3), "second", "made up_"]
        assert rows[2][2:6] == ["missing", "", "undefined", ""]

    def test_every_table_in_every_form(self, recovery):
        design = dataclasses.replace(recovery.study.design, note="made up")
        study = dataclasses.replace(recovery.study, design=design)
        for table in paper_tables(dataclasses.replace(recovery, study=study)):
            assert {len(entries) for _, entries in table.rows} == {len(table.columns)}
            assert len(set(table.columns)) == len(table.columns)
            assert all("made up" in typeset(table, form) for form in FORMS)


class TestCommands:
    def test_a_template_says_what_is_missing(self, tmp_path, capsys):
        file = tmp_path / "study.json"
        assert main(["study", str(file), "--new", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        # Each base is scored once and on every task of its model.
        assert (found["scored"], found["planned"]) == (0, 2 * (9 + 3 + 7) + 14 * 8 * 13)
        assert "cohorts.Knowledge" in found["open"] and len(found["coverage"]) == 14 * 9
        first = found["commands"][0]
        assert first.startswith("python -m dgviz evaluate Qwen3.5-4B --tasks arc_challenge,")
        for words in ("--backend vllm", "--model-arg max_model_len=8192", "--gen-arg temperature=0"):
            assert words in first
        (tmp_path / "scores.csv").write_text("model,benchmark,score\nQwen3.5-4B,mmlu,0.5\n")
        assert main(["study", str(file), "--scores", str(tmp_path / "scores.csv")]) == 0
        assert "1 of 1494 scores are there" in capsys.readouterr().out
        assert main(["study", str(file), "--new"]) == 2 and "is there already" in capsys.readouterr().err

    def test_recovery_writes_tables_and_figures(self, values, tmp_path, capsys):
        (tmp_path / "study.json").write_text(json.dumps(STUDY))
        lines = [f"{model},{name},{value}" for (model, name), value in values.items()]
        (tmp_path / "scores.csv").write_text("\n".join(["model,benchmark,score", *lines]))
        given = [str(tmp_path / "scores.csv"), "--study", str(tmp_path / "study.json"), "--bootstrap", "0"]
        assert main(["recovery", *given, "--tables", str(tmp_path / "out"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        names = {path.name for path in (tmp_path / "out").iterdir()}
        numbers = ("1", "2", "3", "9", "10", "11", "12", "13", "14", "15", "16", "safety-trends")
        assert {f"table-{n}.{form}" for n in numbers for form in FORMS} <= names
        assert {"figure-1.html", "figure-2.html", "safety-trends.html"} <= names
        assert names == {path.rpartition("/")[2] for path in found["written"]} | {"plotly.min.js"}
        assert len(found["axes"]) == 6 and found["open"] == [f"benchmarks.{n}.n" for n in BENCHMARKS] + [
            "cohorts.Cognition"
        ]
