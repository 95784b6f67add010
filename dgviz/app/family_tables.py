"""A family from its stored spectra: figures side by side, over depth, and the noise tables."""

from typing import Any

import streamlit as st

from dgviz.analysis.family import depth_map, family_csv, member_report, noise_tables_csv
from dgviz.analysis.figures import POOLED
from dgviz.analysis.groups import WHOLE, groups_of
from dgviz.analysis.model_map import towers
from dgviz.analysis.model_spectra import Assessment, ModelSpectra, verdict_of
from dgviz.analysis.noise_table import noise_table
from dgviz.app.family import Member
from dgviz.app.messages import plain, show_error
from dgviz.app.model_verdict import check_weights
from dgviz.app.spectra import load_assessments, load_spectra
from dgviz.errors import ThresholdError
from dgviz.figures import depth_curves, noise_by_model, plot_config
from dgviz.rmt.diagnosis import VERDICTS
from dgviz.rmt.threshold import Rule

_NOISE = {
    "mean_noise": ("mean noise", "Mean over the weights of the group that changed of 1 - |D*|²/|D|²."),
    "norm_share": ("norm share", "Part of the group in the whole update's squared norm."),
    "product": ("product", "Mean noise times norm share, as in the paper's Table 16."),
    "dropped_share": ("dropped", "Share of the whole update's squared norm that the rule drops in the group."),
}


def read_members(
    members: list[Member], rule: Rule, params: dict[str, Any], finished: str
) -> dict[str, list[Assessment]]:
    """Return what the rule makes of every stored weight of every model, saying what is not stored."""
    found: dict[str, list[Assessment]] = {}
    for member in members:
        spectra = load_spectra(member.pair, finished)
        if spectra.missing:
            st.markdown(_missing(member, spectra))
        try:
            rows = load_assessments(member.pair, spectra, rule.name, params)
        except ThresholdError as error:  # a rule that needs more than what a scan has stored
            show_error(error)
            continue
        if rows:
            found[member.name] = rows
    return found


def _missing(member: Member, spectra: ModelSpectra) -> str:
    """Return in words how much of a model is not stored."""
    total = len(spectra.missing) + len(spectra.weights)
    return (
        f":material/hourglass_empty: **{plain(member.name)}**: {len(spectra.missing):,} of {total:,} weights have no "
        "stored spectrum and are not part of the tables below. Comparing computes them."
    )


def draw_figures(rows: dict[str, list[Assessment]]) -> None:
    """Show the figures of every model side by side, and one of them over depth."""
    st.subheader("Side by side", anchor=False)
    groups = {name: groups_of(own) for name, own in rows.items()}
    present = list(dict.fromkeys(group for own in groups.values() for group in own))
    chosen = st.pills("Weights", present, default=WHOLE, key="family-group", required=True, format_func=_group_title)
    slot = st.empty()
    for own in rows.values():
        check_weights(own, slot)
    slot.empty()
    table = []
    for name, own in groups.items():
        verdict = verdict_of(own.get(chosen, []))
        row: dict[str, Any] = {
            "model": name,
            "weights": len(own.get(chosen, [])),
            "verdict": "" if verdict is None else VERDICTS[verdict.verdict],
        }
        table.append(row | {figure.heading: figure.pool(own.get(chosen, [])) for figure in POOLED.values()})
    columns = {
        figure.heading: st.column_config.NumberColumn(format=figure.column, help=figure.pooled)
        for figure in POOLED.values()
    }
    st.dataframe(table, hide_index=True, width="stretch", column_config=columns)
    st.download_button(
        "Download every group as CSV",
        lambda: family_csv([{"name": name, **member_report(own)} for name, own in rows.items()]),
        "family.csv",
        "text/csv",
        icon=":material/download:",
        key="family-csv",
    )
    _draw_depth({name: own.get(chosen, []) for name, own in groups.items()})


def _group_title(group: str) -> str:
    """Return what a group of weights is called on the page."""
    return "all weights" if group == WHOLE else group


def _draw_depth(rows: dict[str, list[Assessment]]) -> None:
    """Draw one figure over the layers, a line per model."""
    labels = towers(row.weight.tensor.name for own in rows.values() for row in own)
    if not labels:
        st.info("These weights lie outside the layers: there is nothing to draw over depth.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        figure = POOLED[
            st.selectbox(
                "Over depth",
                list(POOLED),
                index=list(POOLED).index("energy_kept"),
                format_func=lambda name: POOLED[name].title,
                key="family-figure",
                width=280,
            )
        ]
        tower = next(iter(labels))
        if len(labels) > 1:
            tower = st.selectbox(
                "Part of the model", list(labels), format_func=labels.get, key="family-tower", width=240
            )
    layers = depth_map(rows, tower, figure)
    if len(layers.rows) < 2:
        st.info("There are no curves to draw: fewer than two layers hold such weights.")
        return
    st.plotly_chart(
        depth_curves(
            layers,
            title=figure.title,
            unit=figure.unit,
            hover=lambda cell: figure.told(cell.value, cell.rows),
            from_zero=figure.from_zero,
        ),
        key="family-depth",
        config=plot_config("family-depth"),
    )
    st.caption(f"Per layer, over the weights chosen above. {figure.pooled}")


def draw_noise_tables(rows: dict[str, list[Assessment]], title: str) -> None:
    """Show the noise tables of every model side by side."""
    st.subheader("Noise, by class of weight and by depth", anchor=False)
    tables = {name: noise_table(own) for name, own in rows.items()}
    shown = st.segmented_control(
        "Bars show",
        list(_NOISE),
        default="mean_noise",
        format_func=lambda name: _NOISE[name][0],
        key="family-noise",
        required=True,
    )
    st.caption(f"{_NOISE[shown][1]} D\\* is what {title} keeps.")
    for column, heading, part in zip(
        st.columns(2), ("By class of weight", "By depth"), ("classes", "thirds"), strict=True
    ):
        shares = {
            name: {row.group: getattr(row, shown) for row in getattr(table, part)} for name, table in tables.items()
        }
        with column:
            st.markdown(f"**{heading}**")
            figure = noise_by_model(shares, _NOISE[shown][0])
            st.plotly_chart(figure, key=f"family-noise-{part}", config=plot_config(f"noise-{part}"))
    groups = {name: {row.group: row for row in (*t.classes, *t.thirds, t.whole)} for name, t in tables.items()}
    present = dict.fromkeys(group for own in groups.values() for group in own)
    lines = [
        {"group": _group_title(group)}
        | {name: 100 * getattr(own[group], shown) if group in own else None for name, own in groups.items()}
        for group in present
    ]
    percent = dict.fromkeys(groups, st.column_config.NumberColumn(format="%.2f %%"))
    st.dataframe(lines, hide_index=True, width="stretch", column_config=percent, height=38 + 35 * len(lines))
    st.download_button(
        "Download the noise tables as CSV",
        noise_tables_csv(tables),
        "noise.csv",
        "text/csv",
        icon=":material/download:",
        key="family-noise-csv",
    )
