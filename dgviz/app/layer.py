"""The weight in view under a rule: its spectrum drawn and in words, and where its numbers come from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from dgviz.app import worker as work
from dgviz.app.figure4 import released_tau
from dgviz.app.messages import answered, plain
from dgviz.app.pair import checkpoint_path
from dgviz.app.state import change_view, view_visit
from dgviz.command import Command
from dgviz.figures import plot_config, spectrum_histogram, spectrum_plot
from dgviz.files import csv_text
from dgviz.rmt.rounding_noise import rounding_noise, rounding_spectrum
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Rule, Threshold
from dgviz.spectra.weight import Weight
from dgviz.words import duration, exact_number, size


@dataclass(frozen=True)
class LayerView:
    """One weight under one rule."""

    matrix: Weight
    rule: Rule
    params: dict[str, Any]
    device: str
    stamp: str
    paths: tuple[str, str]

    @property
    def id(self) -> str:
        """What a tau belongs to: the weight and the rule that first set it."""
        settings = ",".join(f"{name}={exact_number(value)}" for name, value in self.params.items())
        return f"{self.stamp}|{self.matrix.name}|{self.rule.name}|{settings}|{view_visit()}"

    @property
    def weight(self) -> tuple:
        """Arguments of every question to the worker."""
        return self.matrix, self.device, self.stamp


def chosen_tau() -> float | None:
    """Return the tau in view, or None where there is none or no number."""
    try:
        tau = float(st.session_state["view"].get("tau", ""))
    except ValueError:
        return None
    return tau if tau >= 0 else None


def read_weight_spectrum(weight: tuple) -> Spectrum:
    """Return the spectrum of a weight, with a spinner while it is computed."""
    rows, columns = weight[0].shape
    with st.spinner(plain(f"Decomposing the update of {weight[0].name} ({rows} x {columns}) ...")), answered():
        return work.spectrum(*weight)


def draw_spectrum(layer: LayerView, spectrum: Spectrum, threshold: Threshold, tau: float, moved: bool) -> None:
    """Draw the spectrum and its density as charts to be zoomed into, and say in words what they show."""
    st.markdown(_caption(layer, spectrum, threshold, tau, moved))
    _spectrum_charts(layer, spectrum, threshold, tau)


def _spectrum_charts(layer: LayerView, spectrum: Spectrum, threshold: Threshold, tau: float) -> None:
    """Draw the singular values against rank, and their histogram under the noise law."""
    scale = st.segmented_control(
        "Scale of the spectrum", ["log", "linear"], default="log", required=True, key="spectrum-scale"
    )
    ranked, histogram = st.columns(2)
    ranked.markdown("**(a)** Singular values against rank")
    ranked.plotly_chart(
        spectrum_plot(
            spectrum.s,
            tau,
            threshold.edge or None,
            log=scale == "log",
            rounding=_rounding_line(spectrum, threshold),
        ),
        config=plot_config("spectrum"),
        key="spectrum",
    )
    histogram.markdown("Their density, with the Marchenko-Pastur law of pure noise")
    sigma, edge = threshold.sigma or None, threshold.edge or None
    histogram.plotly_chart(
        spectrum_histogram(spectrum.nonzero_s, sigma, spectrum.nonzero_shape, tau, edge),
        config=plot_config("histogram"),
        key="histogram",
    )


def _rounding_line(spectrum: Spectrum, threshold: Threshold) -> tuple[str, np.ndarray] | None:
    """Return what rounding of the stored weights alone would look like; None where there is none, or no bulk."""
    rounding = None if threshold.degenerate else rounding_noise(spectrum)
    levels = None if rounding is None else rounding_spectrum(rounding, spectrum.nonzero_shape)
    return None if levels is None else (rounding.format, levels)


def remember_tau(key: str, layer: LayerView, default: float) -> None:
    """Put the tau released on a component into the view and its link; the rule's own needs no mention."""
    tau = released_tau(key, layer.id)
    if tau is not None:
        change_view(tau="" if abs(tau - default) <= 1e-9 * default else exact_number(tau))


def _caption(layer: LayerView, spectrum: Spectrum, threshold: Threshold, tau: float, moved: bool) -> str:
    """Say in a sentence or two what one is looking at."""
    rows, columns = spectrum.shape
    if spectrum.s[0] == 0:
        return f"This {rows} x {columns} weight was not changed by fine-tuning."
    rank = int(np.count_nonzero(spectrum.s > tau))
    energy = float(np.sum(spectrum.s[:rank] ** 2) / np.sum(spectrum.s**2))
    who = "The threshold you set" if moved else "The rule"
    text = (
        f"The update of this {rows} x {columns} weight has {spectrum.s.size} singular directions. {who} keeps the "
        f"**{rank}** above τ = {tau:.4g}, with **{100 * energy:.1f} %** of the update's energy"
    )
    if rank == spectrum.s.size:
        text += "; nothing is dropped. "
    else:
        text += ", and takes the others for noise. " if layer.rule.noise_based else ", and drops the others. "
    if threshold.sigma and not threshold.degenerate:
        ratio = spectrum.s[0] / threshold.edge
        text += f"The largest is {ratio:.3g} times the edge of the noise that the median implies."
        rounding = rounding_noise(spectrum)
        if rounding is not None and rounding.sigma > 0:
            text += (
                f" Rounding to {rounding.format} explains {_share(rounding.shares(threshold.sigma)[0])} of its bulk."
            )
    return text


def _share(share: float) -> str:
    """Return a share in words."""
    return "all" if share > 0.995 else f"{100 * share:.2g} %"


def draw_provenance(layer: LayerView, spectrum: Spectrum, tau: float, default: float) -> None:
    """Say how the numbers were obtained, and how to get them again."""
    paired = layer.matrix.tensor
    how = "read from the store" if spectrum.stored else f"computed in {duration(spectrum.seconds)}"
    checks = ", ".join(f"{check['name']} {check['value']:.2g}" for check in spectrum.certificate["checks"])
    refused = "".join(f" · refused before: {reason}" for reason in spectrum.certificate["rejected"])
    dtypes = (
        paired.tuned.dtype
        if paired.base.dtype == paired.tuned.dtype
        else (f"{paired.base.dtype} (base), {paired.tuned.dtype} (tuned)")
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"{dtypes} · {size(paired.tuned.nbytes)} · spectrum {how} by route "
            f"{spectrum.certificate['route']}" + (f" ({checks})" if checks else "") + refused
        )
        st.download_button(
            "Singular values (CSV)",
            csv_text(("rank", "singular_value"), ((i + 1, f"{value:.9g}") for i, value in enumerate(spectrum.s))),
            file_name=f"{spectrum.name}.csv",
            mime="text/csv",
            type="tertiary",
            icon=":material/download:",
        )
    with st.expander("The same on the command line"):
        st.code(str(_command(layer, None if tau == default else tau)), language="bash", wrap_lines=True)


def _command(layer: LayerView, tau: float | None) -> Command:
    """Return the command that prints what is shown; a tau set by hand makes it the manual rule."""
    base, tuned = map(checkpoint_path, layer.paths)
    rule = layer.rule.name if tau is None else "manual"
    params = layer.rule.changed(layer.params) if tau is None else {"tau": tau}
    weight = layer.matrix.tensor.name
    return Command("spectrum", base=base, tuned=tuned, tensor=weight, rule=rule, rule_param=params)
