"""Scores in: the harness's layouts, CSV, the demo's file; which metric is meant; every complaint."""

import json

import pytest

from dgviz.demo import demo_scores, write_demo
from dgviz.errors import ScoresError
from dgviz.scores import METRIC_ORDER, choose_scores, merge_tables, parse_scores, read_scores
from dgviz.scores.read import short_names

CURRENT = {
    "results": {
        "arc_easy": {
            "name": "arc_easy",
            "alias": "arc_easy",
            "sample_len": 50,
            "acc,none": 0.6,
            "acc_stderr,none": 0.07,
            "acc_norm,none": 0.62,
            "acc_norm_stderr,none": 0.069,
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.3,
            "exact_match_stderr,strict-match": 0.02,
            "exact_match,flexible-extract": 0.35,
            "exact_match_stderr,flexible-extract": 0.02,
        },
        "mmlu": {"alias": "mmlu", "acc,none": 0.5, "acc_stderr,none": 0.01},
        "mmlu_stem": {"alias": " - stem", "acc,none": 0.4, "acc_stderr,none": 0.02},
        "mmlu_physics": {"alias": "  - physics", "acc,none": 0.41, "acc_stderr,none": "N/A"},
        "wikitext": {"word_perplexity,none": 12.5, "word_perplexity_stderr,none": "N/A", "bits_per_byte,none": 0.7},
        "leaderboard": {" ": " ", "alias": "leaderboard"},
    },
    "groups": {"mmlu": {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": "mmlu"}},
    "group_subtasks": {
        "mmlu": ["mmlu_stem"],
        "mmlu_stem": ["mmlu_physics"],
        "leaderboard": ["arc_easy"],
        "gsm8k": [],
    },
    "n-shot": {"arc_easy": 0, "gsm8k": 5},
    "versions": {"arc_easy": 1.0},
    "higher_is_better": {
        "arc_easy": {"acc": True, "acc_norm": True},
        "gsm8k": {"exact_match": True},
        "wikitext": {"word_perplexity": False, "bits_per_byte": False},
    },
    "n-samples": {
        "arc_easy": {"original": 2376, "effective": 50},
        "mmlu_physics": {"original": 102, "effective": 100},
    },
    "config": {"model": "hf", "model_args": "pretrained=org/other,dtype=bfloat16", "limit": 50.0},
    "model_name": "org/model",
}
LAST_YEAR = {
    "results": {"arc_easy": {"acc,none": 0.6, "acc_stderr,none": 0.07, "alias": "arc_easy"}},
    "group_subtasks": {"arc_easy": []},
    "versions": {"arc_easy": 1.0},
    "config": {"model_args": {"pretrained": "org/older", "trust_remote_code": True}},
}
OLDEST = {
    "results": {"arc_easy": {"acc": 0.6, "acc_stderr": 0.07, "acc_norm": 0.61, "acc_norm_stderr": 0.07}},
    "versions": {"arc_easy": 0},
    "config": {"model": "gpt2", "model_args": "", "num_fewshot": 0},
}


def parse(content, name="results.json", **options):
    text = content if isinstance(content, str) else json.dumps(content)
    return parse_scores(text.encode(), name, **options)


def by_metric(table, benchmark):
    return {score.metric: score for score in table.scores if score.benchmark == benchmark}


def complaint(content, name="scores.csv", **options):
    with pytest.raises(ScoresError) as caught:
        parse(content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestHarness:
    def test_the_current_layout(self):
        table = parse(CURRENT)
        assert table.model_names() == ("org/model",)
        easy = by_metric(table, "arc_easy")
        assert easy["acc"].value == 0.6 and easy["acc"].stderr == 0.07 and easy["acc"].n == 50
        assert easy["acc_norm"].higher_is_better is True
        assert easy["acc"].conditions == "0 shots, task version 1.0, limit 50"
        assert set(by_metric(table, "gsm8k")) == {"exact_match,strict-match", "exact_match,flexible-extract"}
        assert by_metric(table, "wikitext")["word_perplexity"].higher_is_better is False
        assert "leaderboard" not in table.benchmark_names()

    def test_groups_count_once(self):
        table = parse(CURRENT)
        assert by_metric(table, "mmlu_physics")["acc"].group == "mmlu"
        assert by_metric(table, "mmlu_physics")["acc"].stderr is None
        assert by_metric(table, "mmlu")["acc"].n == 100
        assert by_metric(table, "arc_easy")["acc"].group == ""  # its group has no score of its own
        chosen = choose_scores(table, {"gsm8k": "exact_match,strict-match", "wikitext": "word_perplexity"})
        assert set(chosen.metrics) == {"arc_easy", "gsm8k", "mmlu", "wikitext"}
        assert "left aside, counted within mmlu: mmlu_stem, mmlu_physics" in chosen.notes
        assert set(choose_scores(table, benchmarks=["mmlu_physics"]).metrics) == {"mmlu_physics"}

    def test_layouts_of_earlier_years(self):
        table = parse(LAST_YEAR)
        assert table.model_names() == ("org/older",)
        assert by_metric(table, "arc_easy")["acc"].higher_is_better is True  # from the harness's own registry
        table = parse(OLDEST, folder="org__oldest")
        assert table.model_names() == ("org/oldest",)
        assert by_metric(table, "arc_easy")["acc_norm"].stderr == 0.07

    def test_a_name_of_ones_own(self, tmp_path):
        (tmp_path / "results_1.json").write_text(json.dumps(OLDEST))
        assert read_scores([f"mine={tmp_path}"]).model_names() == ("mine",)
        assert complaint(OLDEST, "results.json").startswith("results.json does not say which model it scores")

    def test_a_metric_of_unknown_direction_is_said(self):
        content = {"results": {"t": {"strange,none": 1.0}}, "model_name": "m"}
        assert parse(content).notes == (
            "results.json does not say whether higher is better; taken as higher: t: strange",
        )

    def test_not_finite_is_missing(self):
        table = parse(json.dumps({"results": {"t": {"acc,none": float("nan")}}, "model_name": "m"}))
        assert choose_scores(table).missing == ("m on t in results.json",)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", "cannot be read as JSON"),
            ([1], "has neither the harness's 'results' nor a list 'scores'"),
            ({"results": 3}, "has neither the harness's 'results' nor a list 'scores'"),
            ({"results": {"t": {"alias": "t"}}, "model_name": "m"}, "its 'results' name no metric"),
        ],
    )
    def test_complaints(self, content, words):
        assert words in complaint(content, "results.json")


class TestCsv:
    def test_every_column(self):
        text = "\ufeffModel,benchmark,score,stderr,n,cell,metric,higher_is_better,remark\n"
        text += "base,ppl,12.5,0.1,100,one,perplexity,false,x\nbase,arc,,,,one,,,\n\n"
        table = parse(text, "scores.CSV")
        first, second = table.scores
        assert (first.value, first.stderr, first.n, first.cell, first.metric) == (12.5, 0.1, 100, "one", "perplexity")
        assert first.higher_is_better is False and second.higher_is_better is None and second.value is None
        assert table.notes == ("scores.CSV: columns not used: remark",)
        assert choose_scores(table).missing == ("base on arc in cell one in scores.CSV",)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "has no column model, benchmark, score"),
            ("model,score\n", "has no column benchmark: its first line is 'model,score'"),
            ("model,benchmark,score,score\n", "names the column score twice"),
            ("model,benchmark,score\n", "holds no score"),
            ("model,benchmark,score\na,b\n", "line 2 has 2 values for 3 columns"),
            ("model,benchmark,score\na,b,63%\n", "line 2: score is '63%': write a number"),
            ("model,benchmark,score\na,b,nan\n", "line 2: score is 'nan': write a finite number"),
            ("model,benchmark,score\n,b,1\n", "line 2 names no model"),
            ("model,benchmark,score,stderr\na,b,1,-1\n", "line 2: stderr is -1"),
            ("model,benchmark,score,n\na,b,1,2.5\n", "line 2: n is 2.5"),
            (
                "model,benchmark,score,higher_is_better\na,b,1,maybe\n",
                "higher_is_better is 'maybe': write true or false",
            ),
            ('model,benchmark,score\na,"b,1\n', "cannot be read as CSV"),
        ],
    )
    def test_complaints(self, text, words):
        assert words in complaint(text)

    def test_other_encodings_are_refused(self):
        with pytest.raises(ScoresError, match="scores.csv is not UTF-8 text"):
            parse_scores("modèle".encode("latin-1"), "scores.csv")


class TestTable:
    def test_the_demo(self, tmp_path):
        table = read_scores([write_demo(tmp_path / "demo")["scores"]])
        assert len(table.scores) == len(demo_scores()["scores"])
        assert table.roles["target"] == "on_task" and table.roles["held_out"] == "summary"
        assert table.models["noisy/dg_hard"].label == "dg_hard" and table.models["noisy/dg_hard"].tuned == "noisy"
        chosen = choose_scores(table)
        assert (
            "held_out" not in chosen.metrics and "left aside, a summary of other benchmarks: held_out" in chosen.notes
        )

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            ([], "its list 'scores' is empty"),
            ([{"model": "a"}], "scores[0] is no row with model, benchmark, score"),
            ([{"model": "a", "benchmark": "b", "score": "1"}], "scores[0]: score is '1'"),
            ([{"model": "a", "benchmark": "b", "score": 1, "n": 0}], "scores[0]: n is 0"),
            ([{"model": "a", "benchmark": "b", "score": 1, "higher_is_better": 1}], "higher_is_better is 1"),
        ],
    )
    def test_complaints(self, rows, words):
        assert words in complaint({"scores": rows}, "scores.json")


class TestChoice:
    def test_the_order_is_stated_and_followed(self):
        assert METRIC_ORDER[:3] == ("acc_norm", "acc", "exact_match")
        assert choose_scores(parse(LAST_YEAR)).metrics["arc_easy"] == "acc"
        chosen = choose_scores(parse(CURRENT))
        assert chosen.metrics["arc_easy"] == "acc_norm"
        # A metric counts only where all models have it.
        both = merge_tables([parse(CURRENT), parse(LAST_YEAR)])
        assert choose_scores(both).metrics["arc_easy"] == "acc"

    def test_two_filters_are_ambiguous(self):
        chosen = choose_scores(parse(CURRENT))
        assert [item.benchmark for item in chosen.ambiguous] == ["gsm8k"]
        assert str(chosen.ambiguous[0]) == "gsm8k has exact_match,strict-match, exact_match,flexible-extract"
        assert "gsm8k" not in chosen.metrics

    def test_unknown_names(self):
        with pytest.raises(ScoresError, match="no scores of a benchmark 'nope'; there are arc_easy"):
            choose_scores(parse(CURRENT), {"nope": "acc"})
        with pytest.raises(ScoresError, match="arc_easy has no metric 'f1'; it has 'acc', 'acc_norm'"):
            choose_scores(parse(CURRENT), {"arc_easy": "f1"})

    def test_the_same_score_twice(self):
        row = "model,benchmark,score\na,b,{}\n"
        same = merge_tables([parse(row.format("0.5"), "x.csv"), parse(row.format("0.50"), "y.csv")])
        assert len(choose_scores(same).scores) == 1
        other = merge_tables([parse(row.format("0.5"), "x.csv"), parse(row.format("0.6"), "y.csv")])
        with pytest.raises(ScoresError, match=r"two different scores of a on b: 0.5 in x.csv and 0.6 in y.csv"):
            choose_scores(other)

    def test_other_conditions_are_said(self):
        changed = {**CURRENT, "n-shot": {"arc_easy": 25}, "model_name": "org/second"}
        notes = choose_scores(merge_tables([parse(CURRENT), parse(changed)])).notes
        assert any("arc_easy was scored under different conditions" in note and "25 shots" in note for note in notes)


def test_folders(tmp_path):
    (tmp_path / "results" / "org__model").mkdir(parents=True)
    (tmp_path / "results" / "org__model" / "results_2026-01-01.json").write_text(json.dumps(CURRENT))
    (tmp_path / "results" / "org__model" / "samples_arc_easy_2026-01-01.jsonl").write_text("{}")
    (tmp_path / "results" / "config.json").write_text("{}")
    assert read_scores([tmp_path]).model_names() == ("org/model",)
    with pytest.raises(ScoresError, match="there is no file or folder"):
        read_scores([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoresError, match="holds no scores: looked for results"):
        read_scores([tmp_path / "empty"])
    with pytest.raises(ScoresError, match="no scores were named"):
        read_scores([])


def test_local_models_are_called_by_the_end_of_their_path():
    names = ["/a/x/tuned", "/a/y/tuned", "/a/base", "org/model", "/a/base"]
    assert list(short_names(names).values()) == ["x/tuned", "y/tuned", "base", "org/model"]
    assert short_names(["/a/base", "base"]) == {"/a/base": "a/base", "base": "base"}
