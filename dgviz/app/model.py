"""The map of the model in view: what it shows, how it is pointed at, and where a click leads."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from dgviz.analysis.assessed import keep_assessments
from dgviz.analysis.figures import FIGURES, Figure
from dgviz.analysis.model_map import STATISTICS, Cell, TowerMap, expert_modules, map_tower, towers
from dgviz.analysis.model_spectra import Assessment, ModelSpectra
from dgviz.app.messages import show_error
from dgviz.app.model_detail import draw_depth, draw_noise, draw_table
from dgviz.app.model_verdict import draw_verdict
from dgviz.app.selection import draw_selection, note_chosen, read_selection
from dgviz.app.spectra import load_assessments, load_spectra
from dgviz.app.state import View, change_view, current_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import ThresholdError
from dgviz.figures import model_map, plot_config
from dgviz.figures.cells import value_span
from dgviz.rmt.threshold import Rule
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight

_KEY = "model-map"
_MODULES = "modules"
_GO = "model-map-opens"
_CLICKS = ("opens the weight", "chooses weights to repair")
_DETAILS = ("Every weight", "Over depth", "Noise")


@dataclass(frozen=True)
class ModelView:
    """A pair under one rule, as the view has it; what is stored of it is read at every use, since it may grow."""

    pair: CheckpointPair
    rule: Rule
    params: dict[str, Any]
    view: View

    @property
    def spectra(self) -> ModelSpectra:
        """Every spectrum that is stored."""
        return load_spectra(self.pair)

    @property
    def names(self) -> list[str]:
        """Every tensor that could be repaired."""
        return [paired.name for paired in self.pair.repairable]

    def rows(self, spectra: ModelSpectra) -> list[Assessment]:
        """Return what the rule makes of every stored matrix."""
        return load_assessments(self.pair, spectra, self.rule.name, self.params)


def draw_model(model: ModelView) -> None:
    """Draw the figures of the whole model, its map, and what lies behind it."""
    if st.session_state.pop(_GO, False):
        st.rerun()  # to the weight that was opened
    model = replace(model, view=current_view())  # a run of this part alone has the view of the whole run before
    spectra = model.spectra
    try:
        rows = model.rows(spectra)
    except ThresholdError as error:  # a rule that needs more than what a scan has stored
        show_error(error)
        return
    shown, quantity = draw_map(model, spectra, rows)
    _draw_totals(rows, spectra)
    if rows:
        checked = all("diagnosis" in vars(row) for row in rows)
        draw_verdict(model.pair, rows, model.rule, model.params, whole=not spectra.missing)
        if not checked:
            keep_assessments(spectra, model.rule.name, model.params, rows, SpectrumStore())
        if _choosing():
            draw_selection(model.view, model.names, rows)
        _draw_details(model, rows, shown, quantity)


def _draw_details(model: ModelView, rows: list[Assessment], shown: TowerMap, quantity: Figure) -> None:
    """Show one of what lies behind the map; only that one is computed."""
    chosen = st.segmented_control(
        "Behind the map",
        _DETAILS,
        default=_DETAILS[0],
        key="model-detail",
        required=True,
        label_visibility="collapsed",
    )
    if chosen == "Over depth":
        draw_depth(shown, quantity)
    elif chosen == "Noise":
        draw_noise(rows, model.rule.title)
    else:
        draw_table(rows, lambda row: _open(row.weight))


def _draw_totals(rows: list[Assessment], spectra: ModelSpectra) -> None:
    """Show what the rule makes of everything that is known."""
    count = len(spectra.weights) + len(spectra.missing)
    known = f"{len(rows):,}" + ("" if not spectra.missing else f" of {count:,}")
    with st.container(horizontal=True):
        st.metric("Weights known", known, help="Matrices with a stored spectrum; every expert is one.")
        if rows:
            kept, energy = sum(row.rank for row in rows), FIGURES["energy_kept"].pool(rows)
            directions = f"{kept:,} of {sum(row.spectrum.s.size for row in rows):,}"
            st.metric("Directions kept", directions, help="Summed over all weights known.")
            share = f"{100 if energy is None else energy:.1f} %"
            st.metric("Energy kept", share, help="Share of the update's squared norm.")
            emptied, unchanged = sum(row.emptied for row in rows), sum(row.unchanged for row in rows)
            st.metric("Nothing kept", f"{emptied:,}", help="Weights that the repair takes back to base.")
            st.metric("Everything kept", f"{unchanged:,}", help="Weights on which the rule does nothing.")
            frozen = sum(row.frozen for row in rows)
            if frozen:
                st.metric("Not trained", f"{frozen:,}", help="Weights that are base's own: there is nothing to keep.")


def draw_map(model: ModelView, spectra: ModelSpectra, rows: list[Assessment]) -> tuple[TowerMap, Figure]:
    """Draw the map with its choices; a click on a cell opens its weight.

    Return the map of the tower that is shown, and the quantity.
    """
    shown, outside, quantity = _choose_map(model.view, model.names, spectra, rows)
    choosing = _choosing()
    cells = {f"{part.tower}|{cell.row}|{cell.column}": cell for part in (shown, outside) for cell in part.cells}
    identities = {id(cell): name for name, cell in cells.items()}
    repaired = read_selection(model.view, model.names)
    figure = model_map(
        shown,
        outside,
        title=quantity.title,
        unit=quantity.unit,
        span=_span(quantity, cells.values()),
        short=lambda cell: "" if quantity.words else _short(cell.value),
        words=quantity.words,
        hover=lambda cell: _hover(cell, quantity, model.rule),
        identity=lambda cell: identities[id(cell)],
        left_out=[name for name, cell in cells.items() if not repaired.intersection(cell.names)],
        column_title="expert" if shown.columns and shown.columns[0].isdecimal() else "",
        dark=st.context.theme.type == "dark",
    )
    config = plot_config("model-map")
    if choosing:
        config["modeBarButtonsToRemove"] = ["autoScale2d"]
    st.plotly_chart(
        figure,
        key=_KEY,
        config=config,
        on_select=lambda: _choose_pointed(cells) if choosing else _open_pointed(cells),
        selection_mode=("points", "box", "lasso") if choosing else "points",
    )
    st.caption(
        f"{quantity.help} Every cell is one weight. Look for layers or modules that differ from the rest: where much "
        "is kept, fine-tuning wrote something; where nothing is, the update looks like noise."
    )
    return shown, quantity


def _choose_map(
    view: View, names: list[str], spectra: ModelSpectra, rows: list[Assessment]
) -> tuple[TowerMap, TowerMap, Figure]:
    """Let the user choose what the map shows; return the maps of a tower and of what lies outside all of them."""
    labels = towers(names)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.session_state["map-quantity"] = view.quantity if view.quantity in FIGURES else "rank"
        st.selectbox(
            "Colour shows",
            list(FIGURES),
            format_func=lambda name: FIGURES[name].title,
            key="map-quantity",
            width=280,
            on_change=lambda: change_view(quantity=st.session_state["map-quantity"]),
        )
        quantity = FIGURES[st.session_state["map-quantity"]]
        tower = next(iter(labels), "")
        if len(labels) > 1:
            tower = st.selectbox(
                "Part of the model", list(labels), format_func=labels.get, key="map-tower", width=240
            )
        statistic, unfold = "mean", ""
        experts = expert_modules((*(row.weight for row in rows), *spectra.missing), tower)
        if experts:
            columns = st.selectbox(
                "Columns are",
                [_MODULES, *experts],
                format_func=lambda name: "modules, experts folded" if name == _MODULES else f"experts of {name}",
                key="map-columns",
                width=300,
            )
            unfold = "" if columns == _MODULES else columns
            if not unfold:
                statistic = st.segmented_control(
                    "Experts as their",
                    list(STATISTICS),
                    format_func=STATISTICS.get,
                    default="mean",
                    key="map-statistic",
                    required=True,
                )
        st.segmented_control("A click", _CLICKS, default=_CLICKS[0], key="map-click", required=True)
    shown = map_tower(rows, spectra.missing, quantity, tower, statistic, unfold)
    return shown, map_tower(rows, spectra.missing, quantity, ""), quantity


def _choosing() -> bool:
    """Return whether a click on the map chooses weights for the selection."""
    return st.session_state.get("map-click") == _CLICKS[1]


def _span(quantity: Figure, cells: Iterable[Cell]) -> tuple[float, float]:
    """Return the values at the ends of the colour scale."""
    # A word's number lies in the middle of its colour.
    return (-0.5, len(quantity.words) - 0.5) if quantity.words else value_span(quantity, cells)


def _short(value: float | None) -> str:
    """Return a value in as few characters as a cell has room for."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.2g}"


def _hover(cell: Cell, quantity: Figure, rule: Rule) -> str:
    """Return what is said of a cell that is pointed at."""
    names = cell.names
    lines = [f"<b>{names[0]}</b>" if len(names) == 1 else f"<b>{names[0]}</b> and {len(names) - 1} more"]
    lines.append(f"{quantity.title}: {quantity.told(cell.value, cell.rows)}" if cell.rows else "not scanned yet")
    if len(cell.rows) > 1 and cell.low is not None:
        lines.append(f"{quantity.text(cell.low)} to {quantity.text(cell.high)} over {len(cell.rows)} experts")
    if cell.rows and cell.missing:
        lines.append(f"{len(cell.missing)} more not scanned yet")
    row = cell.extreme
    if row is not None:
        m, n = row.spectrum.shape
        opens = f", {row.weight.name}" if len(cell.rows) > 1 else ""
        lines.append(f"{m:,} x {n:,}{opens}")
        lines.append(
            f"{rule.title} keeps {row.rank:,} of {row.spectrum.s.size:,} directions, "
            f"{100 * row.energy_kept:.3g} % of the energy"
        )
    return "<br>".join(lines)


def _pointed(cells: dict[str, Cell]) -> list[Cell]:
    """Return the cells that were just selected."""
    points = st.session_state[_KEY].selection.points
    found = [point.get("customdata") for point in points]
    found = [item[0] if isinstance(item, list) else item for item in found]
    return [cells[item] for item in found if item in cells]


def _choose_pointed(cells: dict[str, Cell]) -> None:
    """Choose the weights of the cells that were selected."""
    note_chosen(list(dict.fromkeys(name for cell in _pointed(cells) for name in cell.names)))


def _open_pointed(cells: dict[str, Cell]) -> None:
    """Look at the weight of the cell that was clicked: of several, the one whose value is the extreme."""
    for cell in _pointed(cells)[:1]:
        _open(cell.extreme.weight if cell.extreme else cell.missing[0])


def _open(weight: Weight) -> None:
    """Look at a weight's Figure 4."""
    change_view(weight=weight.tensor.name)
    change_view(slice="" if weight.index is None else weight.index, show="")
    st.session_state[_GO] = True
