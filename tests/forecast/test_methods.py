"""Methods by pairs: which count, means with their errors, and what the package brings."""

import json

import numpy as np
import pytest

from dgviz.calibration.measure import Means
from dgviz.calibration.methods import _Scored
from dgviz.forecast.methods import FLOORS, METHOD_TITLES, method_rows, read_methods
from dgviz.repair.methods import METHODS


def row(name, damage, **healed):
    cells = {}
    for method, value in healed.items():
        cell = {"healed": {"value": value, "stderr": 1.0}, "healed_apart": value / 2}
        cells[method] = dict.fromkeys(map(str, FLOORS), cell)
    gain = {"value": 50.0, "stderr": 1.0}
    return {"name": name, "family": "f", "damage": {"value": damage, "stderr": 1.0}, "gain": gain, "methods": cells}


def test_means_are_over_the_pairs_whose_damage_is_certain(tmp_path):
    pairs = [row("a", 9.0, dg_hard=10.0, x=20.0), row("b", 9.0, dg_hard=20.0, x=50.0), row("c", 1.0, dg_hard=0, x=0)]
    file = tmp_path / "methods.json"
    file.write_text(json.dumps({"methods": {"dg_hard": "DG-Hard", "x": "X"}, "pairs": pairs}))
    table = read_methods(file)
    assert [pair["name"] for pair in table.counted] == ["a", "b"]
    own, other = method_rows(table)
    assert len(own) == len(METHOD_TITLES)
    assert own[:3] == ("DG-Hard", "2", "15.0 ± 5.0") and own[-1] == "-"
    assert other[2] == "35.0 ± 15.0" and other[5] == "17.5 ± 7.5" and other[-1] == "20.0 ± 10.0"


def test_the_table_of_the_package_is_of_the_registry():
    assert dict(read_methods().titles) == {name: method.title for name, method in METHODS.items()}


class TestBest:
    """The choice of a strength, on made-up scores."""

    def scored(self):
        found = object.__new__(_Scored)
        n = np.arange(1000) / 1000
        items = lambda own, target: {"base": (n < own) * 1.0, "target": (n < target) * 1.0}  # noqa: E731
        found.base, found.tuned = items(0.9, 0.1), items(0.5, 0.9)
        return found, {"mild": items(0.6, 0.89), "strong": items(0.8, 0.85), "much": items(0.9, 0.5)}

    @pytest.mark.parametrize(("floor", "label", "healed"), [(98, "mild", 25), (93, "strong", 75), (50, "much", 100)])
    def test_what_heals_most_of_those_that_keep_so_much(self, floor, label, healed):
        found, tried = self.scored()
        best = found.best(tried, floor, Means(found.base))
        assert best["label"] == label and best["healed"]["value"] == pytest.approx(healed)
        assert best["target_kept"]["value"] >= floor and best["target_kept"]["stderr"] > 0
        assert best["healed_apart"] == pytest.approx(healed, abs=1)

    def test_tuned_where_nothing_keeps_enough(self):
        found, tried = self.scored()
        best = found.best({"much": tried["much"]}, 98, Means(found.base))
        assert (best["label"], best["healed"]["value"], best["healed_apart"]) == ("", 0, 0)
