"""The figures of a report: the maps of the model as SVG, from the same cells as the browser's map."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from plotly.colors import sample_colorscale

from dgviz.analysis.figures import FIGURES, Figure
from dgviz.analysis.model_map import map_tower, towers
from dgviz.analysis.model_spectra import Assessment
from dgviz.figures import svg
from dgviz.figures.cells import model_cells
from dgviz.figures.model_map import VERDICT_COLOURS
from dgviz.figures.picture import Picture
from dgviz.figures.style import PALE

MAPPED = "rank_share", "noise_share", "verdict"
"""The figures of which a report has a map."""

_WIDTH, _LEFT, _ROW, _LOW_ROW = 1000, 84, 24, 9
_TALLEST = 900  # of the rows of one part together
_WIDEST = 110  # of a cell
_UNKNOWN = "#e6e8ec"


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report.

    Attributes
    ----------
    name, title, caption : str
        As a file, as a heading, and what is to be known.
    picture : Picture
        It.
    """

    name: str
    title: str
    caption: str
    picture: Picture


def map_figures(rows: Sequence[Assessment]) -> list[ReportFigure]:
    """Return the maps of a model under a plan, layers by modules."""
    names = [row.weight.tensor.name for row in rows]
    found, labels = [], towers(names)
    for name in MAPPED:
        figure = FIGURES[name]
        parts = [map_tower(rows, (), figure, tower) for tower in (*labels, "")]
        titles = [labels.get(part.tower, part.title) for part in parts if part.cells]
        picture = map_picture(model_cells(parts, figure, "", ()), figure, titles)
        caption = f"{figure.help} Every cell is one weight, of experts their mean; the first layer stands lowest."
        found.append(ReportFigure(f"map-{name}", f"Map: {figure.heading}", caption, picture))
    return found


def map_picture(cells: dict[str, Any], figure: Figure, titles: Sequence[str]) -> Picture:
    """Return the map of a model (`dgviz.figures.model_cells`) as an SVG document; each part has a title."""
    top, parts = 44, [svg.text(0, 16, cells["title"], bold=True), _legend(cells, figure)]
    several = sum(part["heads"] for part in cells["parts"]) > 1
    for part, title in zip(cells["parts"], titles, strict=True):
        if several or not part["heads"]:
            parts.append(svg.text(0, top + 12, title, size=12, bold=True))
            top += 22
        drawn, top = _part(part, figure, top)
        parts += drawn
    body = "\n".join(parts)
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:.0f}" width="{_WIDTH}" '
        f'height="{top:.0f}" font-family="Helvetica, Arial, sans-serif" role="img">\n'
        f"<title>{escape(cells['title'])}, layers by modules</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _legend(cells: dict[str, Any], figure: Figure) -> str:
    """Return the colour scale, at the upper right."""
    if figure.words:
        parts, x = [], 300.0
        for word, colour in zip(figure.words, VERDICT_COLOURS, strict=True):
            parts.append(f'<rect x="{x:.0f}" y="6" width="12" height="12" rx="2" fill="{colour}"/>')
            parts.append(svg.text(x + 18, 16, word, size=12))
            x += 34 + 6.6 * len(word)
        return "\n".join(parts)
    steps = "".join(
        f'<rect x="{700 + 4 * i}" y="6" width="4.5" height="12" fill="{_colour(i / 49, figure)}"/>' for i in range(50)
    )
    ends = svg.text(692, 16, cells["low"], size=12, anchor="end"), svg.text(908, 16, cells["high"], size=12)
    return "\n".join([steps, *ends])


def _part(part: dict[str, Any], figure: Figure, top: float) -> tuple[list[str], float]:
    """Return one part of a map below `top`, and where it ends."""
    rows, columns, heads = part["rows"], part["columns"], part["heads"]
    left = _LEFT if heads else 16 + 6 * max(len(_cut(name, 48)) for name in rows)
    shown = _told_apart(columns)
    width = min(_WIDEST, (_WIDTH - left - 12) / max(1, len(columns)))
    height = max(_LOW_ROW, min(_ROW, _TALLEST / max(1, len(rows))))
    parts = []
    if heads:
        top += 16 + 3.6 * max(map(len, shown))  # a line of words at 35 degrees
        step = max(1, round(13 / width))
        for column, (short, (_, full)) in list(enumerate(zip(shown, columns, strict=True)))[::step]:
            place = f"translate({left + (column + 0.5) * width:.1f} {top - 6:.1f}) rotate(-35)"
            words = f"<title>{escape(full)}</title>{escape(short)}"
            parts.append(f'<text transform="{place}" font-size="11" fill="{svg.SOFT}">{words}</text>')
    every = max(1, round(12 / height))
    for row, name in enumerate(rows):
        if row % every == 0:
            words = f"layer {name}" if heads and row == 0 else _cut(name, 14 if heads else 48)
            place = left - 8, top + (row + 0.5) * height + 4
            parts.append(svg.text(*place, words, size=11, colour=svg.SOFT, anchor="end"))
    parts += [_cell(cell, figure, left, top, width, height) for cell in part["cells"]]
    return parts, top + len(rows) * height + 18


def _told_apart(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return the short names of columns, longer where two would read alike."""
    names = [short for short, _ in columns]
    return [_cut(full.removesuffix(".weight") if names.count(short) > 1 else short, 26) for short, full in columns]


def _cell(cell: dict[str, Any], figure: Figure, left: float, top: float, width: float, height: float) -> str:
    """Return one cell, which says what it is to whoever points at it."""
    share = cell["share"]
    colour = _UNKNOWN if share is None else _colour(share, figure)
    x, y = left + cell["column"] * width, top + cell["row"] * height
    inner = max(1.0, width - 1.5), max(1.0, height - 1.5)
    parts = [
        f'<g data-weight="{escape(cell["weight"])}"><title>{escape(cell["title"])}</title>',
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{inner[0]:.1f}" height="{inner[1]:.1f}" fill="{colour}"/>',
    ]
    if cell["text"] and height >= 14 and width >= 24:
        ink = "#ffffff" if share is not None and share > 0.55 else svg.INK
        place = x + inner[0] / 2, y + inner[1] / 2 + 4
        parts.append(svg.text(*place, cell["text"], size=11, colour=ink, anchor="middle"))
    return "".join([*parts, "</g>"])


def _colour(share: float, figure: Figure) -> str:
    """Return the colour of a share of the scale."""
    if figure.words:
        return VERDICT_COLOURS[round(share * (len(figure.words) - 1))]
    scale = [[place, colour] for place, colour in PALE]
    return sample_colorscale(scale, [min(1.0, max(0.0, share))], colortype="rgb")[0]


def _cut(text: str, most: int) -> str:
    """Return a text, its beginning left out where it is long."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
