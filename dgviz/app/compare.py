"""Several threshold rules on one weight."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from dgviz.app import worker as work
from dgviz.app.messages import answered, show_warning
from dgviz.app.parameters import parameter_field
from dgviz.errors import ThresholdError
from dgviz.figures import entry_map, plot_config, rules_plot
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.law import sigma_from_median
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import RULES, Threshold


def draw_rules(weight: tuple, spectrum: Spectrum) -> None:
    """Compare rules on a weight: their lines on its spectrum, a table, and two repaired updates side by side."""
    st.caption(
        "Every rule looks at the same singular values and draws its line; what lies above a line is kept. A rule "
        "that leaves its dropped part with a low MP-fit has thrown away something that is not Marchenko-Pastur noise."
    )
    found = _apply_rules(spectrum, choose_rules(starting_points(spectrum)))
    if not found:
        st.info("Choose at least one rule.")
        return
    _draw_lines(spectrum, found)
    _draw_table(spectrum, found)
    _draw_side_by_side(weight, found)


def choose_rules(starts: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Let the user pick rules and their parameters, the same for one weight and for the whole model."""
    names = st.multiselect(
        "Threshold rules",
        list(RULES),
        default=["dg_hard", "reference", "mp_edge", "energy"],
        format_func=lambda name: RULES[name].title,
        key="compared-rules",
    )
    with st.container(horizontal=True):
        return {name: _parameters(name, starts) for name in names}


def starting_points(spectrum: Spectrum) -> dict[str, float]:
    """Return where parameters without a default start, by name: half of the first value, and the noise measured."""
    sigma = sigma_from_median(float(np.median(spectrum.nonzero_s)), spectrum.nonzero_shape)
    return {"tau": float(spectrum.s[0]) / 2, "sigma": sigma}


def _apply_rules(spectrum: Spectrum, params: Mapping[str, Mapping[str, Any]]) -> dict[str, Threshold]:
    """Return what every rule finds in a spectrum, by title; one that cannot be applied is said and left out."""
    found: dict[str, Threshold] = {}
    for name, own in params.items():
        try:
            found[RULES[name].title] = apply_rule(spectrum, name, own)
        except ThresholdError as error:
            show_warning(str(error))
    return found


def _parameters(name: str, starts: Mapping[str, float]) -> dict[str, Any]:
    """Show fields for a rule's parameters but its scale, which belongs to the whole model; return their values."""
    return {
        parameter.name: parameter_field(
            parameter,
            f"compare-{name}-{parameter.name}",
            starts[parameter.name] if parameter.default is None else None,
            label=f"{RULES[name].title}: {parameter.description}",
        )
        for parameter in RULES[name].parameters
        if parameter.name != "scale"
    }


def _draw_lines(spectrum: Spectrum, found: dict[str, Threshold]) -> None:
    """Draw every rule's line on the one spectrum."""
    st.plotly_chart(rules_plot(spectrum.s, found), config=plot_config("rules"), key="rules")


def _draw_table(spectrum: Spectrum, found: dict[str, Threshold]) -> None:
    """Show tau, rank, energy and MP-fit per rule."""
    rows = []
    for title, threshold in found.items():
        fit = spectrum.mp_fits(threshold.sigma, threshold.rank)
        rows.append(
            {
                "rule": title,
                "tau": threshold.tau,
                "tau / edge": threshold.tau / threshold.edge if threshold.edge else None,
                "kept rank": threshold.rank,
                "of": spectrum.s.size,
                "energy kept %": 100 * spectrum.energy_kept(threshold.rank),
                "MP-fit of what is kept": fit["repaired"],
                "of what is dropped, with zeros": fit["discarded"],
                "without zeros": fit["discarded_own"],
                "of noise": fit["noise"],
                "note": "; ".join(threshold.warnings),
            }
        )
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={
            "tau": st.column_config.NumberColumn(format="%.5g"),
            "tau / edge": st.column_config.NumberColumn(format="%.3f"),
            "energy kept %": st.column_config.NumberColumn(format="%.2f"),
            "MP-fit of what is kept": st.column_config.NumberColumn(format="%.1f"),
            "of what is dropped, with zeros": st.column_config.NumberColumn(
                format="%.1f", help="MP-fit of the dropped part, zeros in the place of what is kept."
            ),
            "without zeros": st.column_config.NumberColumn(
                format="%.1f", help="MP-fit of the dropped part over its own values."
            ),
            "of noise": st.column_config.NumberColumn(
                format="%.1f", help="MP-fit that noise of independent entries of this shape usually scores."
            ),
        },
    )


def _draw_side_by_side(weight: tuple, found: dict[str, Threshold]) -> None:
    """Draw the repaired delta of two chosen rules on one colour scale."""
    titles = list(found)
    st.subheader("The repaired update under two rules", anchor=False)
    for number, column in enumerate(st.columns(2)):
        with column:
            title = st.selectbox(
                ("Left", "Right")[number], titles, index=number * (len(titles) - 1), key=f"side-{number}"
            )
            rank = found[title].rank
            with st.spinner(f"Drawing rank {rank} ..."), answered():
                panels = work.entry_panels(*weight, rank)
            st.plotly_chart(
                entry_map(panels.repaired, panels.scale, panels.shape, dark=st.context.theme.type == "dark"),
                config=plot_config(f"repaired-rank-{rank}"),
                key=f"map-{number}",
            )
            st.caption(f"{title}: rank {rank} of {min(panels.shape)}. Both maps share one colour scale.")
