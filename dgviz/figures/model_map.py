"""The map of a model: layers by module kinds, with a strip below it for what lies outside the layers."""

from collections.abc import Callable, Collection, Sequence

import plotly.graph_objects as go

from dgviz.analysis.model_map import Cell, TowerMap
from dgviz.figures.style import MUTED, as_text, base_layout

# Pale to dark on a light page, dark to pale on a dark one: the page's own sequence of blues, and orange never, which
# marks what is kept.
_PALE = ("#eef4fb", "#d3e3f5", "#b2cdec", "#8db5e1", "#679bd4", "#4280c5", "#1a5fb4", "#144b90", "#0e386d", "#09264b")
_DEEP = ("#172334", "#1c3554", "#214a78", "#28619d", "#357ac0", "#5194d9", "#7ab2f4", "#9cc6f7", "#bfdafa", "#e2effd")
VERDICT_COLOURS = ("#1a9988", "#d9a514", "#8d96a8", "#c0392b")
"""Of the verdicts applies, with care, does nothing, does not apply; on light and dark pages."""
_UNKNOWN = "rgba(125, 133, 151, 0.16)"
_TALLEST, _LOWEST, _MAP_HEIGHT = 28, 8, 720  # pixels of a row, and of all rows together
_MOST_TEXTS = 260  # cells with their value written in
_STRIP_ROW = 22  # pixels of a row of the strip
_STRIP_CELLS = 6  # of the strip in one row at most, so that there is room for their names
_STRIP_TEXT = 110  # characters that a row of the strip has room for
_STRIP_GAP = 0.6  # rows between the map and the strip


def model_map(
    tower: TowerMap,
    outside: TowerMap,
    *,
    title: str,
    unit: str,
    span: tuple[float, float],
    short: Callable[[Cell], str],
    hover: Callable[[Cell], str],
    identity: Callable[[Cell], str],
    left_out: Collection[str] = (),
    words: tuple[str, ...] = (),
    column_title: str = "",
    dark: bool = False,
) -> go.Figure:
    """Return the map of one tower, one colour per cell, with a cell per tensor outside the layers below it.

    A heatmap reports no clicks, so an invisible marker lies on every cell and carries its identity.

    Parameters
    ----------
    tower, outside : TowerMap
        A tower, and what lies outside all layers (`dgviz.analysis.model_map.TowerMap`).
    title, unit : str
        Of the colour bar.
    span : (float, float)
        Values at the ends of the colour scale.
    short : callable
        A cell's value in a few characters.
    hover : callable
        What to say of a cell when it is pointed at.
    identity : callable
        What a selection of a cell reports, as text.
    left_out : collection of str
        Identities of cells to cross out.
    words : tuple of str
        Where values are 0, 1, 2 ...: what they mean; the scale is then in steps.
    column_title : str
        What the columns are.
    dark : bool
        Whether the page is dark.
    """
    columns = max(len(tower.columns), 1)
    wide = -(-columns // _STRIP_CELLS)  # columns of the map that one cell of the strip takes
    per_row = max(columns, 3) // wide
    height = min(_TALLEST, max(_LOWEST, _MAP_HEIGHT / max(len(tower.rows), 1)))
    tall = max(1.0, _STRIP_ROW / height)  # rows of the map that one row of the strip takes
    below = len(tower.rows) - 0.5 + _STRIP_GAP + tall / 2
    across = [wide * i + (wide - 1) / 2 for i in range(per_row)]
    strip = {id(cell): (across[i % per_row], below + tall * (i // per_row)) for i, cell in enumerate(outside.cells)}
    strip_rows = -(-len(outside.cells) // per_row)
    at = strip | {id(cell): (cell.column, cell.row) for cell in tower.cells}
    cells = [*outside.cells, *tower.cells]
    figure = go.Figure()
    # Every column and row is named, also where nothing is known: a heatmap stretches its cells into gaps.
    places = [(tower.cells, range(len(tower.columns)), range(len(tower.rows)), (1.0, 1.0))]
    places += [(outside.cells, across, [below + tall * i for i in range(strip_rows)], (wide, tall))]
    names = {id(cell): outside.columns[cell.column] for cell in outside.cells}
    texts = len(tower.cells) <= _MOST_TEXTS and height >= 15
    room = max(4, _STRIP_TEXT // per_row - 5)
    labels = [short if texts else None, lambda cell: f"{_tail(names[id(cell)], room)}  {short(cell)}"]
    known = {"zmin": span[0], "zmax": span[1]} | _colours(f"{title} ({unit})" if unit else title, words, dark)
    for (own, *axes), label in zip(places, labels, strict=True):
        empty = [cell for cell in own if cell.value is None]
        if empty:
            flat = {"colorscale": [[0, _UNKNOWN], [1, _UNKNOWN]], "showscale": False}
            flat["textfont"] = {"color": MUTED}  # by itself it would suit the ground without its transparency
            figure.add_trace(_heat(empty, at, axes, lambda _: 0.0, label, flat))
        if len(empty) < len(own):
            full = [cell for cell in own if cell.value is not None]
            figure.add_trace(_heat(full, at, axes, lambda cell: cell.value, label, known))
            known = known | {"showscale": False}
    crossed = [at[id(cell)] for cell in cells if identity(cell) in left_out]
    if crossed:
        mark = {"symbol": "x-thin", "size": min(10, height - 2), "line": {"width": 1.4, "color": MUTED}}
        x, y = zip(*crossed, strict=True)
        figure.add_scatter(x=x, y=y, mode="markers", marker=mark, hoverinfo="skip", name="left out")
    hidden = {"marker": {"opacity": 0}}
    figure.add_scatter(
        x=[at[id(cell)][0] for cell in cells],
        y=[at[id(cell)][1] for cell in cells],
        customdata=[identity(cell) for cell in cells],
        text=[as_text(hover(cell)) for cell in cells],
        hovertemplate="%{text}<extra></extra>",
        mode="markers",
        marker={"size": height, "opacity": 0},
        selected=hidden,
        unselected=hidden,
        name="cells",
    )
    last = below + tall * (strip_rows - 0.5) if strip_rows else len(tower.rows) - 0.5
    pixels = round(height * (last + 0.5)) + 112
    figure.update_layout(_layout(tower, pixels, (last, below if strip_rows else None), max(columns, 3), column_title))
    return figure


def _heat(
    cells: Sequence[Cell],
    at: dict[int, tuple[float, float]],
    axes: tuple[Sequence[float], Sequence[float], tuple[float, float]],
    value: Callable[[Cell], float],
    text: Callable[[Cell], str] | None,
    colours: dict,
) -> go.Heatmap:
    """Return coloured cells, some with text; `axes` are the columns, the rows and the size of a cell."""
    xs, ys, (wide, tall) = axes
    column, row = ({position: i for i, position in enumerate(axis)} for axis in (xs, ys))
    z: list[list[float | None]] = [[None] * len(xs) for _ in ys]
    written = [[""] * len(xs) for _ in ys]
    for cell in cells:
        x, y = at[id(cell)]
        z[row[y]][column[x]] = value(cell)
        written[row[y]][column[x]] = text(cell) if text else ""
    across, down = (
        [axis[0] - size / 2, *(position + size / 2 for position in axis)] for axis, size in ((xs, wide), (ys, tall))
    )
    heat = go.Heatmap(x=across, y=down, z=z, xgap=1, ygap=1, hoverinfo="skip", **colours)
    if text:
        heat.update(text=written, texttemplate="%{text}", textfont={"size": 11})
    return heat


def _colours(title: str, words: tuple[str, ...], dark: bool) -> dict:
    """Return the colour scale, continuous or in steps, and its bar."""
    bar = {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 1.0}
    if not words:
        return {"colorscale": _DEEP if dark else _PALE, "colorbar": bar}
    steps = VERDICT_COLOURS[: len(words)]
    scale = [[(i + end) / len(steps), colour] for i, colour in enumerate(steps) for end in (0, 1)]
    return {"colorscale": scale, "colorbar": bar | {"tickvals": list(range(len(words))), "ticktext": list(words)}}


def _tail(name: str, length: int) -> str:
    """Return the end of a dotted name, as much as fits."""
    while "." in name and len(name) > length:
        name = name.partition(".")[2]
    return as_text(name if len(name) <= length else "…" + name[1 - length :])


def _layout(
    tower: TowerMap, pixels: int, ends: tuple[float, float | None], columns: int, column_title: str
) -> go.Layout:
    """Return axes with the labels of layers and modules, as many as fit; `ends`: the lower end, and the strip."""
    last, strip = ends
    step = max(1, round(len(tower.rows) / 45))
    ticks = list(range(0, len(tower.rows), step))
    outside = [strip] if strip else []
    quiet = {"showgrid": False, "zeroline": False, "showline": False, "ticks": "", "ticklabeloverflow": "allow"}
    across = list(range(0, len(tower.columns), max(1, round(len(tower.columns) / 48))))
    return base_layout(
        max(pixels, 240),
        margin={"l": 76, "r": 8, "t": 84 if len(tower.columns) else 8, "b": 12},
        hoverdistance=90,
        dragmode="zoom",  # with "select" Streamlit lets no single click choose a cell; the toolbar has box and lasso
        xaxis=quiet
        | {
            "range": [-0.5, columns - 0.5],
            "side": "top",
            "tickvals": across,
            "ticktext": [_tail(tower.columns[i], 28) for i in across],
            "tickangle": -28 if max(map(len, tower.columns), default=0) > 4 else 0,
            "title": {"text": column_title} if column_title else None,
        },
        yaxis=quiet
        | {
            "range": [last, -0.5],
            "tickvals": [*ticks, *outside],
            "ticktext": [*(tower.rows[i] for i in ticks), *("outside" for _ in outside)],
            "title": {"text": "layer"} if tower.rows else None,
        },
    )
