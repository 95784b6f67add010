"""The paper's Figures 1 and 2 of a study, one panel per cohort, and the trend of its safety axes, a panel each."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dgviz.analysis.study.tables import OVERALL, cells_by_model, counts_words, method_title, methods_of, role_scores
from dgviz.errors import ScoresError
from dgviz.figures.recovery import CONTOUR, contour_line, interval_bars, interval_words
from dgviz.figures.style import (
    ACCENT,
    LAW,
    LEGEND_ABOVE,
    MUTED,
    QUIET_AXIS,
    RULE_COLOURS,
    as_text,
    base_layout,
    series_colour,
)
from dgviz.scores.recovery import MetricValue, Recovery

_ABREAST = 3
_PANEL, _HEAD = 350, 84  # pixels of a row of panels, and of what stands above them
_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "pentagon", "hexagram")
_SMALL = {"size": 12, "color": MUTED}


def recovery_panels(recovery: Recovery) -> go.Figure:
    """Return the paper's Figure 1: % healed and % preserved of every method, one panel per cohort.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.

    Returns
    -------
    go.Figure
        DG-Hard is a blue diamond, the ideal corner a ring; dotted is a harmonic mean of 80. A method that has no
        place in a panel is named in it, and so is a cohort of which the study file leaves open what belongs to it.
    """
    figure, places = _panels(recovery, _cohorts(recovery))
    looks = method_looks(methods_of(recovery))
    found = {cohort: _metrics(recovery, cohort) for cohort in places}
    points = [
        (own["healed"].value, own["preserved"].value)
        for metrics in found.values()
        for own in metrics.values()
        if None not in (own["healed"].value, own["preserved"].value)
    ]
    low, high = [min(-8.0, *(min(p) - 5 for p in points), 0.0), max(112.0, *(max(p) + 5 for p in points), 0.0)]
    for cohort, (row, col) in places.items():
        x, y = contour_line(CONTOUR, high)
        line = {"color": MUTED, "width": 1.6, "dash": "dot"}
        _add(figure, row, col, f"harmonic mean {CONTOUR:g}", x=x, y=y, mode="lines", line=line, hoverinfo="skip")
        ring = {"color": MUTED, "symbol": "circle-open", "size": 14, "line": {"width": 2}}
        _add(figure, row, col, "ideal", x=[100], y=[100], mode="markers", marker=ring, hoverinfo="skip")
        absent = []
        for label, metrics in found[cohort].items():
            across, up = metrics["healed"], metrics["preserved"]
            if None in (across.value, up.value):
                absent.append(method_title(label))
                continue
            colour, symbol = looks[label]
            hover = f"<b>{method_title(label)}</b><br>% healed {_words(across)}<br>% preserved {_words(up)}"
            _add(
                figure,
                row,
                col,
                method_title(label),
                x=[across.value],
                y=[up.value],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 15 if symbol == "diamond" else 11},
                hovertemplate=as_text(hover) + "<extra></extra>",
                cliponaxis=False,
            )
        _say_absent(figure, row, col, absent, "% healed or % preserved")
    for axis, title in ((figure.update_xaxes, "% healed"), (figure.update_yaxes, "% preserved")):
        axis(range=[low, high], dtick=20, title={"text": title, "standoff": 6})
    return figure


def combined_panels(recovery: Recovery) -> go.Figure:
    """Return the paper's Figure 2: Combined (population) of every method with its interval, one panel per cohort.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    """
    figure, places = _panels(recovery, _cohorts(recovery))
    labels = methods_of(recovery)
    looks = method_looks(labels)
    ends = [100.0]
    for cohort, (row, col) in places.items():
        found = {label: own["combined_population"] for label, own in _metrics(recovery, cohort).items()}
        known = {label: value for label, value in found.items() if value.value is not None}
        ends += [end for value in known.values() for end in (value.value, *(value.interval or ()))]
        figure.add_bar(
            x=[as_text(method_title(label)) for label in known],
            y=[value.value for value in known.values()],
            marker={"color": [looks[label][0] for label in known]},
            text=[f"{value.value:.1f}" for value in known.values()],
            textposition="inside",
            insidetextanchor="start",
            insidetextfont={"color": "white"},
            textangle=0,
            error_y=interval_bars(
                [value.value for value in known.values()],
                [value.interval for value in known.values()],
                color=MUTED,
                thickness=1.2,
            ),
            hovertemplate="%{x}: %{y:.1f} %<extra></extra>",
            showlegend=False,
            row=row,
            col=col,
        )
        _say_absent(figure, row, col, [method_title(label) for label in labels if label not in known], "Combined")
    order = [as_text(method_title(label)) for label in labels]
    figure.update_xaxes(categoryorder="array", categoryarray=order, range=[-0.5, len(labels) - 0.5], tickangle=-35)
    figure.update_yaxes(range=[min(0.0, *ends), 1.06 * max(ends)], title={"text": "Combined, %", "standoff": 6})
    figure.update_layout(bargap=0.25)
    return figure


def axis_trends(recovery: Recovery) -> go.Figure:
    """Return every safety axis in a panel: base, tuned and every method, the mean of each model over its cells.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.

    Returns
    -------
    go.Figure
        Faint are single cells, dotted is the level of each model's base, a line joins base and tuned. Where a model
        lacks a score in some cells, the mean is of the others, drawn open; where it lacks all, it is named.
    """
    axes, models = recovery.study.design.axes, cells_by_model(recovery)
    roles = ["base", "tuned", *methods_of(recovery)]
    titles = [as_text(method_title(role)) for role in roles]
    lower = {i.benchmark for i in recovery.axes if not i.higher_is_better} | recovery.study.lower_is_better
    names = {axis: f"{title}: {'lower' if axis in lower else 'higher'} is better" for axis, title in axes.items()}
    figure, places = _panels(recovery, names)
    for axis, (row, col) in places.items():
        absent = []
        for number, (model, cells) in enumerate(models.items()):
            scores = [role_scores(recovery, cells, role, axis) for role in roles]
            known = [[value for value in own if value is not None] for own in scores]
            means = [sum(own) / len(own) if own else None for own in known]
            whole = [len(own) == len(cells) for own in known]
            absent += [f"{model}, {method_title(r)}" for r, own in zip(roles, known, strict=True) if not own]
            colour, shift = series_colour(number + 1), 0.16 * (number - (len(models) - 1) / 2)
            dots = [(place + shift, value) for place, own in enumerate(known) for value in own]
            dot = {"color": colour, "size": 5, "opacity": 0.35}
            x, y = zip(*dots, strict=True) if dots else ((), ())
            _add(figure, row, col, model, "", x=x, y=y, mode="markers", marker=dot, hoverinfo="skip")
            quiet = {"mode": "lines", "hoverinfo": "skip"}
            if means[0] is not None:
                line = {"color": colour, "width": 1.2, "dash": "dot"}
                _add(figure, row, col, model, "", x=[-0.5, len(roles) - 0.5], y=[means[0]] * 2, line=line, **quiet)
            line = {"color": colour, "width": 1.2}
            _add(figure, row, col, model, "", x=[shift, 1 + shift], y=means[:2], line=line, **quiet)
            symbol = _SYMBOLS[number % len(_SYMBOLS)]
            _add(
                figure,
                row,
                col,
                model,
                x=[place + shift for place in range(len(roles))],
                y=means,
                mode="markers",
                marker={"color": colour, "size": 10, "symbol": [symbol if w else f"{symbol}-open" for w in whole]},
                customdata=[
                    (title, f"{len(own)} of {len(cells)} cells") for title, own in zip(titles, known, strict=True)
                ],
                hovertemplate=as_text(f"<b>{model}</b>, ")
                + "%{customdata[0]}: %{y:.3f} (%{customdata[1]})<extra></extra>",
            )
        _say_absent(figure, row, col, absent, "a score")
    ticks = {"tickvals": list(range(len(roles))), "ticktext": titles, "tickangle": -35}
    figure.update_xaxes(range=[-0.5, len(roles) - 0.5], **ticks)
    figure.update_yaxes(rangemode="tozero", title={"text": "mean score", "standoff": 6})
    return figure


def write_figures(recovery: Recovery, folder: Path) -> list[Path]:
    """Write the figures as pages that need no network beside one script, and return the files.

    Parameters
    ----------
    recovery : Recovery
        The assessed study.
    folder : Path
        Made where it is not there.

    Raises
    ------
    ScoresError
        If a file cannot be written.
    """
    figures = {"figure-1": recovery_panels(recovery), "figure-2": combined_panels(recovery)}
    figures |= {"safety-trends": axis_trends(recovery)} if recovery.axes else {}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            written.append(folder / f"{name}.html")
            figure.write_html(written[-1], include_plotlyjs="directory")
    except OSError as error:
        raise ScoresError(f"figures cannot be written into {folder}: {error.strerror or error}") from error
    return written


def method_looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and symbol of every method as the paper has them: DG-Hard is the blue diamond."""
    palette = [colour for colour in RULE_COLOURS if colour not in (ACCENT, LAW, MUTED)]
    others = zip(
        (label for label in labels if label != "dg_hard"), itertools.cycle(palette), itertools.cycle(_SYMBOLS)
    )
    return {"dg_hard": (LAW, "diamond")} | {label: (colour, symbol) for label, colour, symbol in others}


def _cohorts(recovery: Recovery) -> dict[str, str]:
    """Return every cohort with the title of its panel; those that are open among them."""
    study = recovery.study
    items = {OVERALL: recovery.comparisons} | {name: recovery.of_cohort(name) for name in study.cohorts}
    titles = {name: f"{name}, {counts_words(own)}" for name, own in items.items()}
    return titles | {name: f"{name}, open" for name in study.open_cohorts()}


def _metrics(recovery: Recovery, cohort: str) -> dict[str, Mapping[str, MetricValue]]:
    """Return the metrics of every method over a cohort; none of one that is open."""
    if cohort in recovery.study.open_cohorts():
        return {}
    found = {label: recovery.repaired[label] for label in methods_of(recovery)}
    return {label: own.cohorts.get(cohort, own.metrics) for label, own in found.items()}


def _panels(recovery: Recovery, titles: Mapping[str, str]) -> tuple[go.Figure, dict[str, tuple[int, int]]]:
    """Return a figure of empty panels, and row and column of each by its name."""
    cols = min(_ABREAST, len(titles))
    rows = math.ceil(len(titles) / cols)
    note = recovery.study.design.note
    height = _HEAD + _PANEL * rows + (24 if note else 0)
    figure = make_subplots(
        rows, cols, subplot_titles=list(map(as_text, titles.values())), horizontal_spacing=0.09,
        vertical_spacing=0.36 / rows,
    )  # fmt: skip
    top = (24 if note else 0) + _HEAD
    legend = LEGEND_ABOVE | {"y": 1 + 34 / (height - top - 60), "font": {"size": 12}}
    figure.update_layout(base_layout(height, margin={"l": 60, "r": 16, "t": top, "b": 60}, legend=legend))
    figure.update_annotations(font_size=14)
    figure.update_xaxes(**QUIET_AXIS)
    figure.update_yaxes(**QUIET_AXIS)
    if note:
        figure.update_layout(
            title={"text": as_text(note), "x": 0.01, "y": 0.99, "font": {"size": 13, "color": ACCENT}}
        )
        figure.update_layout(title_yanchor="top", title_automargin=False)
    places = {name: (i // cols + 1, i % cols + 1) for i, name in enumerate(titles)}
    for name in set(recovery.study.open_cohorts()) & places.keys():
        _say(figure, *places[name], "the study file leaves open<br>what belongs to this cohort", "middle")
    return figure, places


def _add(figure: go.Figure, row: int, col: int, name: str, legend: str | None = None, **trace: Any) -> None:
    """Add a trace to a panel, in the legend once for all panels unless its name there is empty."""
    shown = legend is None and not any(other.legendgroup == name and other.showlegend for other in figure.data)
    figure.add_scatter(row=row, col=col, name=as_text(name), legendgroup=name, showlegend=shown, **trace)


def _say(figure: go.Figure, row: int, col: int, text: str, place: str) -> None:
    """Write a text into a panel, in its middle or at its bottom."""
    at = {"x": 0.5, "y": 0.5 if place == "middle" else 0.01, "xref": "x domain", "yref": "y domain"}
    figure.add_annotation(row=row, col=col, text=text, showarrow=False, font=_SMALL, yanchor=place, **at)


def _say_absent(figure: go.Figure, row: int, col: int, names: Sequence[str], what: str) -> None:
    """Say in a panel what it does not show."""
    if names:
        lines = [names[i : i + 3] for i in range(0, len(names), 3)]
        _say(
            figure, row, col, as_text(f"without {what}: " + ",<br>".join(", ".join(line) for line in lines)), "bottom"
        )


def _words(found: MetricValue) -> str:
    """Return a metric with its interval and n."""
    return " ".join(filter(None, (f"{found.value:.1f}", interval_words(found.interval), f"(n = {found.n})")))
