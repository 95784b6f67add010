"""Several threshold rules on the whole model, from stored spectra."""

import streamlit as st

from dgviz.analysis.model_spectra import ModelSpectra
from dgviz.analysis.rules import (
    MULTIPLIERS,
    ModelCut,
    RuleTotals,
    TauCurve,
    compare_cuts,
    scaled_plan,
    sum_up,
)
from dgviz.app.compare import choose_rules, starting_points
from dgviz.app.jobs import draw_task
from dgviz.app.messages import show_warning
from dgviz.app.rules import link_params
from dgviz.app.scans import find_scan, is_scanning, scan_task
from dgviz.app.spectra import load_cut, load_spectra
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.command import Command
from dgviz.errors import DgvizError
from dgviz.figures import agreement_map, plot_config, rank_boxes, series_colour, tau_curves
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import find_rule

_SHOWN = 1000  # names of weights without a spectrum in the list
_FACTORS = [float(factor) for factor in MULTIPLIERS]
_TAKEN = "rule-taken"
_SHRINKER_RULE = "mp_edge"  # an optimal shrinker keeps what lies above the bulk edge


def draw_missing(view: View, pair: CheckpointPair) -> ModelSpectra:
    """Return what is stored of a pair; say which weights are missing, and offer the scan that stores them."""
    spectra = load_spectra(pair, _finished_scan(pair))
    if not spectra.missing:
        return spectra
    missing = [weight.name for weight in spectra.missing]
    total = len(missing) + len(spectra.weights)
    with st.container(border=True):
        st.markdown(
            f":material/hourglass_empty: **{len(missing):,} of {total:,} weights have no stored spectrum** and are "
            "not part of the comparison. A scan stores them; the comparison fills in while it runs."
        )
        with st.expander("Which ones"):
            more = f"\n... and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            st.code("\n".join(missing[:_SHOWN]) + more, language=None, height=min(240, 60 + 21 * len(missing)))
    draw_task(scan_task(view, pair))
    st.fragment(_follow, run_every=3.0 if is_scanning(pair) else None)(
        pair, len(spectra.weights), _finished_scan(pair)
    )
    return spectra


def _finished_scan(pair: CheckpointPair) -> str:
    """Return the identity of a pair's last scan where it is done, else nothing."""
    job = find_scan(pair)
    return job.id if job is not None and job.state == "done" else ""


def _follow(pair: CheckpointPair, known: int, finished: str) -> None:
    """Draw the page again when a scan has stored more, or has ended."""
    if len(load_spectra(pair).weights) != known or _finished_scan(pair) != finished:
        st.rerun()


def choose_plans(spectra: ModelSpectra) -> list[RepairPlan]:
    """Let the user pick rules, their parameters, and shrinkers beside them."""
    params = choose_rules(starting_points(spectra.weights[len(spectra.weights) // 2].spectrum))
    shrinkers = st.multiselect(
        "Optimal shrinkers, which also make the kept singular values smaller",
        [name for name in SHRINKERS if name != "hard"],
        format_func=lambda name: SHRINKERS[name].title,
        key="compared-shrinkers",
        help="They keep what lies above the Marchenko-Pastur edge (Gavish & Donoho 2017, arXiv 1405.7511).",
    )
    plans = []
    for name, own in params.items():
        try:
            plans.append(RepairPlan(name, own))
        except DgvizError as error:
            show_warning(str(error))
    return plans + [RepairPlan(_SHRINKER_RULE, shrinker=name) for name in shrinkers]


def draw_comparison(view: View, pair: CheckpointPair, spectra: ModelSpectra, plans: list[RepairPlan]) -> None:
    """Draw the table, the distributions, the agreement and the curves over tau."""
    found: dict[str, tuple[ModelCut, TauCurve | None]] = {}
    for plan in plans:
        try:
            with st.spinner(f"Applying {plan.rule_title} to {len(spectra.weights):,} weights ..."):
                found[plan.rule_title] = load_cut(pair, spectra, plan)
        except DgvizError as error:
            _draw_refused(view, pair, spectra, plan, error)
    if not found:
        st.info("Choose at least one rule that can be applied.")
        return
    cuts = {title: cut for title, (cut, _) in found.items()}
    totals = {title: sum_up(cut) for title, cut in cuts.items()}
    _draw_table(totals)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Kept rank over the weights", anchor=False)
        st.plotly_chart(
            rank_boxes(
                {title: row.rank_share for title, row in totals.items()},
                {title: (row.lowest, row.highest) for title, row in totals.items()},
            ),
            config=plot_config("kept-ranks"),
            key="kept-ranks",
        )
        st.caption("Boxes hold half of the weights, whiskers nine in ten, circles the extremes.")
    if len(cuts) > 1:
        with right:
            _draw_agreement(cuts)
    _draw_curves(found)


def _draw_refused(
    view: View, pair: CheckpointPair, spectra: ModelSpectra, plan: RepairPlan, error: DgvizError
) -> None:
    """Say why a rule cannot be applied, and offer the scan that makes it so once the scan of all weights is done."""
    show_warning(str(error))
    rule = find_rule(plan.rule)
    if not rule.needs_delta or spectra.missing:
        return
    draw_task(scan_task(view, pair, plan))
    st.fragment(_follow, run_every=3.0 if is_scanning(pair) else None)(
        pair, len(spectra.weights), _finished_scan(pair)
    )


def _draw_table(totals: dict[str, RuleTotals]) -> None:
    """Show one row per rule."""
    rows = [
        {
            "rule": title,
            "kept parameters": row.kept_parameters,
            "of all %": 100 * row.kept_share,
            "directions kept": row.rank,
            "energy kept %": 100 * row.energy_kept,
            "MP-fit of dropped, with zeros": row.residual_fit,
            "without zeros": row.residual_own_fit,
            "of noise": row.noise_fit,
            "kept nothing": row.emptied,
            "kept all": row.unchanged,
        }
        for title, row in totals.items()
    ]
    first = next(iter(totals.values()))
    measured = min(row.residual_matrices for row in totals.values())
    number = st.column_config.NumberColumn
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={
            "kept parameters": number(
                format="localized",
                help="rank (m + n), summed over the weights: numbers needed to write what is kept as two factors.",
            ),
            "of all %": number(
                format="%.2f",
                help=f"Of the {first.parameters:,} entries of all weights; above 100 where two factors are larger "
                "than the matrix.",
            ),
            "directions kept": number(format="localized", help=f"Of {first.directions:,} in all weights."),
            "energy kept %": number(format="%.2f", help="Share of the whole update's squared norm that is kept."),
            "MP-fit of dropped, with zeros": number(
                format="%.2f",
                help=f"Mean over {measured:,} of {first.matrices:,} weights, weighted by their entries; in others "
                "the median measures no noise. Zeros stand in the place of what is kept.",
            ),
            "without zeros": number(format="%.2f", help="The same over the dropped values alone."),
            "of noise": number(
                format="%.2f", help="What noise of independent entries of the same shapes usually scores."
            ),
            "kept nothing": number(format="localized", help="Weights that become base."),
            "kept all": number(format="localized", help="Weights that stay as tuned."),
        },
    )


def _draw_agreement(cuts: dict[str, ModelCut]) -> None:
    """Show how often every two rules decide alike."""
    st.subheader("How often two rules decide alike", anchor=False)
    agreement = compare_cuts(list(cuts.values()))
    st.plotly_chart(
        agreement_map(list(cuts), agreement.directions, agreement.same_rank, dark=st.context.theme.type == "dark"),
        config=plot_config("agreement"),
        key="agreement",
    )
    st.caption(
        "Below the diagonal: share of all directions of the model that both keep or both drop. Above it: share of "
        "weights in which both keep the same number."
    )


@st.fragment
def _draw_curves(found: dict[str, tuple[ModelCut, TauCurve | None]]) -> None:
    """Show what a factor on tau would do to the whole model, and take a rule with it into the plan."""
    if st.session_state.pop(_TAKEN, False):
        st.rerun()  # the plan stands outside this part of the page
    st.subheader("A factor on tau", anchor=False)
    titles = list(found)
    colours = {title: series_colour(position) for position, title in enumerate(titles)}
    curves = {title: curve for title, (_, curve) in found.items() if curve is not None}
    factor = st.select_slider(
        "Factor on tau of every rule that has one",
        _FACTORS,
        value=1.0,
        format_func=lambda value: f"{value:.3g}",
        key="compared-factor",
        help="Below 1 more is kept than the rule would, above 1 less.",
        disabled=not curves,
    )
    if curves:
        panels = (
            ("parameters", "kept parameters, % of all", lambda curve: curve.kept_parameters / curve.parameters),
            ("energy", "energy kept", lambda curve: curve.energy_kept),
        )
        for column, (name, title, values) in zip(st.columns(2, gap="large"), panels, strict=True):
            drawn = {rule: values(curve) for rule, curve in curves.items()}
            figure = tau_curves(MULTIPLIERS, drawn, colours, factor, title=title, log=name == "parameters")
            column.plotly_chart(figure, config=plot_config(f"tau-{name}"), key=f"curve-{name}")
    for position, (title, (cut, curve)) in enumerate(found.items()):
        _draw_way_out(f"take-{position}", title, cut, curve, factor)


def _draw_way_out(key: str, title: str, cut: ModelCut, curve: TauCurve | None, factor: float) -> None:
    """Show one rule at the factor in view, with the way into the plan."""
    plan = cut.plan if curve is None else scaled_plan(cut.plan, factor)
    if curve is None:
        row = sum_up(cut)
        kept, share, energy = row.kept_parameters, row.kept_share, row.energy_kept
        said = "has no factor"
    else:
        at = _FACTORS.index(factor)
        kept, energy = int(curve.kept_parameters[at]), float(curve.energy_kept[at])
        share = kept / curve.parameters
        said = f"at {factor:.3g} × tau"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**{title}** :gray[{said}]: {kept:,} parameters ({100 * share:.3g} % of all), "
            f"{100 * energy:.2f} % of the energy"
        )
        shrunk = plan.shrinker != "hard"
        command = Command("repair", base="BASE", tuned="TUNED", out="OUT", **plan.arguments)
        st.button(
            "Take into the plan",
            key=key,
            icon=":material/playlist_add:",
            disabled=shrunk,
            help=f"Shrinkers are written by `{command}`." if shrunk else None,
            on_click=_take,
            args=(plan,),
        )


def _take(plan: RepairPlan) -> None:
    """Make a rule the plan's, and open the plan."""
    change_view(rule=plan.rule, params=link_params(find_rule(plan.rule), dict(plan.params)), plan="open")
    st.session_state[_TAKEN] = True
