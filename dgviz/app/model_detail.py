"""Behind the map of the model: the table of weights, the curves over depth, the noise table."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dgviz.analysis.figures import POOLED, Figure
from dgviz.analysis.model_map import TowerMap
from dgviz.analysis.model_spectra import Assessment
from dgviz.analysis.noise_table import NoiseRow, noise_csv, noise_table
from dgviz.app.messages import show_warning
from dgviz.checkpoint.expression import compile_expression
from dgviz.checkpoint.module_path import CLASSES
from dgviz.errors import PairError
from dgviz.figures import depth_curves, noise_bars, plot_config

_TABLE = "model-table"
_POINTS = 40  # of a sparkline
_PAGE = 500  # lines of the table that go to the browser at once
_PLACE = "place in the model"


def draw_table(rows: list[Assessment], on_open: Callable[[Assessment], None]) -> None:
    """Show every weight with its figures and the shape of its spectrum; a chosen row opens its weight."""
    shown = _filtered(rows)
    if not shown:
        st.info("No weight matches. Change the text or the class.")
        return
    if len(shown) > _PAGE:
        shown = _page(shown)
    st.dataframe(
        [_cells(row) for row in shown],
        key=_TABLE,
        hide_index=True,
        width="stretch",
        height=min(38 + 35 * len(shown), 560),
        column_config=_columns(),
        on_select=lambda: _open_chosen(shown, on_open),
        selection_mode="single-row",
    )
    st.caption("Choose a row at its left edge to see its Figure 4. A click on a heading sorts.")


def _filtered(rows: list[Assessment]) -> list[Assessment]:
    """Return the rows that the filters leave."""
    held = {row.weight.module_path.kind for row in rows}
    present = [name for name in CLASSES if name in held]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input("Name contains", key="table-name", placeholder="text or expression", width=320)
        kinds = st.pills("Class of weight", present, selection_mode="multi", key="table-kinds")
    try:
        found = compile_expression(text or "", ignore_case=True)
    except PairError as error:
        show_warning(str(error))
        return rows
    if not text and not kinds:
        return rows
    return [
        row for row in rows if found.search(row.weight.name) and (not kinds or row.weight.module_path.kind in kinds)
    ]


def _page(rows: list[Assessment]) -> list[Assessment]:
    """Let the user choose an order and a page of it; return that page's rows: others' figures are not computed."""
    pages = -(-len(rows) // _PAGE)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = st.selectbox(
            "Sorted by",
            [_PLACE, *POOLED],
            format_func=lambda name: POOLED[name].heading if name in POOLED else name,
            key="table-order",
            width=240,
            help="Over all weights, the largest value first.",
        )
        page = st.selectbox(
            "Weights",
            range(pages),
            format_func=lambda page: (
                f"{page * _PAGE + 1:,} to {min(len(rows), (page + 1) * _PAGE):,} of {len(rows):,}"
            ),
            key=f"table-page-{pages}",
            width=240,
        )
    if order in POOLED:
        values = {id(row): POOLED[order].value(row) for row in rows}
        rows = sorted(rows, key=lambda row: -math.inf if values[id(row)] is None else values[id(row)], reverse=True)
    return rows[page * _PAGE : (page + 1) * _PAGE]


def _cells(row: Assessment) -> dict[str, Any]:
    """Return one line of the table."""
    place, s = row.weight.module_path, row.spectrum.s
    m, n = row.spectrum.shape
    return {
        "layer": place.layer[0] if place.layer else None,
        "weight": row.weight.name,
        "class": place.kind,
        "spectrum": sparkline(s),
        "shape": f"{m} x {n}",
        "of": s.size,
        **{figure.heading: figure.value(row) for figure in POOLED.values()},
    }


def _columns() -> dict[str, Any]:
    """Return how the columns read."""
    number = st.column_config.NumberColumn
    return {
        "layer": number(width="small"),
        "weight": st.column_config.TextColumn(width="large"),
        "spectrum": st.column_config.LineChartColumn(
            width="medium",
            y_min=0.0,
            y_max=1.0,
            help="Singular values over the largest one, in order. A level line is noise; a cliff at the left is what "
            "a threshold can separate.",
        ),
        **{figure.heading: number(format=figure.column, help=figure.help) for figure in POOLED.values()},
    }


def sparkline(s: NDArray[np.float64]) -> list[float]:
    """Return singular values over the largest, as the largest of each of about 40 blocks."""
    if s.size == 0 or s[0] <= 0:
        return [0.0] * min(s.size, _POINTS)
    starts = np.unique(np.linspace(0, s.size, _POINTS, endpoint=False).astype(int))
    return (s[starts] / s[0]).round(4).tolist()


def _open_chosen(shown: list[Assessment], on_open: Callable[[Assessment], None]) -> None:
    """Open the weight of the row that was chosen."""
    for position in st.session_state[_TABLE].selection.rows[:1]:
        if position < len(shown):
            on_open(shown[position])


def draw_depth(tower: TowerMap, shown: Figure) -> None:
    """Draw the quantity of the map as curves over the layers."""
    if len(tower.rows) < 2:
        st.info("There are no curves to draw: this part of the model has fewer than two layers.")
        return
    figure = depth_curves(
        tower,
        title=shown.title,
        unit=shown.unit,
        hover=lambda cell: shown.told(cell.value, cell.rows),
        from_zero=shown.from_zero,
    )
    st.plotly_chart(figure, key="depth-curves", config=plot_config("depth"))
    st.caption("One line per module, the same quantity as on the map. A click in the legend hides a line.")


def draw_noise(rows: list[Assessment], title: str) -> None:
    """Show the noise table, by class and by depth, as bars and as numbers."""
    table = noise_table(rows)
    st.markdown(
        f"What {title} takes for noise. *Mean noise* is the mean over weights of 1 - |D\\*|²/|D|², *norm share* "
        "their part of the whole update's squared norm; the product says where noise matters (the paper's Table 16)."
    )
    for column, heading, own in zip(
        st.columns(2), ("By class of weight", "By depth"), (table.classes, table.thirds), strict=True
    ):
        with column:
            st.markdown(f"**{heading}**")
            st.plotly_chart(noise_bars(own), key=f"noise-{heading}", config=plot_config("noise"))
    groups = [("class", row) for row in table.classes] + [("depth", row) for row in table.thirds]
    lines = [_noise_cells(by, row) for by, row in [*groups, ("", table.whole)]]
    percent = st.column_config.NumberColumn(format="%.2f %%")
    columns = dict.fromkeys(("mean noise", "norm share", "product", "dropped"), percent)
    st.dataframe(lines, hide_index=True, width="stretch", column_config=columns, height=38 + 35 * len(lines))
    st.caption(
        "*Dropped* is the share of the whole update's squared norm that the rule drops in the group; it equals the "
        "product where all weights of the group are equally noisy."
    )
    st.download_button("Download as CSV", noise_csv(table), "noise.csv", "text/csv", icon=":material/download:")


def _noise_cells(by: str, row: NoiseRow) -> dict[str, Any]:
    """Return one line of the noise table."""
    return {
        "by": by,
        "group": row.group,
        "weights": row.matrices,
        "parameters": row.parameters,
        "mean noise": 100 * row.mean_noise,
        "norm share": 100 * row.norm_share,
        "product": 100 * row.product,
        "dropped": 100 * row.dropped_share,
    }
