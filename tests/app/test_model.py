"""The whole model: the map of a pair that is scanned, that is not, and what its figures draw."""

import gc
import shutil
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import streamlit as st
import torch

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_map import map_tower
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.analysis.noise_table import noise_table
from dgviz.app import model_detail
from dgviz.app.model_detail import sparkline
from dgviz.app.model_verdict import check_weights
from dgviz.checkpoint import open_pair
from dgviz.figures import depth_curves, model_map, noise_bars
from dgviz.spectra.store import SpectrumStore
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair
from tests.scans import scan_here


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A pair with experts and a store that knows all of it."""
    home = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DGVIZ_CACHE_DIR", str(home / "cache"))
        paths = write_pair(home / "pair", config={"model_type": "synthetic"})
        scan_here(open_pair(*paths))
        yield home, paths


@pytest.fixture
def home(scanned, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(scanned[0] / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    return scanned[1]


@pytest.fixture
def known(home):
    """The pair's spectra and what DG-Hard makes of it."""
    spectra = read_spectra(open_pair(*home), SpectrumStore())
    return spectra, [assess(matrix, "dg_hard", {}) for matrix in spectra.weights]


def open_model(paths, **query):
    return open_at("workbench?show=model", base=paths[0], tuned=paths[1], **query)


def metrics(app):
    return {metric.label: metric.value for metric in app.metric}


def drawn(grid, outside, **settings):
    """Return the figure of a map whose cells are told by their place."""
    keys = {id(cell): f"{part.tower}|{cell.row}|{cell.column}" for part in (grid, outside) for cell in part.cells}
    defaults = {"title": "Kept rank", "unit": "", "span": (0.0, 9.0), "short": lambda cell: str(cell.value)}
    return model_map(
        grid, outside, **{**defaults, **settings}, hover=lambda cell: "here", identity=lambda cell: keys[id(cell)]
    )


def test_a_scanned_pair_is_drawn_with_its_sums(home, known):
    app = open_model(home)
    rows = known[1]
    assert metrics(app)["Weights known"] == str(len(rows)) == "9"
    assert metrics(app)["Directions kept"] == f"{sum(row.rank for row in rows)} of {9 * 32}"
    assert not [button for button in app.button if button.key == "start-scan"]
    assert "Singular directions that the rule keeps" in texts(app)
    assert any(line.startswith("#### ") and "DG-Hard" in line for line in texts(app).split("\n"))
    dropped = sum(row.dropped_energy for row in rows) / sum(row.spectrum.energy for row in rows)
    assert f"**What it would do:** {100 * dropped:.1f} % of the update's energy is dropped" in texts(app)
    assert "names no architecture" in texts(app) and "**What to do first:** " in texts(app)


def test_a_pair_that_nobody_scanned_offers_the_scan(home, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "empty"))
    paths = write_pair(tmp_path / "other", dtype=torch.float64, config={"model_type": "synthetic"})
    app = open_model(paths)
    assert app.button(key="start-scan").label == "Scan every weight"
    assert "start the scan" in texts(app)
    assert metrics(app)["Weights known"] == "0 of 9"


@pytest.mark.parametrize("end", [st.stop, lambda: 1 / 0])
def test_garbage_waits_for_the_end_of_a_page_however_it_ends(home, monkeypatch, end):
    seen = []
    monkeypatch.setattr("dgviz.app.model_scale.draw_model", lambda model: seen.append(gc.isenabled()) or end())
    with suppress(AssertionError):  # that the app has failed
        open_model(home)
    assert seen == [False] and gc.isenabled()


def test_checking_weights_tells_how_far_it_is(known):
    told = []
    rows = [*known[1]]
    check_weights(rows, SimpleNamespace(progress=lambda share, text: told.append((share, text))))
    assert told[0] == (0.0, f"Checking {len(rows)} weights ...") and all("diagnosis" in vars(row) for row in rows)
    told.clear()
    check_weights(rows, SimpleNamespace(progress=lambda *_: told.append("again")))
    assert told == []


def test_the_map_follows_rule_and_quantity(home):
    app = open_model(home, rule="fixed_rank", params="rank:4", quantity="energy_kept")
    assert metrics(app)["Directions kept"] == f"{9 * 4} of {9 * 32}"
    assert app.selectbox(key="map-quantity").value == "energy_kept"
    app.selectbox(key="map-quantity").set_value("mp_fit").run()
    assert not app.exception
    assert app.query_params["quantity"] in ("mp_fit", ["mp_fit"])
    app.selectbox(key="map-columns").set_value("mlp.experts.gate_up_proj").run()
    assert not app.exception


def test_every_cell_of_the_map_has_a_marker_and_a_value(known):
    spectra, rows = known
    grid, outside = (map_tower(rows, spectra.missing, FIGURES["rank"], tower) for tower in ("model.layers", ""))
    figure = drawn(grid, outside)
    cells = next(trace for trace in figure.data if trace.name == "cells")
    assert len(cells.customdata) == len(grid.cells) + len(outside.cells)
    heat = next(trace for trace in figure.data if trace.type == "heatmap" and np.shape(trace.z)[0] == len(grid.rows))
    for cell in grid.cells:
        assert heat.z[cell.row][cell.column] == cell.value
        at = list(cells.customdata).index(f"model.layers|{cell.row}|{cell.column}")
        assert (cells.x[at], cells.y[at]) == (cell.column, cell.row)
    below = [y for y, key in zip(cells.y, cells.customdata, strict=True) if key.startswith("|")]
    assert below and min(below) > len(grid.rows) - 0.5
    assert figure.layout.yaxis.range[0] > max(below) and figure.layout.yaxis.range[1] == -0.5


def test_what_is_not_known_and_what_is_left_out_is_marked(known):
    rows = known[1]
    missing = [rows[-1].weight]
    grid, outside = (map_tower(rows[:-1], missing, FIGURES["rank"], tower) for tower in ("model.layers", ""))
    assert sum(len(cell.missing) for cell in (*grid.cells, *outside.cells)) == 1
    first = grid.cells[0]
    figure = drawn(grid, outside, left_out=[f"model.layers|{first.row}|{first.column}"])
    crosses = next(trace for trace in figure.data if trace.name == "left out")
    assert (crosses.x, crosses.y) == ((first.column,), (first.row,))


@pytest.mark.parametrize("columns", [1, 4, 11, 40])
def test_what_lies_outside_the_layers_has_room_for_its_name(known, columns):
    rows = [row for row in known[1] if not row.weight.module_path.layer]
    outside = map_tower(rows, (), FIGURES["rank"], "")
    grid = replace(outside, tower="layers", rows=("0",), columns=tuple(map(str, range(columns))), cells=())
    strip = next(trace for trace in drawn(grid, outside).data if trace.type == "heatmap")
    cells = next(trace for trace in drawn(grid, outside).data if trace.name == "cells")
    share = (strip.x[1] - strip.x[0]) / max(columns, 3)
    assert 1 / 6 <= share <= 1 / 3 and strip.x[0] == -0.5 and strip.x[-1] <= max(columns, 3) - 0.5
    assert len(set(zip(cells.x, cells.y, strict=True))) == len(outside.cells)
    assert all(strip.x[0] < x < strip.x[-1] for x in cells.x)


def test_verdicts_are_steps_of_a_scale_with_words(known):
    rows, quantity = known[1], FIGURES["verdict"]
    grid, outside = (map_tower(rows, (), quantity, tower) for tower in ("model.layers", ""))
    worst = {cell.names: max(quantity.value(row) for row in cell.rows) for cell in grid.cells}
    assert all(cell.value == worst[cell.names] for cell in grid.cells)
    figure = drawn(grid, outside, words=quantity.words, span=(-0.5, 3.5))
    bar = next(trace.colorbar for trace in figure.data if trace.type == "heatmap" and trace.colorbar.ticktext)
    assert bar.ticktext == ("passes the checks", "passes with warnings", "does nothing here", "does not apply")


def test_behind_the_map_are_the_table_the_curves_and_the_noise(home, known):
    app = open_model(home)
    table = app.dataframe[0].value
    assert list(table["weight"]) == [row.weight.name for row in known[1]]
    assert list(table["kept rank"]) == [row.rank for row in known[1]]
    app.text_input(key="table-name").set_value("gate_up").run()
    assert not app.exception and len(app.dataframe[0].value) == sum("gate_up" in r.weight.name for r in known[1])
    app.text_input(key="table-name").set_value("(").run()
    assert "is not a regular expression" in texts(app)
    app.segmented_control(key="model-detail").set_value("Over depth").run()
    assert not app.exception and "One line per module" in texts(app)
    app.segmented_control(key="model-detail").set_value("Noise").run()
    assert not app.exception
    shown, whole = app.dataframe[0].value, noise_table(known[1]).whole
    assert shown["weights"].iloc[-1] == whole.matrices
    assert shown["mean noise"].iloc[-1] == pytest.approx(100 * whole.mean_noise)


def test_a_long_table_goes_to_the_browser_in_pages_sorted_over_all(home, known, monkeypatch):
    monkeypatch.setattr(model_detail, "_PAGE", 5)
    names, ranks = [row.weight.name for row in known[1]], [row.rank for row in known[1]]
    app = open_model(home)
    assert list(app.dataframe[0].value["weight"]) == names[:5]
    app.selectbox(key=f"table-page-{-(-len(names) // 5)}").set_value(1).run()
    assert list(app.dataframe[0].value["weight"]) == names[5:10]
    app.selectbox(key="table-order").set_value("rank").run()
    assert list(app.dataframe[0].value["kept rank"]) == sorted(ranks, reverse=True)[5:10]
    assert not app.exception


def test_curves_have_a_point_per_layer_and_gaps_where_nothing_is_known(known):
    grid = map_tower(known[1], (), FIGURES["energy_kept"], "model.layers")
    figure = depth_curves(grid, title="Energy kept", unit="%", hover=lambda cell: "here")
    assert [line.name for line in figure.data] == list(grid.columns)
    values = {(cell.row, cell.column): cell.value for cell in grid.cells}
    for column, line in enumerate(figure.data):
        assert list(line.y) == [values.get((row, column)) for row in range(len(grid.rows))]


def test_noise_bars_are_the_table_in_percent(known):
    rows = noise_table(known[1]).classes
    figure = noise_bars(rows)
    for trace, name in zip(figure.data, ("mean_noise", "norm_share", "product"), strict=True):
        assert list(trace.x) == pytest.approx([100 * getattr(row, name) for row in rows])
        assert list(trace.y) == [row.group for row in rows]


def test_a_sparkline_keeps_the_spikes_and_the_length():
    s = np.concatenate([[10.0, 5.0], np.linspace(1, 0.1, 998)])
    line = sparkline(s)
    assert len(line) == 40 and line[0] == 1.0 and line == sorted(line, reverse=True)
    assert sparkline(np.array([4.0, 2.0])) == [1.0, 0.5]
    assert sparkline(np.zeros(3)) == [0.0, 0.0, 0.0]


def test_a_selection_is_typed_previewed_and_found_in_the_link(home, known):
    app = open_model(home)
    app.segmented_control(key="map-click").set_value("chooses weights to repair").run()
    assert metrics(app)["Tensors repaired"] == "6 of 6"
    app.text_input(key="exclude").set_value("experts").run()
    assert not app.exception
    assert metrics(app)["Tensors repaired"] == "5 of 6"
    assert app.query_params["exclude"] in ("experts", ["experts"])
    inside = [row for row in known[1] if "experts" not in row.weight.tensor.name]
    assert metrics(app)["Directions kept in them"].startswith(f"{sum(row.rank for row in inside)} of ")
    app.text_input(key="include").set_value("(").run()
    assert "no weight is left out" in texts(app)


def test_the_plan_starts_from_the_selection_in_the_link(home):
    app = open_model(home, exclude="experts")
    app.button(key="plan").click().run()
    assert not app.exception, [error.value for error in app.exception]
    assert app.text_input(key="plan-exclude").value == "experts"
    assert "**5** of 11 tensors" in texts(app)


def test_the_report_of_the_model_is_offered_where_all_of_it_is_scanned(home, tmp_path, monkeypatch):
    app = open_model(home, rule="mp_edge")
    (button,) = (found for found in app.get("download_button") if found.label == "Report (HTML)")
    assert "python -m dgviz report" in button.help and "--rule mp_edge" in button.help
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copytree(home[0].parent, tmp_path / "new")
    app = open_model([tmp_path / "new" / path.name for path in home])
    assert "Report (HTML)" not in {found.label for found in app.get("download_button")}
