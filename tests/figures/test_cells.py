"""The model's map as values for the browser."""

import json

import pytest
import torch

from dgviz.analysis.figures import FIGURES
from dgviz.analysis.model_map import map_tower, towers
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.checkpoint import open_pair
from dgviz.figures.cells import model_cells, value_span
from tests.checkpoints import planted_update, write_checkpoint
from tests.scans import scan_here


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in range(3) for part in "qv"]
    base = {name: torch.randn(48, 32, generator=generator) for name in [*names, "lm_head.weight"]}
    base["model.layers.1.mlp.experts.up_proj"] = torch.randn(4, 48, 32, generator=generator)
    sides = {"base": base, "tuned": planted_update(base)}
    return open_pair(*(write_checkpoint(folder / side, tensors) for side, tensors in sides.items()))


@pytest.fixture(scope="module")
def drawn(pair):
    """The map before and after a scan."""

    def draw(figure, **more):
        spectra = read_spectra(pair)
        rows = [assess(matrix, "dg_hard", {}) for matrix in spectra.weights]
        names = [tensor.name for tensor in pair.repairable]
        parts = [map_tower(rows, spectra.missing, FIGURES[figure], tower) for tower in (*towers(names), "")]
        chosen = {"open_name": "lm_head.weight", "overridden": (), **more}
        return model_cells(parts, FIGURES[figure], **chosen), rows

    before = draw("energy_kept")[0]
    scan_here(pair)
    return before, draw


def test_before_a_scan_every_cell_is_there_and_has_no_value(pair, drawn):
    cells = [cell for part in drawn[0]["parts"] for cell in part["cells"]]
    assert {name for cell in cells for name in cell["names"]} == {tensor.name for tensor in pair.repairable}
    assert all(cell["share"] is None and "not scanned yet" in cell["title"] for cell in cells)


def test_layers_rise_and_experts_are_one_cell(drawn):
    shown, rows = drawn[1]("energy_kept")
    layers, outside = shown["parts"]
    assert layers["rows"] == ["2", "1", "0"] and [short for short, _ in layers["columns"]] == ["q", "v", "up"]
    value = {row.weight.name: 100 * row.energy_kept for row in rows}
    high = max(value.values())
    for cell in layers["cells"]:
        layer = int(layers["rows"][cell["row"]])
        assert all(f"layers.{layer}." in name for name in cell["names"])
        if len(cell["names"]) == 1 and "[" not in cell["weight"]:
            assert cell["share"] == pytest.approx(value[cell["weight"]] / float(high))
    (stack,) = (cell for cell in layers["cells"] if "experts" in cell["names"][0])
    assert stack["weight"].endswith("]") and "over 4 matrices" in stack["title"] and "median" in stack["title"]
    assert outside["rows"] == ["lm_head"] and shown["open"] == "lm_head.weight"
    json.dumps(shown, allow_nan=False)


def test_experts_stand_side_by_side_where_their_cell_is_open(drawn):
    assert drawn[1]("energy_kept")[0]["strip"] == []
    shown, rows = drawn[1]("energy_kept", open_name="model.layers.1.mlp.experts.up_proj")
    value = {row.weight.name: 100 * row.energy_kept for row in rows}
    names = [f"model.layers.1.mlp.experts.up_proj[{index}]" for index in range(4)]
    assert [item["weight"] for item in shown["strip"]] == names
    for item in shown["strip"]:
        assert item["share"] == pytest.approx(value[item["weight"]] / float(max(value.values())))


def test_overrides_are_marked(drawn):
    shown, _ = drawn[1]("rank", overridden={"lm_head.weight"})
    marked = [cell for part in shown["parts"] for cell in part["cells"] if cell["overridden"]]
    assert [cell["weight"] for cell in marked] == ["lm_head.weight"] and "override" in marked[0]["title"]


def test_words_have_a_scale_of_their_own(drawn):
    shown, _ = drawn[1]("verdict")
    words = FIGURES["verdict"].words
    assert (shown["low"], shown["high"]) == (words[0], words[-1])
    assert value_span(FIGURES["verdict"], []) == (0.0, len(words) - 1.0)
    assert all(cell["text"] == "" for part in shown["parts"] for cell in part["cells"])


def test_the_worst_fits_come_first_in_a_list_of_their_own(drawn):
    shown, rows = drawn[1]("residual_fit", order="fit")
    (part,) = shown["parts"]
    worst = min((row for row in rows if row.residual_fit is not None), key=lambda row: row.residual_fit)
    first = next(cell for cell in part["cells"] if cell["row"] == 0)
    assert worst.weight.tensor.name in first["names"] and not part["heads"]
    values = [float(cell["text"]) for cell in sorted(part["cells"], key=lambda cell: cell["row"])]
    assert values == sorted(values) and len(part["rows"]) == len(values)


def test_two_rules_are_compared_cell_by_cell(pair, drawn):
    spectra, names = read_spectra(pair), [tensor.name for tensor in pair.repairable]
    looser = [assess(matrix, "dg_hard", {"scale": 0.5}) for matrix in spectra.weights]
    before = [map_tower(looser, (), FIGURES["energy_kept"], tower) for tower in (*towers(names), "")]
    shown, rows = drawn[1]("energy_kept", order="between", before=before)
    kept = {row.weight.name: row.energy_kept for row in rows}
    gained = {row.weight.name: 100 * (kept[row.weight.name] - row.energy_kept) for row in looser}
    cells = [cell for part in shown["parts"] for cell in part["cells"]]
    most = max(abs(value) for name, value in gained.items() if "[" not in name)
    shares = {cell["weight"]: cell["share"] for cell in cells if "[" not in cell["weight"]}
    scale = most / max(abs(share) for share in shares.values())
    assert shown["diverging"] and shown["orders"][-1] == "between"
    for name, share in shares.items():
        assert share * scale == pytest.approx(gained[name], abs=1e-9)
