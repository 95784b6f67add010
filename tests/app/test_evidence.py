"""Evidence: the demo, files, uploads, several cells, cohorts, and every question it asks."""

import json

import pytest

from dgviz.app.scale import EVIDENCE_PARTS
from dgviz.demo import write_demo
from tests.app.pages import open_at, texts

ROWS = (("b", 0.6, 0.5, 0.58), ("c", 0.5, 0.6, 0.57), ("d", 0.5, 0.5, 0.49), ("task", 0.2, 0.8, 0.76))
CSV = "model,benchmark,score,stderr\n" + "".join(
    f"{model},{name},{v},0.005\n"
    for name, *values in ROWS
    for model, v in zip(("base", "tuned", "fixed"), values, strict=True)
)
CELLS = "cell,model,benchmark,score\n" + "".join(
    f"{cell},{model},{name},{v}\n"
    for cell in ("one", "two")
    for name, *values in ROWS
    for model, v in zip(("base", "tuned", "fixed"), values, strict=True)
)


def open_page(**query):
    app = open_at("evidence", **query)
    assert app.title[0].value.startswith("Evidence")
    return app


def open_path(path):
    app = open_page()
    app.button_group(key="scores-source").set_value("path").run()
    app.text_input(key="scores-path").set_value(str(path)).run()
    assert not app.exception, [error.value for error in app.exception]
    return app


def key_of(kind, start):
    return next(element.key for element in kind if element.key and element.key.startswith(start))


def benchmarks(app):
    """The table of every benchmark."""
    app.button_group(key="shown").set_value("benchmarks").run()
    assert not app.exception, [error.value for error in app.exception]
    return app.dataframe[0].value


def test_it_opens_on_the_demo():
    app = open_page()
    assert "DG-Hard is number" in texts(app) or "has the highest Combined" in texts(app)
    metrics = app.dataframe[0].value
    names = list(metrics["repair"])
    assert {"DG-Hard", "WiSE-FT 0.25", "Control: what DG-Hard drops"} <= set(names) and names[-2:] == [
        "revert to base",
        "keep tuned",
    ]
    controls = [name.startswith("Control: ") for name in names[:-2]]
    assert controls == sorted(controls) and controls.count(True) == 5  # after every repair, and not among them
    values = {metric.label: metric.value for metric in app.metric}
    assert values["Damaged: of 4 held-out"] == "4" and values["Repairs"] == str(controls.count(False))
    assert "--cell noisy" in texts(app)
    assert "no held-out benchmark is improved" in texts(app)
    assert set(benchmarks(app)["benchmark"]) == {"plain", "negative", "rotated", "transposed", "target"}


@pytest.mark.parametrize("part", EVIDENCE_PARTS)
def test_every_part_is_there(part):
    assert open_page(show=part).button_group(key="shown").value == part


@pytest.mark.slow
def test_all_fine_tunes_of_the_demo():
    app = open_page()
    app.button_group(key="cell").set_value("all cells").run()
    assert not app.exception
    values = {metric.label: metric.value for metric in app.metric}
    assert values["Damaged: of 8 held-out"] == "8"
    app.button_group(key="shown").set_value("cohorts").run()
    app.toggle(key="paper").set_value(True).run()
    assert not app.exception and "they are not about these models" in texts(app)


def test_without_a_pair():
    assert "has the highest Combined" in texts(open_page(base="none"))


def test_scores_beside_the_pair_come_first(tmp_path):
    demo = write_demo(tmp_path / "demo")
    app = open_page(base=demo["base"], tuned=demo["clean"])
    assert app.text_input(key="scores-path").value == str(demo["scores"])
    assert app.button_group(key="cell").value == "clean"


def test_a_csv_asks_for_the_roles(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(CSV)
    app = open_path(path)
    app.selectbox(key=key_of(app.selectbox, "role-task")).set_value("task").run()
    assert not app.exception
    values = {metric.label: metric.value for metric in app.metric}
    assert [values[f"{part}: of 3 held-out"] for part in ("Damaged", "Improved", "Unchanged")] == ["1", "1", "1"]
    row = app.dataframe[0].value.set_index("repair").loc["fixed"]
    assert row["% healed"].startswith("80.0 [") and row["% preserved"].startswith("70.0 [")
    assert f"{path} --base base --tuned tuned --on-task task" in texts(app)
    table = benchmarks(app).set_index("benchmark")
    assert table.loc["b", "tuned"].startswith("▼ 0.5") and table.loc["b", "fixed"].startswith("▲ 0.58")
    assert table.loc["d", "fixed"].startswith("= 0.49")


def test_settings_change_the_parts(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(CSV)
    app = open_path(path)
    app.number_input(key="tolerance").set_value(0.2).run()
    app.text_area(key=key_of(app.text_area, "cohorts")).set_value("K: b\nL: c, d").run()
    assert not app.exception
    values = {metric.label: metric.value for metric in app.metric}
    assert values["Unchanged: of 4 held-out"] == "3"
    assert "--cohort K=b --cohort L=c,d --tolerance 0.2" in texts(app)
    app.text_area(key=key_of(app.text_area, "cohorts")).set_value("K: nope").run()
    assert "cohort K: 'nope' is no benchmark or cell; there are b, c, d, task" in texts(app)
    app.text_area(key=key_of(app.text_area, "cohorts")).set_value("nonsense").run()
    assert "the line 'nonsense' names no cohort" in texts(app)


def test_lower_is_better_can_be_declared(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(CSV)
    app = open_path(path)
    app.multiselect(key=key_of(app.multiselect, "lower")).set_value(["b"]).run()
    assert not app.exception and "lower is better of b" in texts(app)
    assert benchmarks(app).set_index("benchmark").loc["b", "tuned"].startswith("▲")


@pytest.mark.slow
def test_nothing_is_guessed(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(CSV.replace("tuned,", "ft,"))
    assert "Which model is the fine-tuned one? Nothing is guessed here." in texts(open_path(path))
    path.write_text("model,benchmark,score\nbase,b,1\ntuned,b,2\n")
    assert "base, tuned and at least one repaired model are needed" in texts(open_path(path))
    assert "Wanted are the scores of base, tuned and repaired models" in texts(open_path(""))
    assert "there is no file or folder" in texts(open_path(tmp_path / "gone"))


def test_an_ambiguous_metric_is_asked_for(tmp_path):
    for model, value in (("base", 0.6), ("tuned", 0.5), ("fixed", 0.55)):
        results = {
            "gsm8k": {"exact_match,strict": value, "exact_match,flexible": value + 0.1},
            "b": {"acc,none": value},
        }
        content = {"results": results, "model_name": model}
        (tmp_path / f"results_{model}.json").write_text(json.dumps(content))
    app = open_path(tmp_path)
    assert "gsm8k has exact_match,strict, exact_match,flexible: choose which one is meant." in texts(app)
    app.selectbox(key="metric-gsm8k").set_value("exact_match,strict").run()
    assert not app.exception and "--metric gsm8k=exact_match,strict" in texts(app)
    assert app.dataframe[0].value["repair"].tolist()[0] == "fixed"


def test_several_cells(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(CELLS)
    app = open_path(path)
    assert app.button_group(key="cell").value == "all cells"
    assert len(benchmarks(app)) == 8
    app.button_group(key="cell").set_value("two").run()
    assert not app.exception and len(app.dataframe[0].value) == 4


def test_uploads(tmp_path):
    app = open_page()
    app.button_group(key="scores-source").set_value("upload").run()
    assert "Wanted are the scores" in texts(app)
    study = {
        "cells": [{"name": "x", "base": "base", "tuned": "tuned", "on_task": "task", "repaired": {"fix": "fixed"}}]
    }
    app.file_uploader(key="scores-upload").set_value(
        [("scores.csv", CSV.encode(), "text/csv"), ("study.json", json.dumps(study).encode(), "application/json")]
    ).run()
    assert not app.exception, [error.value for error in app.exception]
    assert app.dataframe[0].value["repair"].tolist()[0] == "fix"
    app.file_uploader(key="scores-upload").set_value([("scores.csv", b"nonsense", "text/csv")]).run()
    assert "scores.csv has no column model, benchmark, score" in texts(app)


@pytest.mark.parametrize("wanted", [["dg_hard"], []])
def test_repairs_shown(wanted):
    app = open_page()
    app.multiselect(key=key_of(app.multiselect, "repairs")).set_value(wanted).run()
    assert not app.exception
    if wanted:
        assert app.dataframe[0].value["repair"].tolist() == ["DG-Hard", "revert to base", "keep tuned"]
    else:
        assert "Choose at least one repair." in texts(app)


def test_a_study_has_panels_and_tables_in_three_forms(tmp_path):
    lines = [
        f"{cell},{model},{name},{value}"
        for cell in ("one", "two")
        for name, *values in (*ROWS, ("harm", 0.1, 0.4, 0.2))
        for model, value in zip(("base", "tuned", "fixed"), values, strict=True)
    ]
    (tmp_path / "scores.csv").write_text("\n".join(["cell,model,benchmark,score", *lines]))
    study = {
        "note": "made up",
        "cells": [
            {"name": cell, "base": "base", "tuned": "tuned", "on_task": "task", "repaired": {"dg_hard": "fixed"}}
            for cell in ("one", "two")
        ],
        "benchmarks": {"b": {}, "c": {}, "d": {}, "e": {"title": "Never scored"}},
        "axes": {"harm": {"lower_is_better": True}},
        "cohorts": {"One": ["one"], "Knowledge": None},
        "tolerance": 0.02,
    }
    (tmp_path / "study.json").write_text(json.dumps(study))
    app = open_page()
    app.button_group(key="scores-source").set_value("path").run()
    app.text_input(key="study-path").set_value(str(tmp_path / "study.json"))
    app.text_input(key="scores-path").set_value(str(tmp_path / "scores.csv")).run()
    assert not app.exception, [error.value for error in app.exception]
    said = texts(app)
    assert "made up" in said and "cohort Knowledge is open" in said
    assert app.number_input(key="tolerance-0.02").value == 0.02
    assert "Missing scores: 6" in [item.label for item in app.expander]
    app.button_group(key="shown").set_value("panels").run()
    app.button_group(key="panels").set_value("safety-trends").run()
    assert not app.exception and "single cells" in texts(app)
    app.button_group(key="shown").set_value("tables").run()
    buttons = {button.label for button in app.get("download_button")}
    assert {"CSV", "LaTeX", "Markdown", "The paper's study, to fill in"} <= buttons
    app.selectbox(key="paper-table").set_value("table-9").run()
    counts = app.dataframe[0].value
    assert list(counts["Missing"]) == ["1", "1", "2"] and list(counts["Damaged"]) == ["1", "1", "2"]
