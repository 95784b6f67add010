"""Figure 4 in a notebook: what the component tells its kernel, and what it is sent for that."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dgviz
from dgviz.demo import demo_paths
from dgviz.figures.figure4.payload import unpack

NAME = "vit.encoder.layer.1.attention.output.dense.weight"


@pytest.fixture(scope="module")
def pair():
    paths = demo_paths()
    return dgviz.open_pair(paths["base"], paths["noisy"])


def sent(widget):
    return unpack(widget.payload)


def test_it_begins_at_the_plans_threshold(pair):
    widget = pair[NAME].widget()
    header, arrays = sent(widget)
    threshold = pair[NAME].threshold
    assert (widget.tau, widget.rank) == (threshold.tau, threshold.rank) == (header["tau"], header["entries"]["rank"])
    np.testing.assert_array_equal(arrays["s"], pair[NAME].spectrum.s)
    assert {"tuned", "repaired", "discarded", "directions"} <= arrays.keys()
    other = pair.plan(overrides=[f"{NAME}: rank=9"])[NAME].widget()
    assert other.rank == 9 and sent(other)[0]["rule"] == "Fixed rank"


def test_a_tau_that_is_let_go_is_drawn_and_can_be_planned(pair):
    widget = pair[NAME].widget()
    view = sent(widget)[0]["view"]
    widget.set_state({"released": {"view": view, "tau": 0.2}})
    assert (widget.tau, widget.rank) == (0.2, 10) and sent(widget)[0]["entries"]["rank"] == 10
    planned = pair.plan(overrides=[widget.override])
    assert planned[NAME].threshold.rank == 10 and planned["classifier.weight"].threshold.rank == 1
    widget.set_state({"released": {"view": "of another weight", "tau": 0.1}})
    assert widget.rank == pair[NAME].threshold.rank


def test_parts_pooling_noise_and_directions_are_answered(pair):
    widget = pair[NAME].widget()
    view = sent(widget)[0]["view"]
    widget.set_state({"window": {"weight": NAME, "rows": [8, 40], "columns": [0, 64]}})
    header, arrays = sent(widget)
    assert (header["entries"]["rows"], header["entries"]["columns"]) == ([8, 40], [0, 64])
    assert arrays["tuned"].shape == (32, 64) and "tunedExact" in arrays
    widget.set_state({"pooling": {"pooling": "rms"}})
    assert sent(widget)[0]["entries"]["pooling"] == "rms"
    widget.set_state({"twin": {"view": view}})
    assert "twinS" in sent(widget)[1]
    widget.set_state({"twin": None, "direction": {"weight": NAME, "number": 2}})
    header, arrays = sent(widget)
    assert "twinS" not in arrays and header["direction"]["number"] == 2
    assert header["direction"]["moves"]["s"] == pair[NAME].spectrum.s[1]
    widget.set_state({"direction": {"weight": NAME, "number": 999}})
    assert sent(widget)[0]["direction"] is None


def test_a_weight_without_a_threshold_has_none(pair):
    with pytest.raises(dgviz.errors.PairError, match="the plan keeps .* as in base"):
        pair.plan(overrides=[f"{NAME}: keep=base"])[NAME].widget()


def test_without_anywidget_it_is_said_what_to_install():
    code = (
        "import sys; sys.modules['anywidget'] = None; import dgviz; from dgviz.demo import demo_paths as d; "
        "p = d(); dgviz.open_pair(p['base'], p['noisy'])['classifier.weight'].widget()"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    said = "PackageError: A figure that follows tau in a notebook needs anywidget, which is not installed: run"
    assert said in done.stderr.splitlines()[-1]
