"""From Python: every example runs, and numbers, bytes and sentences are those of the command line."""

import doctest
import io
import json
import re
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
import pandas
import pytest

import dgviz
import dgviz.api
import dgviz.figures.picture
import dgviz.table
from dgviz.cli import main
from dgviz.demo import write_demo
from dgviz.errors import DgvizError, ExportError, PairError, PlanError, ThresholdError
from dgviz.figures.picture import Picture
from dgviz.table import Table
from tests.checkpoints import write_pair

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "from-python.md"
NAME = "vit.encoder.layer.1.attention.output.dense.weight"
RANK = f"{NAME}: rank=9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the demo's pair, as the examples have it."""
    found = tmp_path_factory.mktemp("api")
    write_demo(found / "pair")
    return found


@pytest.fixture
def here(folder, tmp_path):
    """An own folder with the pair in it."""
    (tmp_path / "pair").symlink_to(folder / "pair")
    with chdir(tmp_path):
        yield tmp_path


def printed(*words):
    """Return what a command prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(list(map(str, words))) == 0
    return out.getvalue()


def without(report, *keys):
    return json.loads(json.dumps({key: value for key, value in report.items() if key not in keys}))


def timeless(value):
    """Return a value without what no two runs share."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in ("seconds", "stored", "computed")}
    return list(map(timeless, value)) if isinstance(value, list) else value


@pytest.mark.parametrize(
    "module", [dgviz.api, dgviz.table, dgviz.figures.picture], ids=lambda module: module.__name__
)
def test_examples_of_docstrings_run(here, module):
    found = doctest.testmod(module)
    assert found.failed == 0 and found.attempted > 0


def test_every_export_has_an_example():
    finder = doctest.DocTestFinder(recurse=False)
    names = [name for name in dgviz.__all__ if name not in ("errors", "Repaired")]
    assert [name for name in names if not finder.find(getattr(dgviz, name))[0].examples] == []


def test_the_page_runs(here):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    assert "did you mean 'classifier.weight'" in out.getvalue()
    assert {path.name for path in here.iterdir()} >= {"figure4.svg", "figure4.png", "weights.parquet", "noise.csv"}


def test_importing_it_is_light_and_says_what_there_is():
    code = "import sys, dgviz; print(sorted(n for n in sys.modules if n.startswith('dgviz')), 'numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['dgviz'] False"
    code = "import dgviz; print(dgviz.errors.PairError.__name__); dgviz.open_pear"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "PairError" and "has no attribute 'open_pear'; it has Pair" in run.stderr


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, []),
        (
            {"rule": "mp_edge", "params": {"scale": 1.1}, "overrides": ["classifier: keep=tuned", RANK]},
            [
                *["--rule", "mp_edge", "--rule-param", "scale=1.1", "--override"],
                "classifier: keep=tuned",
                "--override",
                RANK,
            ],
        ),
    ],
)
def test_a_scan_is_that_of_the_command(here, settings, options):
    scan = dgviz.open_pair("pair/base", "pair/noisy").plan(**settings).scan(workers=1)
    command = json.loads(printed("scan", "pair/base", "pair/noisy", "--json", "--workers", "1", *options))
    assert timeless(without(scan.report)) == timeless(command)
    assert scan.forecast.to_json() == command["model"]["forecast"]
    assert scan.verdict.word == scan.pair.verdict.word
    noise = json.loads(printed("noise", "pair/base", "pair/noisy", "--json", *options))
    rows = [*noise["classes"], *noise["thirds"], noise["whole"]]
    assert [{key: row[key] for key in rows[0]} for row in scan.noise] == rows
    for row in scan.weights:
        (own,) = command["weights"][row["weight"]]["matrices"]
        assert {name: row[name] for name in ("rank", "tau", "sigma", "edge")} == {
            name: own[name] for name in ("rank", "tau", "sigma", "edge")
        }
        assert (
            row["energy_kept"] == pytest.approx(100 * own["energy_kept"]) and row["mp_fit"] == own["mp_fit"]["tuned"]
        )
        assert row["verdict"] == own["diagnosis"]["verdict"]


def test_a_weight_is_that_of_the_command(here):
    pair = dgviz.open_pair("pair/base", "pair/noisy")
    update = pair[NAME]
    report = json.loads(printed("spectrum", "pair/base", "pair/noisy", NAME, "--json", "--figure", "own.svg"))
    (row,) = report["matrices"]
    assert update.spectrum.s.tolist() == row["singular_values"]
    assert timeless(without(update.figures)) == timeless(without(row, "beta", "singular_values"))
    assert update.threshold.tau == row["tau"]
    assert update.figure4("mine.svg").encode() == Path("own.svg").read_bytes() == Path("mine.svg").read_bytes()
    assert update.figure4()._repr_svg_() == Path("own.svg").read_text()


def test_no_file_takes_the_place_of_anything_in_a_checkpoint(here):
    pair = dgviz.open_pair("pair/base", "pair/noisy")
    before = {file: file.read_bytes() for file in Path("pair").rglob("*") if file.is_file()}
    for write in (pair.report, pair[NAME].figure4, pair.tensors.save):
        with pytest.raises(ExportError, match="does not end in"):
            write("pair/noisy/model.safetensors")
    for write, name in ((pair.report, "report.html"), (pair[NAME].figure4, "figure.svg")):
        with pytest.raises(ExportError, match="lies inside the tuned checkpoint"):
            write(f"pair/noisy/{name}")
    assert {file: file.read_bytes() for file in Path("pair").rglob("*") if file.is_file()} == before


def test_a_repair_has_the_bytes_of_the_command(here):
    pair = dgviz.open_pair("pair/base", "pair/noisy", exclude="classifier")
    plan = pair.plan(rule="mp_edge", overrides=[f"{NAME}: keep=base"])
    done = plan.repair("mine")
    options = ["--exclude", "classifier", "--rule", "mp_edge", "--override", f"{NAME}: keep=base"]
    report = json.loads(printed("repair", "pair/base", "pair/noisy", "own", "--json", *options))
    assert without(done.report) == without(report, "seconds")
    files = sorted(path.name for path in Path("own").iterdir())
    assert files == sorted(path.name for path in Path("mine").iterdir())
    for name in files:
        assert name == "dgviz.run.json" or Path("own", name).read_bytes() == Path("mine", name).read_bytes(), name
    again = dgviz.open_pair("pair/base", "pair/noisy").plan("own/dgviz.json")
    assert again.repair_plan == plan.repair_plan and len(again) == len(plan) == len(pair)


def test_a_lora_is_written_too(here):
    done = dgviz.open_pair("pair/base", "pair/noisy").repair("adapter", format="lora", base_name="org/base")
    assert (done.path / "adapter_config.json").is_file() and repr(done).startswith("<Repaired adapter: ")


def test_tables_read_back_as_they_are(tmp_path):
    table = Table("t", ("name", "value"), (("a,b", 0.1), ("\udcff", None), ("<b>", 3.0)))
    saved = pandas.read_parquet(table.save(tmp_path / "t.parquet"))
    assert saved["name"].tolist() == ["a,b", "\\udcff", "<b>"]
    np.testing.assert_array_equal(saved["value"], [0.1, np.nan, 3.0])
    saved = pandas.read_csv(table.save(tmp_path / "t.csv"))
    assert saved["name"].tolist() == ["a,b", "\\udcff", "<b>"] and saved["value"][0] == 0.1
    assert "&lt;b&gt;" in table._repr_html_() and "<b>" not in table._repr_html_()
    assert pandas.DataFrame(table)["name"].tolist() == table["name"] and len(table) == 3


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda pair: dgviz.open_pair("gone", "pair/noisy"), DgvizError, "gone"),
        (lambda pair: pair["classifier.wait"], PairError, "did you mean 'classifier.weight'"),
        (lambda pair: pair["classifier.bias"], PairError, "has no spectrum to show"),
        (lambda pair: pair.plan(rule="best"), ThresholdError, "no threshold rule 'best'"),
        (lambda pair: pair.plan(overrides=["nothing: keep=tuned"]), PlanError, "selects no tensor"),
        (lambda pair: pair.plan("gone.json"), PlanError, "gone.json"),
        (lambda pair: pair.plan("gone.json", rule="mp_edge"), PlanError, "overrides beside it only"),
        (
            lambda pair: pair.plan(overrides=["classifier: keep=base"])["classifier.weight"].figure4(),
            PairError,
            "no th",
        ),
        (lambda pair: pair["classifier.weight"].figure4("a.pdf"), ExportError, "does not end in .svg or .png"),
        (lambda pair: pair["classifier.weight"].figure4("gone/a.png"), ExportError, "cannot be written"),
        (lambda pair: pair.tensors.save("a.xlsx"), ExportError, "does not end in .csv or .parquet"),
        (lambda pair: pair.repair("pair/noisy/inside"), ExportError, "lies inside the tuned checkpoint"),
        (lambda pair: pair.repair("out", format="gguf"), ExportError, "no output format 'gguf'"),
        (lambda pair: pair.repair("out", base_name="a/b/c"), DgvizError, "a/b/c"),
        (lambda pair: pair.scan(workers=0), DgvizError, "at least 1 worker"),
    ],
)
def test_failures_are_one_sentence(here, ask, error, words):
    pair = dgviz.open_pair("pair/base", "pair/noisy")
    with pytest.raises(error) as caught:
        ask(pair)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_blocks_a_repair_is_a_warning_first(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    base, tuned = write_pair(tmp_path)
    file = Path(tuned) / "model.safetensors"
    tensors = load_file(file)
    name = "model.embed_tokens.weight"
    save_file(tensors | {name: torch.cat([tensors[name], tensors[name]], 1)}, file, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="embed_tokens") as caught:
        pair = dgviz.open_pair(base, tuned)
    assert caught[0].filename == __file__
    with pytest.raises(PairError, match="embed_tokens"):
        pair.repair(tmp_path / "out")
    assert pair.repair(tmp_path / "out", force=True).report["counts"]["repair"] == 5


def test_a_matrix_that_fails_is_named_and_the_others_are_done(tmp_path):
    from safetensors.torch import load_file, save_file

    base, tuned = write_pair(tmp_path)
    file = Path(tuned) / "model.safetensors"
    tensors = load_file(file)
    name = "model.embed_tokens.weight"
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=f"1 of 9 matrices failed, first {name}"):
        scan = dgviz.open_pair(base, tuned).scan(workers=1)
    assert list(scan.errors) == [name] and len(scan.weights) == 8 and "1 failed" in repr(scan)


def test_a_picture_is_drawn_with_its_words():
    empty = Picture('<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20"/>')
    written = Picture(empty.replace("/>", '><text x="2" y="15" font-family="Helvetica">tau</text></svg>'))
    assert empty.png() != written.png()
