"""The report: one file, whole without network and scripts, small, safe with any name, with its JSON's figures."""

import io
import json
import re
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas
import pytest
import torch
from PIL import Image

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_report import read_model_report
from dgviz.cli import main
from dgviz.demo import write_demo
from dgviz.figures import report as room
from dgviz.figures.report import MOST_BYTES, weight_figure
from dgviz.rmt.diagnosis import VERDICTS
from dgviz.words import number
from tests.analysis.test_lens import LLAMA, PLANTED, write_model
from tests.checkpoints import write_checkpoint

HOSTILE = "model.layers.0.<script>alert(1)</script>\"'&.weight"
NAME = "vit.encoder.layer.1.attention.output.dense.weight"
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """What a document holds: addresses, scripts, text, and the cells of every table."""

    def __init__(self, text):
        super().__init__()
        self.links, self.scripts, self.tables, self.events = [], 0, {}, []
        self._table, self._cell = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[name] for name in ("href", "src", "xlink:href", "action", "data") if name in given]
        self.events += [name for name in given if name.startswith("on")]
        self.scripts += tag == "script"
        if given.get("id", "").startswith("table-"):
            self._table = self.tables.setdefault(given["id"].removeprefix("table-"), [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table is not None:
            self._cell = ""

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._table:
            self._table[-1].append(self._cell)
            self._cell = None
        if tag == "section":
            self._table = None


def run(*words):
    out = io.StringIO()
    with redirect_stdout(out):
        status = main(list(map(str, words)))
    return status, out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("report")
    write_demo(found / "pair")
    return found


@pytest.fixture(scope="module")
def written(folder):
    """The report of the demo's pair, its values, and its parts."""
    sides = folder / "pair" / "base", folder / "pair" / "noisy"
    (folder / "recovery.json").write_text(
        run("recovery", folder / "pair" / "scores.json", "--json", "--bootstrap", 9)[1]
    )
    options = ["-o", folder / "report.html", "--save", folder / "report.json", "--files", folder / "parts"]
    options += ["--evidence", folder / "recovery.json", "--weight", NAME, "--weight", "classifier.weight", "--json"]
    status, out = run("report", *sides, *options)
    assert status == 0
    return (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text()), json.loads(out)


def test_it_is_one_small_file_without_anything_from_elsewhere(folder, written):
    text, values, said = written
    page = Page(text)
    assert len(text.encode()) == said["bytes"] < MOST_BYTES == 5 * 2**20
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []
    assert "default-src 'none'" in text and page.scripts == 1 and page.events == []
    assert not re.search(r"url\((?!#)|@import|<link|<iframe|http-equiv=\"refresh", text)
    assert said["report"] == values == read_model_report(folder / "report.json")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_its_tables_are_those_of_the_json(written):
    text, values, _ = written
    tables = Page(text).tables
    assert "lens" not in tables | values["tables"], "the demo has no tokens"
    head, *rows = tables["weights"]
    assert len(rows) == len(values["tables"]["weights"]) == 26
    for row, known in zip(rows, values["tables"]["weights"], strict=True):
        for column, cell in zip(head, row, strict=True):
            value = known[column.replace(" ", "_")]
            expected = VERDICTS[value] if column == "verdict" else value if isinstance(value, str) else number(value)
            assert cell == expected, column
    assert [row[0] for row in tables["groups"][1:]] == [row["group"] for row in values["tables"]["groups"]]
    assert values["model"]["forecast"]["sentence"] in text.replace("&#x27;", "'")
    for reason in values["model"]["reasons"]:
        assert reason in text.replace("&#x27;", "'")
    head, *rows = tables["recovery"]
    healed = {row["repair"]: row for row in values["tables"]["recovery"] if row["metric"] == "healed"}
    for row in rows:
        own = healed[row[0]]
        assert row[head.index("healed")].startswith(f"{own['percent']:.3g} ("), row[0]


def test_its_figures_are_those_of_the_json(folder, written):
    text, values, _ = written
    rows = {row["weight"]: row for row in values["tables"]["weights"]}
    for name in ("rank_share", "noise_share", "verdict"):
        (drawn,) = re.findall(rf'<figure id="map-{name}".*?(<svg.*?</svg>)', text, flags=re.DOTALL)
        cells = {cell.get("data-weight"): cell for cell in ElementTree.fromstring(drawn).iter(f"{SVG}g")}
        assert cells.keys() == rows.keys()
        for weight, cell in cells.items():
            value = rows[weight][name]
            told = VERDICTS[value] if name == "verdict" else FIGURES[name].text(value)
            assert cell.find(f"{SVG}title").text.splitlines()[1] == f"{FIGURES[name].title}: {told}"
    for weight in (NAME, "classifier.weight"):
        row = rows[weight]
        of = min(row["rows"], row["columns"])
        assert f"τ = {row['tau']:.4g} keeps {row['rank']} of {of}" in text
    status, _ = run("spectrum", folder / "pair/base", folder / "pair/noisy", NAME, "--figure", folder / "own.svg")
    assert status == 0 and (folder / "own.svg").read_bytes() == (folder / f"parts/figure4-{NAME}.svg").read_bytes()


def test_its_parts_are_files_of_their_own(folder, written):
    _, values, said = written
    files = {path.name for path in (folder / "parts").iterdir()}
    assert files == {Path(file).name for file in said["files"]}
    for name, rows in values["tables"].items():
        for read, ending in ((pandas.read_csv, "csv"), (pandas.read_parquet, "parquet")):
            found = read(folder / "parts" / f"{name}.{ending}")
            assert len(found) == len(rows) and list(found.columns) == list(rows[0])
    weights = pandas.read_parquet(folder / "parts" / "weights.parquet")
    assert weights["tau"].tolist() == [row["tau"] for row in values["tables"]["weights"]]
    for figure in ("map-verdict", f"figure4-{NAME}"):
        with Image.open(folder / "parts" / f"{figure}.png") as image:
            assert image.width == 2000
        ElementTree.parse(folder / "parts" / f"{figure}.svg")


def test_directions_of_a_language_model_are_read_as_tokens(tmp_path):
    pair = write_model(tmp_path, update=[LLAMA[0]])
    name = "model.layers.0.mlp.down_proj.weight"
    options = ["-o", tmp_path / "report.html", "--files", tmp_path / "parts", "--weight", name, "--json"]
    status, out = run("report", pair.base.path, pair.tuned.path, *options)
    assert status == 0
    rows = json.loads(out)["report"]["tables"]["lens"]
    assert [row["plan"] for row in rows] == ["kept"] * (len(rows) - 3) + ["dropped"] * 3
    words = " ".join(f"␣word{token - 259}" for token in PLANTED)
    assert any(rows[0][end].startswith(words) for end in ("towards", "away")) and rows[0]["weight"] == name
    head, *shown = Page((tmp_path / "report.html").read_text()).tables["lens"]
    assert head[0] == "weight" and [row[4] for row in shown] == [row["towards"] for row in rows]
    assert len((tmp_path / "parts" / "lens.csv").read_text().splitlines()) == 1 + len(rows)


def test_two_reports_say_what_differs(folder, written):
    sides = folder / "pair" / "base", folder / "pair" / "noisy"
    same = ["report", *sides, "-o", folder / "same.html", "--against", folder / "report.json", "--weight", NAME]
    status, out = run(*same)
    assert status == 0 and "no settings that differ\nno weights that differ" in out
    assert "Nothing: both reports say the same." in (folder / "same.html").read_text()
    other = [*same[:3], "-o", folder / "other.html", *same[5:], "--override", f"{NAME}: factor=0.5", "--json"]
    found = json.loads(run(*other)[1])["differences"]
    settings = {row["what"]: row for row in found["settings that differ"]}
    assert settings["overrides"] == {"what": "overrides", "here": f"['{NAME}: factor=0.5']", "there": "[]"}
    assert {row["weight"] for row in found["weights that differ"]} == {NAME}
    assert {"rank", "tau", "energy_kept"} <= {row["what"] for row in found["weights that differ"]}
    tables = Page((folder / "other.html").read_text()).tables
    shown = [
        dict(zip(("weight", "what", "here", "there"), row, strict=True)) for row in tables["weights-that-differ"][1:]
    ]
    assert shown == found["weights that differ"]


def test_any_name_is_text(tmp_path):
    torch.manual_seed(0)
    base = {HOSTILE: torch.randn(64, 48), "model.layers.0.b.weight": torch.randn(64, 48)}
    tuned = {name: tensor + 0.01 * torch.randn(64, 48) for name, tensor in base.items()}
    sides = [write_checkpoint(tmp_path / side, tensors) for side, tensors in (("base", base), ("<b>tuned", tuned))]
    status, _ = run("report", *sides, "-o", tmp_path / "r.html", "--files", tmp_path / "parts", "--weight", HOSTILE)
    assert status == 0
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.scripts == 1 and "<script>alert" not in text and "<b>tuned" not in text
    assert HOSTILE in [row[0] for row in page.tables["weights"]]
    assert pandas.read_csv(tmp_path / "parts/weights.csv")["weight"].tolist().count(HOSTILE) == 1
    (drawn,) = (tmp_path / "parts").glob("figure4-*.svg")
    ElementTree.parse(drawn)


def test_figures_of_names_that_come_to_the_same_are_two_files():
    names = [weight_figure(name, "<svg/>").name for name in ("a/b", "a_b", "a\\b", "x" * 300)]
    assert len(set(names)) == 4 and max(map(len, names)) < 150


def test_too_many_figures_are_refused(written, folder, monkeypatch):
    monkeypatch.setattr(room.page, "MOST_BYTES", 100_000)
    sides = folder / "pair" / "base", folder / "pair" / "noisy"
    status, _ = run("report", *sides, "-o", folder / "large.html")
    assert status == 2 and not (folder / "large.html").exists()


def test_a_matrix_that_fails_is_in_the_report_and_the_status(tmp_path, capsys):
    base = {f"model.layers.{i}.w.weight": torch.randn(64, 48) for i in range(2)}
    tuned = {name: tensor + 0.01 * torch.randn(64, 48) for name, tensor in base.items()}
    tuned["model.layers.1.w.weight"][0, 0] = float("nan")
    sides = [write_checkpoint(tmp_path / side, tensors) for side, tensors in (("base", base), ("tuned", tuned))]
    assert main(["report", *map(str, sides), "-o", str(tmp_path / "r.html")]) == 1
    assert "model.layers.1.w.weight failed" in capsys.readouterr().err
    text = (tmp_path / "r.html").read_text()
    assert "Without figures" in text and "is nan" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--against", "gone.json"], "gone.json is not there; give what report --save writes"),
        (
            ["--against", "{pair}/scores.json"],
            "scores.json lacks 'dgviz' or has it of another kind; give what report",
        ),
        (["--against", "{pair}/noisy/model.safetensors"], "is not JSON"),
        (["--evidence", "{pair}/scores.json"], "give what recovery --json prints"),
        (["--weight", "classifier.wait"], "did you mean 'classifier.weight'"),
        (["-o", "{pair}/gone/r.html"], "cannot be written"),
    ],
)
def test_failures_are_one_sentence(folder, written, capsys, options, words):
    pair = folder / "pair"
    given = [option.format(pair=pair) for option in options]
    given += [] if "-o" in given else ["-o", str(folder / "never.html")]
    assert main(["report", f"{pair}/base", f"{pair}/noisy", *given]) == 2
    err = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert words in err and not (folder / "never.html").exists()


def test_towers_are_told_apart_on_the_maps(tmp_path):
    torch.manual_seed(0)
    names = [f"{tower}.layers.{i}.w.weight" for tower in ("text", "vision") for i in range(2)]
    base = {name: torch.randn(64, 48) for name in names}
    tuned = {name: tensor + 0.01 * torch.randn(64, 48) for name, tensor in base.items()}
    sides = [write_checkpoint(tmp_path / side, tensors) for side, tensors in (("base", base), ("tuned", tuned))]
    assert run("report", *sides, "-o", tmp_path / "r.html", "--files", tmp_path / "parts")[0] == 0
    drawn = ElementTree.parse(tmp_path / "parts" / "map-verdict.svg")
    words = [found.text for found in drawn.iter(f"{SVG}text")]
    assert {"text", "vision"} <= set(words) and len(list(drawn.iter(f"{SVG}g"))) == 4
