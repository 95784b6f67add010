"""The Model page: the map of a pair that is scanned, that is not, and what its figures draw."""

from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dgviz.atlas import assess, read_atlas
from dgviz.checkpoint import open_pair
from dgviz.figures import model_map
from dgviz.grid import QUANTITIES, build_grid
from dgviz.store import SpectrumStore
from dgviz.survey import iter_scan
from tests.checkpoints import write_pair

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A pair with experts and a store that knows all of it."""
    home = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DGVIZ_CACHE_DIR", str(home / "cache"))
        paths = write_pair(home / "pair", config={"model_type": "synthetic"})
        assert all(item.error is None for item in iter_scan(open_pair(*paths), device="cpu", workers=1))
        yield home, paths


@pytest.fixture
def home(scanned, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(scanned[0] / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    return scanned[1]


@pytest.fixture
def known(home):
    """The pair's atlas and what DG-Hard makes of it."""
    atlas = read_atlas(open_pair(*home), SpectrumStore())
    return atlas, [assess(matrix, "dg_hard", {}) for matrix in atlas.matrices]


def open_model(paths, **query):
    """Run the Model page with a query, as a link would."""
    app = AppTest.from_file(ROOT / "app.py", default_timeout=60)
    for name, value in {"base": paths[0], "tuned": paths[1], **query}.items():
        app.query_params[name] = str(value)
    app.run()
    app.switch_page("pages/model.py").run()
    assert not app.exception, [error.value for error in app.exception]
    return app


def texts(app):
    kinds = ("markdown", "text", "caption", "warning", "info", "error")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))


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


def test_a_pair_that_nobody_scanned_offers_the_scan(home, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "empty"))
    paths = write_pair(tmp_path / "other", dtype=torch.float64, config={"model_type": "synthetic"})
    app = open_model(paths)
    assert app.button(key="start-scan").label == "Scan every weight"
    assert "start the scan" in texts(app)
    assert metrics(app)["Weights known"] == "0 of 9"


def test_the_page_follows_rule_and_quantity(home):
    app = open_model(home, rule="fixed_rank", params="rank:4", quantity="energy_kept")
    assert metrics(app)["Directions kept"] == f"{9 * 4} of {9 * 32}"
    assert app.selectbox(key="map-quantity").value == "energy_kept"
    app.selectbox(key="map-quantity").set_value("mp_fit").run()
    assert not app.exception
    assert app.query_params["quantity"] in ("mp_fit", ["mp_fit"])
    app.selectbox(key="map-columns").set_value("mlp.experts.gate_up_proj").run()
    assert not app.exception


def test_every_cell_of_the_map_has_a_marker_and_a_value(known):
    atlas, rows = known
    grid, outside = (build_grid(rows, atlas.missing, QUANTITIES["rank"], tower) for tower in ("model.layers", ""))
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
    missing = [(rows[-1].matrix.name, rows[-1].matrix.index)]
    grid, outside = (build_grid(rows[:-1], missing, QUANTITIES["rank"], tower) for tower in ("model.layers", ""))
    assert sum(len(cell.missing) for cell in (*grid.cells, *outside.cells)) == 1
    first = grid.cells[0]
    figure = drawn(grid, outside, left_out=[f"model.layers|{first.row}|{first.column}"])
    crosses = next(trace for trace in figure.data if trace.name == "left out")
    assert (crosses.x, crosses.y) == ((first.column,), (first.row,))
