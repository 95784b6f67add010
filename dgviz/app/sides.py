"""The two sides of a comparison: A is held, B is what one looks at, or anything else that an override can say.

Both stand in the address in the words of an override, with one more setting, `tuned=NAME`: another fine-tune of the
family. What A leaves out is as published, what B leaves out is as in view.
"""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from dgviz.analysis.sides import Side
from dgviz.app.family import counterpart, named_others
from dgviz.app.layer import LayerView
from dgviz.app.messages import show_error
from dgviz.app.methods_preview import load_preview
from dgviz.app.spectra import load_spectra
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError, PlanError
from dgviz.repair.methods import METHODS
from dgviz.repair.overrides import Override
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import RULES
from dgviz.words import exact_number

_HELP = (
    "As an override says it: a rule with its parameters (rule=energy, fraction=0.8), factor=0.5, tau=0.05, rank=12, "
    "a method (method=wise_ft, alpha=0.5), shrinker=frobenius, keep=base; tuned=NAME for another fine-tune."
)


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes
    ----------
    sides : pair of Side
        A and B.
    labels : pair of str
        What they are called.
    live : bool
        Whether B is what is in view, and follows tau.
    """

    sides: tuple[Side, Side]
    labels: tuple[str, str]
    live: bool

    def header(self) -> dict[str, Any]:
        """Return what the component has to know before there is any map; see `figure4_payload`."""
        a, b = self.sides
        return {
            "labels": self.labels,
            "live": self.live,
            "same": a.pair.tuned.fingerprint == b.pair.tuned.fingerprint,
            "cuts": [side.plan.is_threshold for side in self.sides],
            "model": [_on_model(side) for side in self.sides],
        }

    @property
    def has_twin(self) -> bool:
        """Whether noise can stand in the update's place: both sides are thresholds on it."""
        return all(side.own and side.plan.is_threshold for side in self.sides)


def read_comparison(view: View, pair: CheckpointPair, layer: LayerView, tau: float, moved: bool) -> Comparison | None:
    """Return what is compared; None where nothing is, or where the address is spoiled, which is said.

    `tau` is the threshold in view, and `moved` says whether it was set by hand.
    """
    if not view.against:
        return None
    looked = RepairPlan(rule=layer.rule.name, params=layer.params)
    if moved:
        looked = RepairPlan(rule="manual", params={"tau": tau})
    try:
        (a, label_a), (b, label_b) = (
            _read(text, default, view, pair, layer)
            for text, default in ((view.against, RepairPlan()), (view.beside, looked))
        )
    except (DgvizError, OSError) as error:
        show_error(error)
        return None
    return Comparison((a, b), (label_a, label_b if view.beside else "what you look at"), not view.beside)


def plan_against(view: View) -> RepairPlan | None:
    """Return A where the map can show B minus A: of the pair's own update, and known from spectra."""
    if not view.against or view.beside:
        return None
    try:
        plan, tuned = _parse(view.against, RepairPlan())
    except DgvizError:
        return None  # it is said where it is compared
    return plan if not tuned and (plan.keep or plan.recipe.spectral) else None


def _parse(text: str, default: RepairPlan) -> tuple[RepairPlan, str]:
    """Return what a side's words make of every weight, and the fine-tune that they name."""
    if not text:
        return default, ""
    override = Override.parse(f"re=.: {text}")
    settings = dict(override.settings)
    tuned = settings.pop("tuned", "")
    if not settings:
        return default, tuned
    return Override(override.selector, settings).applied(default, everywhere=True), tuned


def _read(text: str, default: RepairPlan, view: View, pair: CheckpointPair, layer: LayerView) -> tuple[Side, str]:
    """Return a side of the weight in view and what it is called."""
    plan, tuned = _parse(text, default)
    if not tuned:
        return Side(plan, layer.matrix, pair), plan.title
    known = named_others(view)
    if tuned not in known:
        there = f"there are {', '.join(known)}" if known else "there is none yet"
        raise PlanError(f"{text!r} names the fine-tune {tuned!r}; {there}: add it under Model, Fine-tunes")
    other, weight = counterpart(view, pair, layer.matrix, known[tuned])
    return Side(plan, weight, other, own=False), f"{tuned}, {plan.title}"


def _on_model(side: Side) -> dict[str, Any]:
    """Return what a side makes of all weights whose spectra are known, or why that is not known."""
    if not (side.plan.keep or side.plan.recipe.spectral):
        return {"why": "spectra do not tell; Model, Methods measures it"}
    spectra = load_spectra(side.pair)
    if not spectra.weights:
        return {"why": "no weight of this fine-tune is scanned yet"}
    try:
        found = load_preview(side.pair, spectra, side.plan)
    except DgvizError as error:
        return {"why": str(error)}
    known, total = len(spectra.weights), len(spectra.weights) + len(spectra.missing)
    note = f"the {known:,} of {total:,} weights that are scanned" if spectra.missing else ""
    return {"energy": found.norm_kept**2, "directions": found.directions, "note": note}


def draw_sides(view: View, layer: LayerView, tau: float, moved: bool) -> None:
    """Offer to hold on to what is in view as A, and to choose both sides."""
    if not view.against:
        st.button(
            "Compare",
            key="compare",
            icon=":material/compare:",
            help="Holds on to this threshold as A; what you look at from now on is B.",
            on_click=change_view,
            kwargs={"against": _held(view, layer, tau, moved)},
        )
        return
    with st.popover("Comparing", icon=":material/compare:"):
        _choose(view, "A", "against", "")
        _choose(view, "B", "beside", "what you look at")
        st.caption("Hold B to blink between the two. What B does not say is as in view: its rule, its τ.")
        with st.container(horizontal=True):
            st.button(
                "Hold B as A",
                key="against-hold",
                on_click=change_view,
                kwargs={"against": _held(view, layer, tau, moved)},
            )
            st.button(
                "Swap",
                key="against-swap",
                icon=":material/swap_horiz:",
                on_click=change_view,
                kwargs={"against": _held(view, layer, tau, moved), "beside": view.against},
            )
            st.button(
                "Leave",
                key="against-leave",
                icon=":material/close:",
                on_click=change_view,
                kwargs={"against": "", "beside": ""},
            )


def _choose(view: View, name: str, field: str, empty: str) -> None:
    """Let the user choose one side, from a list or in words."""
    typed, chosen = f"{field}-typed", f"{field}-chosen"
    text = getattr(view, field)
    options = {"": empty} if empty else {}
    options |= _options(view)
    if text not in options:
        options[text] = text
    st.session_state[typed], st.session_state[chosen] = text, text
    st.selectbox(
        f"{name} is",
        list(options),
        format_func=options.get,
        key=chosen,
        on_change=lambda: change_view(**{field: st.session_state[chosen]}),
    )
    st.text_input(
        f"{name} in words",
        key=typed,
        help=_HELP,
        placeholder=empty,
        label_visibility="collapsed",
        on_change=lambda: change_view(**{field: st.session_state[typed].strip()}),
    )


def _options(view: View) -> dict[str, str]:
    """Return what a side can be without any number that has to be given, by its words."""
    rules = (rule for rule in RULES.values() if all(parameter.default is not None for parameter in rule.parameters))
    methods = (method for method in METHODS.values() if method.name != RepairPlan().method)
    found = {f"rule={rule.name}": f"Rule: {rule.title}" for rule in rules}
    found |= {f"method={method.name}": f"Method: {method.title}" for method in methods}
    shrinkers = (shrinker for shrinker in SHRINKERS.values() if shrinker.name != RepairPlan().shrinker)
    found |= {f"shrinker={shrinker.name}": f"Shrinker: {shrinker.title}" for shrinker in shrinkers}
    found |= {f"keep={side}": f"The values of {side}" for side in ("tuned", "base")}
    return found | {f"tuned={name}": f"Fine-tune: {name}" for name in named_others(view)}


def _held(view: View, layer: LayerView, tau: float, moved: bool) -> str:
    """Return B as the settings of an override that say all of it."""
    changed = layer.rule.changed(layer.params)
    looked = {"rule": layer.rule.name, **{name: exact_number(value) for name, value in changed.items()}}
    if moved:
        looked = {"tau": exact_number(tau)}
    try:
        said = dict(Override.parse(f"re=.: {view.beside}").settings) if view.beside else {}
        plan = _parse(view.beside, RepairPlan())[0]
    except DgvizError:
        return view.beside  # it is said where it is compared
    if plan.keep or not plan.recipe.thresholded or {"rule", "tau", "rank"} & said.keys():
        looked = {}
    return ", ".join(f"{name}={value}" for name, value in (looked | said).items())
