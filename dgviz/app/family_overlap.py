"""What the kept directions of a family have in common, from the comparison that a job has saved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from dgviz.checkpoint.module_path import layer_order, tower_labels
from dgviz.figures import overlap_curves, overlap_map, plot_config

_SIDES = {"left": "left: what the weights write", "right": "right: what they read"}


def draw_overlap(result: dict[str, Any], names: list[str]) -> None:
    """Draw the overlap of every two models, over all weights, over depth, and weight by weight."""
    st.subheader("Kept directions in common", anchor=False)
    if not result["overlap"]:
        st.info("No weight is updated by two of these models: there is nothing to compare.")
        _draw_left_out(result["not_compared"], names)
        return
    st.markdown(
        "Two updates that keep k1 and k2 directions of a weight share |U1' U2|² / min(k1, k2) of them: all of them "
        "where the smaller subspace lies in the larger. By chance they share max(k1, k2) / m: an overlap says "
        "something only where it is well above that, and nothing where most directions are kept."
    )
    beyond = st.toggle(
        "Beyond chance: (overlap - chance) / (1 - chance)",
        key="family-beyond",
        help="0 where two models share no more than random subspaces would, 100 % where one lies in the other.",
    )
    _draw_map(result["overlap"], names, beyond)
    _draw_pairs(result["overlap"], names)
    _draw_depth(result["overlap"], names, beyond)
    _draw_weights(result, names)
    _draw_left_out(result["not_compared"], names)


def _title(pair: dict[str, Any], names: Sequence[str]) -> str:
    """Return what two models are called together."""
    return " and ".join(names[position] for position in pair["models"])


def shown_share(side: dict[str, float] | None, beyond: bool) -> float:
    """Return an overlap as it is drawn, nan where there is none or chance leaves nothing beyond it."""
    if side is None or (beyond and side["chance"] >= 1):
        return float("nan")
    return (side["value"] - side["chance"]) / (1 - side["chance"]) if beyond else side["value"]


def _draw_map(overlap: list[dict[str, Any]], names: list[str], beyond: bool) -> None:
    """Draw the overlap of every two models."""
    count = len(names)
    shares = {side: np.full((count, count), np.nan) for side in _SIDES}
    hover = [[f"<b>{name}</b>" for _ in names] for name in names]
    for pair in overlap:
        i, j = pair["models"]
        for side, word in _SIDES.items():
            row, column = (j, i) if side == "left" else (i, j)
            shares[side][row, column] = shown_share(pair["all"][side], beyond)
            hover[row][column] = f"<b>{_title(pair, names)}</b><br>{word}<br>{_said(pair['all'][side])}"
    dark = st.context.theme.type == "dark"
    st.plotly_chart(
        overlap_map(names, shares["left"], shares["right"], hover, dark=dark),
        key="family-overlap",
        width=240 + 150 * count,
        config=plot_config("overlap"),
    )
    st.caption(
        "Below the diagonal the left directions, above it the right ones; mean over weights, each counted once."
    )


def _said(side: dict[str, float] | None) -> str:
    """Return an overlap in words."""
    if side is None:
        return "no weight of which both keep a direction"
    return f"{100 * side['value']:.2f} %, by chance {100 * side['chance']:.2f} ± {100 * side['spread']:.2f} %"


def _draw_pairs(overlap: list[dict[str, Any]], names: list[str]) -> None:
    """Show the figures of every two models."""
    rows = []
    for pair in overlap:
        row: dict[str, Any] = {"models": _title(pair, names), "weights": pair["all"]["compared"]}
        for side in _SIDES:
            own = pair["all"][side]
            row |= {side: own and 100 * own["value"], f"{side} by chance": own and 100 * own["chance"]}
        rows.append(row | {"cosine kept": pair["all"]["kept_cosine"], "cosine": pair["all"]["cosine"]})
    number = st.column_config.NumberColumn
    percent = dict.fromkeys(("left", "left by chance", "right", "right by chance"), number(format="%.2f %%"))
    columns = percent | {
        "weights": number(help="Weights of which both models keep at least one direction."),
        "cosine kept": number(format="%.3f", help="Of the kept parts of all weights, as two long vectors."),
        "cosine": number(format="%.3f", help="Of the whole updates of all weights, as two long vectors."),
    }
    st.dataframe(rows, hide_index=True, width="stretch", column_config=columns)


def _draw_depth(overlap: list[dict[str, Any]], names: list[str], beyond: bool) -> None:
    """Draw the overlap over the layers, a line per two models."""
    found = dict.fromkeys(layer["tower"] for pair in overlap for layer in pair["layers"])
    if not found:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        side = st.segmented_control(
            "Directions over depth", list(_SIDES), default="left", format_func=_SIDES.get, key="family-side",
            required=True,
        )  # fmt: skip
        tower = next(iter(found))
        if len(found) > 1:
            labels = tower_labels(found)
            tower = st.selectbox(
                "Part of the model", list(found), format_func=labels.get, key="overlap-tower", width=240
            )
    held = {
        _title(pair, names): {layer["layer"]: layer[side] for layer in pair["layers"] if layer["tower"] == tower}
        for pair in overlap
    }
    found = {layer for own in held.values() for layer in own}
    layers = sorted(found, key=lambda level: layer_order(tuple(map(int, level.split(".")))))
    curves = {title: [_point(own.get(layer), beyond) for layer in layers] for title, own in held.items()}
    st.plotly_chart(
        overlap_curves(layers, curves, chance=not beyond),
        key="family-overlap-depth",
        config=plot_config("overlap-depth"),
    )
    if not beyond:
        st.caption("Mean over the weights of a layer; dotted, what random subspaces of the same sizes would share.")


def _point(side: dict[str, float] | None, beyond: bool) -> tuple[float, float] | None:
    """Return the overlap and the chance of one layer."""
    share = shown_share(side, beyond)
    return None if side is None or np.isnan(share) else (share, side["chance"])


def _draw_weights(result: dict[str, Any], names: list[str]) -> None:
    """Show two models weight by weight."""
    with st.expander("Weight by weight"):
        titles = {_title(pair, names): pair["models"] for pair in result["overlap"]}
        models = titles[st.selectbox("Models", list(titles), key="family-pair", width=420)]
        rows = []
        for weight in result["weights"]:
            own = next((item for item in weight["overlaps"] if item["models"] == models), None)
            if own is None:
                continue
            row = {"layer": weight["layer"], "weight": weight["name"], "class": weight["class"]}
            row |= {f"rank of {names[model]}": weight["ranks"][model] for model in models}
            for side in _SIDES:
                share = own[side]
                row |= {side: share and 100 * share["value"], f"{side} by chance": share and 100 * share["chance"]}
            rows.append(row | {"cosine kept": own["kept_cosine"], "cosine": own["cosine"]})
        number = st.column_config.NumberColumn
        columns = dict.fromkeys(("left", "left by chance", "right", "right by chance"), number(format="%.2f %%"))
        columns |= dict.fromkeys(("cosine kept", "cosine"), number(format="%.3f"))
        st.dataframe(rows, hide_index=True, width="stretch", column_config=columns)
        st.caption("A weight of which one model keeps nothing has no overlap; its whole updates still have a cosine.")


def _draw_left_out(left_out: list[dict[str, Any]], names: list[str]) -> None:
    """Name every weight that not all models are compared on."""
    if not left_out:
        return
    with st.expander(f"{len(left_out):,} weights are not compared in every model", icon=":material/info:"):
        rows = [
            {
                "weight": item["weight"],
                "left out": ", ".join(names[position] for position in item["models"]),
                "reason": item["reason"],
            }
            for item in left_out
        ]
        st.dataframe(rows, hide_index=True, width="stretch")
