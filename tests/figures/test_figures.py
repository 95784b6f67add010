"""Plotly figures as values, the payload of Figure 4, and its JavaScript against Python."""

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgviz.figures import entry_map, plot_config, rules_plot, spectrum_histogram, spectrum_plot
from dgviz.figures.figure4.component import script
from dgviz.figures.figure4.maps import (
    ComparedPanels,
    ComparedSide,
    EntryPanels,
    Scale,
    SpectrumPanels,
    Window,
    choose_scale,
)
from dgviz.figures.figure4.panels import compute_between, compute_entry_panels, compute_twin
from dgviz.figures.figure4.payload import figure4_payload, matrix_axes, pack, start_tau, unpack
from dgviz.figures.histogram import axis_end, histogram_bins, law_curve
from dgviz.figures.rules import spread
from dgviz.figures.spectrum import thin_ranks
from dgviz.figures.style import LABEL_HEIGHT
from dgviz.rmt.law import bulk_edge, mp_sv_pdf, mp_sv_quantile
from dgviz.rmt.null import mp_fits
from dgviz.rmt.threshold import RULES, Threshold
from dgviz.spectra.svd.decompose import decompose

SHAPE = (1024, 384)


def noise_and_spikes(shape=SHAPE, sigma=2e-4, spikes=(12.0, 6.0, 3.0, 1.7)):
    """A spectrum of exact noise quantiles with a few values given in units of the bulk edge."""
    p = min(shape)
    bulk = mp_sv_quantile((np.arange(p - len(spikes)) + 0.5) / (p - len(spikes)), p / max(shape))
    edge = bulk_edge(sigma, shape)
    return np.sort(np.concatenate([bulk * sigma * math.sqrt(max(shape)), edge * np.asarray(spikes)]))[::-1].copy()


S = noise_and_spikes()
DG_HARD = RULES["dg_hard"].apply(S, SHAPE)


# ---- the spectrum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("log_rank", [True, False])
def test_the_spectrum_marks_kept_values_edge_and_tau(log, log_rank):
    figure = spectrum_plot(S, DG_HARD.tau, DG_HARD.edge, log=log, log_rank=log_rank, rule="DG-Hard")
    dropped, kept = figure.data
    assert list(kept.x) == [1, 2, 3, 4] and np.array_equal(kept.y, S[:4])
    assert len(dropped.x) == S.size and min(kept.y) > DG_HARD.tau >= dropped.y[4]
    assert kept.name == "kept"
    edge, tau = figure.layout.shapes
    assert (edge.y0, tau.y0) == (DG_HARD.edge, DG_HARD.tau)
    assert "DG-Hard" in figure.layout.annotations[1].text
    low, high = figure.layout.yaxis.range
    level = math.log10 if log else float
    assert low <= level(S[-1]) and level(S[0]) <= high


def test_labels_of_edge_and_tau_do_not_meet():
    figure = spectrum_plot(S, DG_HARD.tau, DG_HARD.edge, log=True, rule="DG-Hard")
    edge, tau = figure.layout.annotations
    assert edge.y == tau.y == math.log10(DG_HARD.tau)  # 1.16 apart: both above the upper line
    assert tau.xanchor == edge.xanchor == "right"
    assert (tau.xshift or 0) - edge.xshift >= 6.6 * len(tau.text)  # side by side, 6.6 pixels a letter
    apart = spectrum_plot(S, 4 * DG_HARD.edge, DG_HARD.edge, log=True)
    assert apart.layout.annotations[0].y == math.log10(DG_HARD.edge)
    assert apart.layout.annotations[1].y == math.log10(4 * DG_HARD.edge)


def test_figures_leave_ground_and_fonts_to_the_page():
    figures = [
        spectrum_plot(S, DG_HARD.tau, DG_HARD.edge, log=True),
        spectrum_histogram(S, DG_HARD.sigma, SHAPE, DG_HARD.tau, DG_HARD.edge),
        rules_plot(S, {"DG-Hard": DG_HARD}),
    ]
    for figure in figures:
        assert isinstance(figure, go.Figure)
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
        assert figure.layout.font.color is None and figure.layout.font.family is None
    assert plot_config("x")["toImageButtonOptions"]["filename"] == "x"


def test_no_edge_and_no_tau_where_there_is_no_noise():
    zero = spectrum_plot(np.zeros(8), 0.0, None, log=True)
    assert [shape.visible for shape in zero.layout.shapes] == [False, False]
    assert "all singular values are zero" in [note.text for note in zero.layout.annotations]
    linear = spectrum_plot(S, 0.0, None, log=False)
    assert [shape.visible for shape in linear.layout.shapes] == [False, True]
    assert len(linear.data[1].x) == S.size


@given(st.integers(1, 60000), st.floats(0, 1), st.integers(40, 5000))
def test_thinning_keeps_spikes_boundary_and_end(count, share, limit):
    rank = round(share * count)
    kept = thin_ranks(count, rank, limit)
    assert kept.size <= limit or count <= limit
    assert np.array_equal(kept, np.unique(kept)) and kept[0] == 0 and kept[-1] == count - 1
    boundary = {i for i in (rank - 1, rank) if 0 <= i < count}
    assert boundary <= set(kept.tolist())
    assert set(range(min(count, limit // 4))) <= set(kept.tolist())


def test_a_long_spectrum_stays_a_small_figure():
    s = noise_and_spikes((40000, 20000))
    figure = spectrum_plot(s, s[9000], 1.0, log=True)
    dropped, kept = figure.data
    assert len(dropped.x) <= 4000
    assert (
        kept.x[-1] == 9000
        and 9001 in np.asarray(dropped.x)
        and np.array_equal(dropped.y, s[np.asarray(dropped.x) - 1])
    )
    assert len(figure.to_json()) < 200_000


# ---- the histogram -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1024, 384), (300, 300), (40, 2000)])
def test_law_and_bars_are_densities_over_the_same_values(shape):
    s = noise_and_spikes(shape)
    sigma, edge = 2e-4, bulk_edge(2e-4, shape)
    tau = 1.1 * edge
    figure = spectrum_histogram(s, sigma, shape, tau, edge)
    dropped, kept, law = figure.data
    end = figure.layout.xaxis.range[1]
    x, y = np.asarray(law.x), np.asarray(law.y)
    assert x[-1] == pytest.approx(edge) and x[-1] < end
    assert np.trapezoid(y, x) == pytest.approx(1, abs=2e-4)
    bars = (np.asarray(dropped.y) + kept.y) * dropped.width
    beyond = np.count_nonzero(s > end)
    assert bars.sum() + beyond / s.size == pytest.approx(1)
    assert np.sum(np.asarray(kept.y) * kept.width) * s.size == pytest.approx(np.count_nonzero((s > tau) & (s <= end)))
    # Bars follow the law of which these values are the quantiles.
    inside = np.interp(dropped.x, x, y, left=0, right=0)
    assert np.abs(inside - dropped.y).mean() < 0.12 * y.max()


def test_spikes_beyond_the_axis_are_counted_not_drawn():
    figure = spectrum_histogram(S, DG_HARD.sigma, SHAPE, DG_HARD.tau, DG_HARD.edge)
    notes = [note.text for note in figure.layout.annotations]
    _, end = figure.layout.xaxis.range
    assert np.count_nonzero(end < S) == 4
    assert f"4 values →<br>up to {S[0] / DG_HARD.edge:.3g}×<br>the edge" in notes
    near = spectrum_histogram(S[4:], DG_HARD.sigma, (1024, 380), DG_HARD.tau, DG_HARD.edge)
    assert not any("up to" in note.text for note in near.layout.annotations)
    assert len([n for n in near.layout.annotations if "τ" in n.text or "edge" in n.text]) == 2


def test_a_delta_without_noise_has_a_histogram_without_a_law():
    low_rank = np.concatenate([np.linspace(3, 1, 8), np.full(120, 1e-9)])
    rule = RULES["dg_hard"].apply(low_rank, (256, 128))
    for sigma in (None, 0.0, math.nan, rule.sigma):
        figure = spectrum_histogram(low_rank, sigma, (256, 128), rule.tau, rule.edge)
        assert [trace.name for trace in figure.data] == ["dropped", "kept"]
        assert any("no Marchenko-Pastur law" in note.text for note in figure.layout.annotations)
    assert spectrum_histogram(np.zeros(5), None, (5, 9), 0.0, None).layout.xaxis.range[1] > 0


def test_the_axis_shows_the_whole_bulk_and_tau():
    assert axis_end(S, DG_HARD.tau, DG_HARD.edge) == pytest.approx(1.35 * DG_HARD.tau)
    assert axis_end(S[4:], DG_HARD.tau, DG_HARD.edge) > DG_HARD.edge
    bins = histogram_bins(S, 3.0)
    assert bins[0] == 0 and bins[-1] == 3 and 25 <= bins.size <= 121
    x, _ = law_curve(1.0, (9, 9))
    assert x[0] == 0 and x[-1] == pytest.approx(6)


# ---- several rules -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_labels_are_spread_in_order_and_inside(wanted):
    placed = spread(wanted, 18, 0, 400)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(np.asarray(placed)[order]) >= 18 - 1e-9).all()
    assert min(placed) >= -1e-9 and max(placed) <= 400 + 1e-9


def test_labels_with_room_stay_where_they_are():
    assert spread([100.0, 10.0, 50.0], 18, 0, 400) == [100.0, 10.0, 50.0]


@pytest.mark.parametrize("log", [True, False])
def test_every_rule_has_a_line_and_a_label_of_its_own(log):
    params = {"manual": {"tau": 1e-30}, "known_sigma": {"sigma": 1e-6}}
    found = {
        rule.title: rule.apply(S, SHAPE, **params.get(name, {}))
        for name, rule in RULES.items()
        if not rule.needs_delta
    }
    figure = rules_plot(S, found, log=log)
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    low, high = figure.layout.yaxis.range
    labels = figure.layout.annotations
    assert [a.text.split(":")[0] for a in labels] == list(found)
    heights = sorted((a.y - low) / (high - low) * inner - a.ay for a in labels)
    assert min(np.diff(heights)) >= LABEL_HEIGHT - 0.5
    drawn = [shape.y0 for shape in figure.layout.shapes]
    assert drawn == [t.tau for t in found.values() if t.tau > 1e-20 or not log]
    assert len({a.font.color for a in labels}) == len(found)


# ---- the payload -------------------------------------------------------------------------------------------


def some_panels(shape=SHAPE, rank=4, rows=40, columns=50):
    generator = np.random.default_rng(0)
    scale = Scale("log", 1e-6, 1e-2)
    codes = [generator.integers(0, 256, (rows, columns), dtype=np.uint8) for _ in range(3)]
    directions = generator.integers(0, 256, (rows, min(shape)), dtype=np.uint8)
    return EntryPanels(shape, rank, scale, *codes), SpectrumPanels(shape, S, scale, directions)


def test_payload_round_trip():
    entries, spectrum = some_panels()
    message = figure4_payload("view ü", S, SHAPE, DG_HARD, rule="DG-Hard", entries=entries, spectrum=spectrum)
    header, arrays = unpack(message)
    assert len(message) % 8 == 0 and header["view"] == "view ü"
    assert header["tau"] == header["ruleTau"] == DG_HARD.tau and header["sigma"] == DG_HARD.sigma
    assert header["entries"]["rank"] == 4 and header["spectrum"]["kind"] == "log"
    assert np.array_equal(arrays["s"], S) and np.array_equal(arrays["discarded"], entries.discarded)
    assert np.array_equal(arrays["directions"], spectrum.directions)
    assert np.array_equal(arrays["entryValues"], entries.scale.decode())


@given(st.text(max_size=30), st.lists(st.integers(0, 9), max_size=3))
def test_any_header_and_shape_survive(text, shape):
    array = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    header, arrays = unpack(pack({"text": text}, {"odd": array, "s": np.array([math.pi])}))
    assert header == {"text": text} and np.array_equal(arrays["odd"], array) and arrays["s"][0] == math.pi


def test_the_payload_refuses_what_the_browser_cannot_read():
    with pytest.raises(ValueError, match="float16"):
        pack({}, {"x": np.zeros(3, dtype=np.float16)})
    with pytest.raises(ValueError, match="JSON compliant"):
        pack({"tau": math.nan}, {})
    entries, _ = some_panels()
    with pytest.raises(ValueError, match=r"384 singular values; got shape \(383,\)"):
        figure4_payload("v", S[1:], SHAPE, DG_HARD)
    with pytest.raises(ValueError, match=r"EntryPanels of a \(1024, 384\) delta given"):
        figure4_payload("v", S, (2048, 384), DG_HARD, entries=entries)


def test_without_a_noise_estimate_there_is_no_law_but_a_reason():
    low_rank = np.concatenate([np.linspace(3, 1, 8), np.full(120, 1e-9)])
    rule = RULES["dg_hard"].apply(low_rank, (256, 128))
    header, arrays = unpack(figure4_payload("v", low_rank, (256, 128), rule))
    assert "law" not in arrays and header["edge"] is None and "low-rank delta" in header["noLaw"]
    assert np.count_nonzero(low_rank > header["tau"]) == rule.rank == 8
    zero = RULES["dg_hard"].apply(np.zeros(128), (256, 128))
    header, arrays = unpack(figure4_payload("v", np.zeros(128), (256, 128), zero))
    assert "law" not in arrays and "exactly zero" in header["noLaw"]


def test_the_start_tau_keeps_the_rank_of_the_rule():
    assert start_tau(S, DG_HARD) == DG_HARD.tau
    loose = Threshold("manual", {}, S[9], DG_HARD.sigma, DG_HARD.edge, 9)
    assert start_tau(S, loose) == S[9]


# ---- the JavaScript ----------------------------------------------------------------------------------------

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="node is not installed: the browser's functions are not compared"
)


@pytest.fixture(scope="module")
def run_js(tmp_path_factory):
    """Run a function body with the component's functions in scope and `data` as its argument."""
    folder = tmp_path_factory.mktemp("js")

    def run(body, data=None, message=b""):
        (folder / "message.bin").write_bytes(message)
        source = script() + (
            "\nimport { readFileSync } from 'node:fs';\n"
            "const [dataFile, messageFile] = process.argv.slice(2);\n"
            "const data = JSON.parse(readFileSync(dataFile)), message = new Uint8Array(readFileSync(messageFile));\n"
            f"const result = (() => {{ {body} }})();\n"
            "console.log(JSON.stringify(result, (_, x) => ArrayBuffer.isView(x) ? Array.from(x) : x));\n"
        )
        (folder / "run.mjs").write_text(source, encoding="utf-8")
        (folder / "data.json").write_text(json.dumps(data))
        command = [NODE, str(folder / "run.mjs"), str(folder / "data.json"), str(folder / "message.bin")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@needs_node
def test_browser_decodes_the_payload(run_js):
    entries, spectrum = some_panels()
    message = figure4_payload("view ü", S, SHAPE, DG_HARD, entries=entries, spectrum=spectrum)
    # A view into a longer buffer at an odd offset, as a protobuf decoder hands it out.
    got = run_js(
        "const odd = new Uint8Array(message.length + 3); odd.set(message, 3); return decodePayload(odd.subarray(3));",
        message=message,
    )
    _, arrays = unpack(message)
    assert got["view"] == "view ü" and got["s"] == S.tolist() and got["law"] == arrays["law"].tolist()
    assert got["tunedShape"] == [40, 50] and got["repaired"] == entries.repaired.ravel().tolist()
    assert got["directions"] == spectrum.directions.ravel().tolist()


@needs_node
@pytest.mark.parametrize("shape", [(1024, 384), (300, 300), (40, 900)])
def test_browser_numbers_are_those_of_python(run_js, shape):
    s = noise_and_spikes(shape)
    rule = RULES["dg_hard"].apply(s, shape)
    _, arrays = unpack(figure4_payload("v", s, shape, rule))
    p = s.size
    ranks = sorted({0, 1, 3, 4, 5, p // 3, p - 1, p})
    taus = [0.0, s[-1], rule.tau, rule.edge, s[3], s[0], 2 * s[0]]
    got = run_js(
        "const s = Float64Array.from(data.s), law = Float64Array.from(data.law), sums = cumulativeEnergy(s);"
        "return { fits: data.ranks.map((k) => fitTriple(law, k)), energy: data.ranks.map((k) => energyKept(sums, k)),"
        " ranks: data.taus.map((t) => rankAt(s, t)), reached: data.ranks.map((k) => rankAt(s, tauForRank(s, k))) };",
        {"s": s.tolist(), "law": arrays["law"].tolist(), "ranks": ranks, "taus": taus},
    )
    for rank, fit, energy in zip(ranks, got["fits"], got["energy"], strict=True):
        expected = mp_fits(s, np.where(np.arange(s.size) < rank, s, 0.0), rule.sigma, shape)
        del expected["noise"]  # a number of the payload
        expected["discardedOwn"] = expected.pop("discarded_own")
        assert {name: value and pytest.approx(value, abs=1e-10) for name, value in expected.items()} == fit
        assert energy == pytest.approx(np.sum(s[:rank] ** 2) / np.sum(s**2), abs=1e-12)
    assert got["ranks"] == [int(np.count_nonzero(s > tau)) for tau in taus]
    assert got["reached"] == ranks


@needs_node
def test_ties_and_zeros_are_stepped_over_whole(run_js):
    got = run_js(
        "const s = Float64Array.from(data);"
        "return { up: [0, 1, 3, 5].map((k) => nextRank(s, k, 1)), down: [5, 3, 1, 0].map((k) => nextRank(s, k, -1)),"
        " zero: energyKept(cumulativeEnergy(new Float64Array(3)), 0),"
        " range: tauRange(new Float64Array(3), null) };",
        [9.0, 4.0, 4.0, 2.0, 2.0, 0.0, 0.0],
    )
    assert got["up"] == [1, 3, 5, 5] and got["down"] == [3, 1, 0, 0]
    assert got["zero"] is None and got["range"]["high"] == 0


@needs_node
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("p", "width"), [(384, 380), (3072, 377), (50, 400), (1, 300), (2, 300), (700, 500)])
def test_column_blocks_split_at_the_rank_and_tuned_is_kept_plus_dropped(run_js, p, width, log):
    rows = 6
    codes = np.random.default_rng(p).integers(1, 256, (rows, p), dtype=np.uint8)
    ranks = sorted({0, 1, 2, p // 7, p // 2, p - 1, p} & set(range(p + 1)))
    got = run_js(
        "const codes = Uint8Array.from(data.codes); let before = null;"
        "return data.ranks.map((rank) => { const b = columnBlocks(data.p, data.width, rank, data.log);"
        " const e = poolColumns(codes, data.rows, data.p, b, before); before = { blocks: b, pooled: e };"
        " const parts = splitColumns(e, data.rows, b.boundary);"
        " return { ...b, e, f: parts.kept, g: parts.dropped }; });",
        {"codes": codes.ravel().tolist(), "p": p, "width": width, "rows": rows, "ranks": ranks, "log": log},
    )
    for rank, found in zip(ranks, got, strict=True):
        lo, hi, boundary = np.array(found["lo"]), np.array(found["hi"]), found["boundary"]
        assert (hi > lo).all() and lo[0] == 0 and hi[-1] == p
        assert not ((lo < rank) & (hi > rank)).any()  # no block straddles the kept rank
        if log:
            assert set(range(p)) == {r for a, b in zip(lo, hi, strict=True) for r in range(a, b)} or p == 1
        else:
            assert np.array_equal(lo[1:], hi[:-1])  # a partition
        assert (hi[:boundary] <= rank).all() and (lo[boundary:] >= rank).all()
        e, f, g = (np.array(found[name]).reshape(rows, -1) for name in "efg")
        assert np.array_equal(e, np.stack([codes[:, a:b].max(axis=1) for a, b in zip(lo, hi, strict=True)], axis=1))
        assert np.array_equal(e, f + g)
        assert not f[:, boundary:].any() and not g[:, :boundary].any()


@needs_node
@pytest.mark.parametrize("shape", [(1024, 384), (300, 300), (40, 900)])
def test_browser_draws_the_law_per_logarithm(run_js, shape):
    sigma = 0.01
    edge = bulk_edge(sigma, shape)
    got = run_js("return lawPerLog(data.edge, data.live, data.low);", {"edge": edge, "live": shape, "low": 1e-9})
    s, density = np.array(got).T
    unit, beta = sigma * np.sqrt(max(shape)), min(shape) / max(shape)
    expected = s / unit * mp_sv_pdf(s / unit, beta)
    assert density[1:-1] == pytest.approx(expected[1:-1], rel=1e-6)
    assert np.trapezoid(density, np.log(s)) == pytest.approx(1.0, abs=0.02)


@needs_node
def test_directions_kept_inside_the_bulk_are_said_at_once(run_js):
    said = run_js(
        "const s = Float64Array.from(data);"
        "return [aboutTau(s, 2.5, 3, 3), aboutTau(s, 4.5, 3, 1), aboutTau(s, 1, null, 3)];",
        [5.0, 4.0, 2.9, 2.0],
    )
    assert said[0] == "1 of the 3 kept stand below the bulk edge: like noise"
    assert "1.5 × bulk edge" in said[1] and said[2] == ""


def told_side(rank, tau, missing=None):
    """A side as the payload has it; without a rank it changes entries."""
    kept = np.where(np.arange(S.size) < (rank or 0), S, 0.0)
    fits = mp_fits(S, kept, DG_HARD.sigma, SHAPE)
    energy = float(np.sum(kept**2) / np.sum(S**2))
    return {
        "tau": tau,
        "rank": rank,
        "energy": energy,
        "fits": [fits["repaired"], fits["discarded"], fits["discarded_own"]],
        "missing": missing or {},
    }


def compared(a, b=None):
    known = {"energy": 0.5, "directions": 7, "note": ""}
    return {"labels": ["DG-Hard", "what you look at"], "live": b is None, "same": True, "cuts": [True, True]} | {
        "model": [known, known],
        "a": a,
        "b": b,
    }


TABLE = (
    "const s = Float64Array.from(data.s), law = Float64Array.from(data.law);"
    "return compareTable({ s, law, noiseFit: 97, compare: data.compare }, data.tau);"
)


@needs_node
def test_browser_tells_two_thresholds_and_their_difference(run_js):
    _, arrays = unpack(figure4_payload("v", S, SHAPE, DG_HARD))
    taus = [DG_HARD.tau, DG_HARD.edge / 2]
    ranks = [int(np.count_nonzero(tau < S)) for tau in taus]
    data = {"s": S.tolist(), "law": arrays["law"].tolist(), "tau": taus[1]}
    told = run_js(TABLE, data | {"compare": compared(told_side(ranks[0], taus[0]))})
    rows, sides = told["rows"], [told_side(rank, tau) for rank, tau in zip(ranks, taus, strict=True)]
    for row, side in zip(rows[1:3], sides, strict=True):
        assert row[2] == str(side["rank"]) and row[3] == f"{100 * side['energy']:.1f} %"
        assert row[4:7] == [f"{fit:.1f}" for fit in side["fits"]] and row[7:] == ["50.0 %", "7"]
    assert rows[3][2] == f"+{ranks[1] - ranks[0]}" and told["reasons"] == []
    assert rows[3][3] == f"+{100 * (sides[1]['energy'] - sides[0]['energy']):.1f} points" and rows[3][8] == "0"
    assert rows[0][4] == "MP-fit of the kept (noise of this shape 97.0)"


@needs_node
def test_browser_says_why_a_side_lacks_something(run_js):
    _, arrays = unpack(figure4_payload("v", S, SHAPE, DG_HARD))
    side = told_side(None, None, {"tau": "it has no threshold", "rank": "it changes entries"})
    unknown = {"why": "spectra do not tell"}
    data = {"s": S.tolist(), "law": arrays["law"].tolist(), "tau": DG_HARD.tau}
    told = run_js(TABLE, data | {"compare": compared(side) | {"model": [unknown, {"energy": 0.5, "directions": 7}]}})
    assert told["rows"][1][1:3] == ["–", "–"] and told["rows"][1][7:] == ["–", "–"]
    assert told["rows"][3][1:3] == ["–", "–"] and told["rows"][3][7:] == ["–", "–"]
    reasons = ["A, τ: it has no threshold", "A, rank: it changes entries", "A, whole model: spectra do not tell"]
    assert told["reasons"] == reasons
    waiting = run_js(TABLE, data | {"compare": compared(None)})
    assert waiting["rows"][1][1:] == ["…"] * 8 and waiting["rows"][3][1:] == ["–"] * 8


@needs_node
def test_browser_multiplies_directions_by_their_gains(run_js):
    generator = np.random.default_rng(4)
    scale = choose_scale(3.0, 0.01)
    values, gains = generator.uniform(0.01, 3.0, (11, 23)), generator.choice([0.0, 0.5, 1.0, 0.93], 23)
    codes = scale.encode(values)
    got = run_js(
        "const { codes, gains, values } = data, numbers = (list) => Float64Array.from(list);"
        "return gainColumns(Uint8Array.from(codes), numbers(gains), numbers(values));",
        {"codes": codes.ravel().tolist(), "gains": gains.tolist(), "values": scale.decode().tolist()},
    )
    exact = scale.encode(scale.decode()[codes] * gains).astype(int)
    assert np.abs(np.reshape(got, codes.shape) - exact).max() <= 1
    assert (np.reshape(got, codes.shape)[:, gains == 0] == 0).all()


@needs_node
def test_a_held_key_puts_noise_in_the_place_of_what_b_keeps_beyond_a(run_js):
    delta = torch.randn(40, 30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = decompose(delta, "cpu")
    entries = compute_entry_panels(found, delta, 3)
    between = compute_between(found, 3, 5, entries.scale)
    twin = compute_twin(entries, 1.0, 3.0, "cpu", against=9.0)
    own = RULES["dg_hard"].apply(np.asarray(found.s, dtype=np.float64), (40, 30))
    blank = ComparedSide(entries.repaired, entries.discarded, 9.0, 3, 0.5, (1.0, 2.0), None, {})
    sides = ComparedPanels(blank, blank, between)
    s = np.asarray(found.s, dtype=np.float64)
    message = figure4_payload(
        "v", s, (40, 30), own, entries=entries, compare=compared(None), compared=sides, twin=twin
    )
    names = ["repairedA", "discardedA", "repairedB", "discardedB", "between"]
    shown = run_js(
        f"const shown = twinOf(decodePayload(message)); return {names}.map((name) => shown[name]);", 0, message
    )
    wanted = [
        twin.against.repaired,
        twin.against.discarded,
        twin.entries.repaired,
        twin.entries.discarded,
        twin.between,
    ]
    assert [np.reshape(x, (40, 30)).tolist() for x in shown] == [x.tolist() for x in wanted]
    low, high = (int(np.count_nonzero(twin.s > tau)) for tau in (9.0, 3.0))
    assert high > low and twin.between.any() and not np.array_equal(twin.between, between)
    _, arrays = unpack(message)
    assert np.array_equal(arrays["between"], between) and np.array_equal(arrays["repairedA"], entries.repaired)


@needs_node
def test_browser_pools_entry_maps_by_maxima(run_js):
    codes = np.random.default_rng(2).integers(0, 256, (37, 53), dtype=np.uint8)
    got = run_js(
        "const codes = Uint8Array.from(data), rows = evenBlocks(37, 10), columns = evenBlocks(53, 20);"
        "return poolRows(poolColumns(codes, 37, 53, columns), 20, rows);",
        codes.ravel().tolist(),
    )
    expected = [
        codes[i * 37 // 10 : (i + 1) * 37 // 10, j * 53 // 20 : (j + 1) * 53 // 20].max()
        for i in range(10)
        for j in range(20)
    ]
    assert got == expected


@needs_node
def test_numbers_read_well(run_js):
    numbers = [[0, 4], [0.012211707, 4], [2.034e-4, 4], [123456.7, 4], [3072, 4], [1e-30, 2], [0.5, 3]]
    got = run_js("return data.map(([x, d]) => formatNumber(x, d));", numbers)
    assert got == ["0", "0.01221", "2.034e−4", "1.235e5", "3072", "1e−30", "0.5"]
    shares = run_js("return [0, 0.00001, 0.5, 0.99999, 1].map(formatPercent);")
    assert shares == ["0.0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100.0 %"]
    ticks = run_js("return [axisTicks(3072, 5), axisTicks(7, 5), axisTicks(1, 5)];")
    assert ticks == [[0, 500, 1000, 1500, 2000, 2500, 3000], [0, 1, 2, 3, 4, 5, 6, 7], [0, 1]]


@needs_node
def test_palettes_keep_zero_apart_and_rise_in_lightness(run_js):
    got = run_js("return [[[255,255,255], false], [[17,19,24], true]].map(([g, d]) => buildPalette(g, d).colours);")
    for colours in got:
        grey = np.array(colours) @ [0.2126, 0.7152, 0.0722]
        steps = np.diff(grey[1:])
        assert (steps <= 0.5).all() if grey[0] > 128 else (steps >= -0.5).all()
        assert np.abs(np.array(colours[1]) - colours[0]).max() > 24  # code 1 is not the page's ground


# ---- the component -----------------------------------------------------------------------------------------


def test_the_ui_process_stays_without_torch():
    code = (
        "import sys, dgviz.app.figure4, dgviz.figures, dgviz.figures.figure4.maps;"
        "print('torch' in sys.modules, 'plotly.express' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "False"], done.stderr


def mounted_page():
    import numpy
    import streamlit

    from dgviz.app.figure4 import figure4_payload, released_tau, workbench
    from dgviz.rmt.threshold import RULES

    s = numpy.linspace(2.0, 0.5, 30)
    threshold = RULES["dg_hard"].apply(s, (50, 30))
    streamlit.write(f"before: {released_tau('f', 'v')}")
    workbench("f", figure4_payload("v", s, (50, 30), threshold, rule="DG-Hard"))


def test_the_component_mounts_in_a_page():
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_function(mounted_page, default_timeout=300).run()
    assert not page.exception
    assert page.markdown[0].value == "before: None"
    assert [element.type for element in page.main][-1] == "bidi_component"


def test_an_entry_map_has_its_axes_in_rows_and_columns_and_no_placeholder_colour():
    codes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    figure = entry_map(codes, Scale("linear", 0.0, 2.0), (300, 800))
    heat = figure.data[0]
    assert np.array_equal(heat.z, codes)
    assert (heat.x0, heat.dx, heat.y0, heat.dy) == (100, 200, 50, 100)
    assert figure.layout.xaxis.range == (0, 800) and figure.layout.yaxis.range == (300, 0)
    assert heat.colorbar.ticktext[0] == "0" and len(heat.colorbar.tickvals) == len(heat.colorbar.ticktext) > 2
    assert not any(colour.startswith("#0000") for _, colour in heat.colorscale)


@pytest.mark.parametrize("log", [True, False])
def test_the_spectrum_of_rounding_is_a_labelled_line_that_moves_nothing_else(log):
    s = np.linspace(3, 0.5, 200)
    plain = spectrum_plot(s, 2.5, 2.0, log=log)
    figure = spectrum_plot(s, 2.5, 2.0, log=log, rounding=("bfloat16", s / 2))
    assert [trace.name for trace in figure.data] == ["dropped", "kept", "rounding to bfloat16 alone"]
    assert np.array_equal(figure.data[2].y, s / 2) and figure.data[2].line.dash == "dot"
    assert figure.layout.annotations[:2] == plain.layout.annotations and figure.layout.shapes == plain.layout.shapes
    assert figure.layout.annotations[2].text == "rounding to bfloat16 alone"


def test_rounding_below_the_axis_is_said_and_not_drawn():
    figure = spectrum_plot(np.linspace(3, 0.5, 200), 2.5, 2.0, log=True, rounding=("float16", np.full(200, 1e-6)))
    assert (
        len(figure.data) == 2
        and figure.layout.annotations[2].text == "rounding to float16 alone: below what is shown"
    )


# ---- windows, directions and names ------------------------------------------------------------------------------


def test_a_window_travels_with_its_entries_and_the_names_of_its_axes():
    entries, _ = some_panels()
    exact = (np.ones((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32))
    entries = dataclasses.replace(entries, window=Window((5, 7), (10, 13), "rms"), exact=exact)
    about = {"weight": "w", "axes": matrix_axes((16, 3, 4, 5), False)}
    header, arrays = unpack(figure4_payload("v", S, SHAPE, DG_HARD, entries=entries, about=about))
    assert header["entries"]["rows"] == [5, 7] and header["entries"]["columns"] == [10, 13]
    assert header["entries"]["pooling"] == "rms" and header["weight"] == "w"
    assert arrays["tunedExact"].tolist() == exact[0].tolist() and arrays["repairedExact"].dtype == np.float32
    assert header["axes"] == {"rows": "out", "columns": "in kh kw (3 × 4 × 5)", "kernel": [3, 4, 5]}
    assert matrix_axes((8, 64, 32), True) == matrix_axes((1, 64, 32), False)
    whole, _ = unpack(figure4_payload("v", S, SHAPE, DG_HARD, entries=some_panels()[0]))
    assert whole["entries"]["rows"] == [0, SHAPE[0]] and whole["axes"]["columns"] == "inputs"


@needs_node
def test_the_browser_pools_root_mean_squares(run_js):
    scale = Scale("log", 1e-4, 2.0)
    magnitudes = np.abs(np.random.default_rng(0).normal(size=(17, 23))) / 3
    codes, values = scale.encode(magnitudes), scale.decode()
    got = run_js(
        "const rows = evenBlocks(17, 5), columns = evenBlocks(23, 6);"
        "const values = Float64Array.from(data.values), codes = Uint8Array.from(data.codes);"
        "return Array.from(poolSquares(codes, 23, rows, columns, values));",
        {"codes": codes.ravel().tolist(), "values": values.tolist()},
    )
    edges = [[i * length // count for i in range(count + 1)] for length, count in ((17, 5), (23, 6))]
    expected = [
        np.sqrt(np.mean(magnitudes[a:b, c:d] ** 2))
        for a, b in itertools.pairwise(edges[0])
        for c, d in itertools.pairwise(edges[1])
    ]
    assert np.abs(np.array(got) - scale.encode(expected).astype(int)).max() <= 1


@needs_node
def test_names_directions_and_signs(run_js):
    names = [
        "model.layers.10.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.attn.q.weight",
    ]
    got = run_js(
        "const blocks = columnBlocks(100, 40, 7, true), axes = { kernel: [3, 4, 5] };"
        "return { found: ['1 up', 'attn', 'nothing', ''].map((text) => findNames(data, text, 2)),"
        " columns: [1, 7, 8, 100].map((r) => columnOf(blocks, r - 1) * 40 - 0.5),"
        " shown: [1, 7, 8, 100].map((r) => [...blocks.hi].findIndex((hi, j) => blocks.lo[j] < r && r <= hi)),"
        " outside: columnOf(blocks, 100), name: [nameColumn(59, axes), nameColumn(7, { kernel: [] })],"
        " signs: [formatSigned(-0.5, 2), formatSigned(2, 2), formatSigned(0, 2)] };",
        names,
    )
    assert got["found"] == [names[:2], names[2:], [], names[:2]]
    assert got["columns"] == pytest.approx(got["shown"]) and got["outside"] is None
    assert got["name"] == ["59 (2, 3, 4)", "7"] and got["signs"] == ["−0.5", "+2", "+0"]
