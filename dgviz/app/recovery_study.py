"""Evidence's figures and tables of the paper: one panel per cohort, and every table in three forms."""

from pathlib import Path

import streamlit as st

from dgviz.analysis.study import FORMS, PaperTable, noise_files, paper_tables, preset_text, read_noise, typeset
from dgviz.app.messages import plain, show_error, show_warning
from dgviz.app.recovery import picture_config
from dgviz.app.roots import confine
from dgviz.errors import DgvizError
from dgviz.figures import axis_trends, combined_panels, recovery_panels
from dgviz.scores.recovery import Recovery

_FORMS = {"csv": ("CSV", "text/csv"), "tex": ("LaTeX", "text/x-tex"), "md": ("Markdown", "text/markdown")}
_FIGURES = {
    "figure-1": ("Recovery and preservation", recovery_panels),
    "figure-2": ("Combined", combined_panels),
    "safety-trends": ("Safety", axis_trends),
}


def draw_note(recovery: Recovery) -> None:
    """Show what the study file says of all of it, and what it leaves open."""
    if recovery.study.design.note:
        show_warning(recovery.study.design.note)


def draw_panels(recovery: Recovery) -> None:
    """Draw the paper's figures of a study: a panel per cohort, and one per safety axis where there are some."""
    sides = ("healed", "preserved")
    drawn = any(None not in [a.metrics[side].value for side in sides] for a in recovery.repaired.values())
    names = ["figure-1", "figure-2"] if drawn and recovery.study.cohorts else []
    names += ["safety-trends"] if recovery.axes else []
    if not names:
        st.info(
            "A panel per cohort needs a study file that names cohorts, and repairs that healed and kept something."
        )
        return
    name = st.segmented_control(
        "Panels", names, format_func=lambda n: _FIGURES[n][0], key="panels", default=names[0], required=True
    )
    st.plotly_chart(_FIGURES[name][1](recovery), config=picture_config(name), key=name)
    st.caption(_CAPTIONS[name])


_CAPTIONS = {
    "figure-1": "Figure 1 of arXiv 2605.20296. Beyond the dotted line the harmonic mean of the two is above 80; n = "
    "damaged / improved / unchanged benchmarks. Intervals and n are in the hover.",
    "figure-2": "Figure 2 of arXiv 2605.20296. Combined (population); bars are 95 % intervals; n = damaged / "
    "improved / unchanged benchmarks.",
    "safety-trends": "Mean of each model over its cells; faint points are single cells, and the dotted line is the "
    "model's base. An open point is a mean of a part of the cells. Safety counts in no metric of recovery.",
}


def draw_tables(recovery: Recovery, study_file: str) -> None:
    """Show one table of the paper and offer it as CSV, LaTeX and Markdown."""
    try:
        tables = {table.name: table for table in _tables(recovery, study_file)}
    except (DgvizError, OSError) as error:
        show_error(error)
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Table", list(tables), format_func=lambda n: plain(_title(tables[n])), key="paper-table", width=520
        )
        table = tables[name]
        for form in FORMS:
            title, kind = _FORMS[form]
            st.download_button(
                title, typeset(table, form), f"{name}.{form}", kind, icon=":material/download:", key=f"table-{form}"
            )
    height = 38 + 35 * min(len(table.rows), 18)
    st.dataframe(_rows(table), hide_index=True, width="stretch", height=height)
    notes = "; ".join(filter(None, (table.said, *table.notes)))
    marked = any(entry.mark for _, entries in table.rows for entry in entries)
    st.text(f"{'● best, ○ second. ' * marked}{notes[:1].upper()}{notes[1:]}")


@st.cache_data(max_entries=8, show_spinner="Making tables ...")
def _tables(recovery: Recovery, study_file: str) -> list[PaperTable]:
    """Return the tables; those of noise only where the study file lies on this machine."""
    noise = {}
    if study_file and recovery.study.design.noise:
        files = noise_files(recovery.study, Path(study_file).expanduser().parent)
        noise = read_noise({key: confine(file) for key, file in files.items()})
    return paper_tables(recovery, noise)


def _title(table: PaperTable) -> str:
    """Return a table's caption, what is said of all of the study left out."""
    return table.caption.removesuffix(f" ({table.said})")


def _rows(table: PaperTable) -> list[dict[str, str]]:
    """Return a table's rows as text, with its marks."""
    signs = {"best": "● ", "second": "○ "}
    return [
        ({table.block: block} if table.block else {})
        | {title: signs.get(e.mark, "") + str(e) for title, e in zip(table.columns, entries, strict=True)}
        for block, entries in table.rows
    ]


def offer_template() -> None:
    """Offer the paper's study as a file to fill in."""
    st.download_button(
        "The paper's study, to fill in",
        preset_text(),
        "study.json",
        "application/json",
        icon=":material/download:",
        help="Its 14 cells, 9 benchmarks, cohorts, safety axes and inference settings as a study file; what is not "
        "known of them is null.",
        key="study-template",
    )
