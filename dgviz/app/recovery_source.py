"""Which scores the Recovery page is about: the demo's, files, or uploads; and what belongs together."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dgviz.app.kept import kept
from dgviz.app.messages import show_error, show_warning
from dgviz.app.pair import DEMO, checkpoint_path
from dgviz.app.recents import was_opened
from dgviz.app.recovery_study import offer_template
from dgviz.app.roots import confine, typed_path
from dgviz.app.state import View
from dgviz.command import Command
from dgviz.demo import demo_scores
from dgviz.errors import AccessError, DgvizError, ScoresError
from dgviz.scores import SUFFIXES, ChosenScores, ScoreTable, choose_scores, merge_tables, parse_scores, read_scores
from dgviz.scores.read import split_name
from dgviz.scores.recovery import AVERAGES, COMBINATIONS, Recovery, Study, Tolerance, assess, plan_study, read_study
from dgviz.scores.recovery.study import PARTS_OF_A_STUDY, study_arguments

_SOURCES = {"demo": "The demo", "path": "Files on this machine", "upload": "Upload"}
_ALL = "all cells"
_REPLICATES = 2000
_FEW = 6  # so many cells are each a cohort, where none are named


def recover_chosen(view: View, aside: DeltaGenerator) -> tuple[Recovery, str]:
    """Let the user choose scores and how they are looked at; return what they say and the study file on this machine.

    Where they say nothing the page stops and says why. What few need is drawn `aside`.
    """
    try:
        choices = st.container(horizontal=True, gap="large")
        table, said, given = _table(view, choices)
        study = plan_study(table, **said, **({} if said["cells"] else _roles(table, given)))
        with aside:
            chosen, settings = _settings(table, study, given)
        with choices:
            study = _cell(replace(study, **settings.pop("study")), view, given)
        with st.spinner("Resampling ..."):
            recovery = _assess(study, chosen, **settings)
    except (DgvizError, OSError) as error:
        show_error(error)
        st.stop()
    with aside, st.popover("The same on the command line", icon=":material/terminal:"):
        st.code(str(Command("recovery", **given)), language="bash", wrap_lines=True)
        st.caption("With `--tables DIR` it also writes the paper's tables and figures.")
        offer_template()
    return recovery, given.get("study", "") if st.session_state["scores-source"] == "path" else ""


@kept
def _assess(study: Study, chosen: ChosenScores, tolerance: Tolerance, average: str, combination: str) -> Recovery:
    """Return the assessed study; the same choices are answered from memory."""
    return assess(study, chosen, tolerance, replicates=_REPLICATES, average=average, combination=combination)


@kept
def _demo_table() -> ScoreTable:
    """Return the demo's scores."""
    return merge_tables([parse_scores(json.dumps(demo_scores()).encode(), "scores.json")])


def _beside(view: View) -> Path | None:
    """Return the file of scores that lies beside the pair in view, unless it is the demo's."""
    if not view.has_pair or view.tuned.startswith(DEMO) or not was_opened(view):
        return None
    try:
        found = confine(checkpoint_path(view.tuned).parent / "scores.json")
    except AccessError:
        return None
    return found if found.is_file() else None


def _table(view: View, choices: DeltaGenerator) -> tuple[ScoreTable, dict[str, Any], dict[str, Any]]:
    """Return the scores chosen, what a study file says of them, and what the command is given for both."""
    beside = _beside(view)
    # The demo's scores say nothing of one's own pair: they are shown with the demo, and where no pair is open.
    own = view.has_pair and not view.tuned.startswith(DEMO)
    sources = [source for source in _SOURCES if not (own and source == "demo")]
    if st.session_state.get("scores-source") not in sources:
        st.session_state["scores-source"] = "path" if own else "demo"
    with choices:
        source = st.segmented_control("Scores", sources, format_func=_SOURCES.get, key="scores-source", required=True)
    nothing = study_arguments({}, "")
    if source == "demo":
        return _demo_table(), nothing, {"scores": ["scores.json"]}
    if source == "path":
        left, right = st.columns([3, 2])
        typed = left.text_input("File or folder", str(beside or ""), key="scores-path", placeholder="results")
        study = right.text_input(
            "Study file, where there are several cells", key="study-path", placeholder="optional"
        )
        paths = [path.strip().strip("'\"") for path in typed.split(",") if path.strip()]
        if not paths:
            _explain(view)
        for path in filter(None, (*(split_name(path)[1] for path in paths), study.strip())):
            confine(typed_path(str(path)))
        said = read_study(study.strip()) if study.strip() else nothing
        return read_scores(paths), said, {"scores": paths, "study": study.strip()}
    uploads = st.file_uploader(
        "Results of lm-evaluation-harness, CSV, scores.json, or a study file; 5 MB each",
        type=list(SUFFIXES),
        accept_multiple_files=True,
        key="scores-upload",
    )
    if not uploads:
        _explain(view)
    tables, said, names = [], nothing, {"scores": []}
    for upload in uploads:
        content = upload.getvalue()
        study = _study_content(content)
        if study is not None:
            said = study_arguments(study, upload.name)
            names["study"] = upload.name
        else:
            tables.append(parse_scores(content, upload.name))
            names["scores"].append(upload.name)
    return merge_tables(tables), said, names


def _study_content(content: bytes) -> dict[str, Any] | None:
    """Return an uploaded study file's content; None where it is something else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value and value.keys() <= set(PARTS_OF_A_STUDY) else None


def _explain(view: View) -> None:
    """Say what is wanted, and how scores of the pair in view are made, and stop."""
    st.info(
        "Wanted are the scores of base, tuned and repaired models: `results_<date>.json` files of "
        "lm-evaluation-harness (a folder of them does), or a CSV with the columns model, benchmark, score and, where "
        "known, stderr, n, cell, metric, higher_is_better."
    )
    offer_template()
    if view.has_pair:
        st.markdown(
            "Nothing is known yet of this pair. These commands score base and tuned; a repaired model likewise."
        )
        for side in ("base", "tuned"):
            model = checkpoint_path(getattr(view, side))
            command = Command("evaluate", model=model, tasks=("arc_easy", "hellaswag"), name=side)
            st.code(str(command), language="bash", wrap_lines=True)
    st.stop()


def _roles(table: ScoreTable, given: dict[str, Any]) -> dict[str, Any]:
    """Let the user say which model is what, unless the file says it."""
    if any(role.role == "tuned" for role in table.models.values()):
        return {}
    models, benchmarks = list(table.model_names()), list(table.benchmark_names())
    if len(models) < 3:
        raise ScoresError(
            f"these scores are of {', '.join(models)}: base, tuned and at least one repaired model are needed"
        )
    stamp = _stamp(table)
    columns = st.columns(4)
    base = columns[0].selectbox("Base", models, key=f"role-base-{stamp}", index=_guess(models, "base", 0))
    others = [name for name in models if name != base]
    tuned = columns[1].selectbox("Tuned", others, key=f"role-tuned-{stamp}", index=_guess(others, "tuned", None))
    task = columns[2].selectbox(
        "On-task benchmark", benchmarks, key=f"role-task-{stamp}", index=None, placeholder="none"
    )
    rest = [name for name in others if name != tuned]
    repaired = columns[3].multiselect("Repaired", rest, default=rest, key=f"role-repaired-{stamp}-{base}-{tuned}")
    if tuned is None:
        st.info("Which model is the fine-tuned one? Nothing is guessed here.")
        st.stop()
    if not repaired:
        st.info("Choose at least one repaired model.")
        st.stop()
    named = repaired if repaired != rest else []
    given |= {"base": base, "tuned": tuned, "on_task": [task] if task else [], "repaired": named}
    return {"base": base, "tuned": tuned, "on_task": task or "", "repaired": repaired}


def _guess(names: list[str], wanted: str, otherwise: int | None) -> int | None:
    """Return where a name stands that says it itself."""
    return names.index(wanted) if wanted in names else otherwise


def _settings(table: ScoreTable, study: Study, given: dict[str, Any]) -> tuple[ChosenScores, dict[str, Any]]:
    """Let the user set tolerance, cohorts, directions and averages; ask for every metric that is not clear."""
    named = study.design.metrics_of(table)
    chosen = choose_scores(table, named)
    title, icon = "Tolerance, cohorts, directions", ":material/straighten:"
    with st.expander(title, icon=icon, expanded=True) if chosen.ambiguous else st.popover(title, icon=icon):
        metrics = {}
        for item in chosen.ambiguous:
            picked = st.selectbox(
                f"Metric of {item.benchmark}", item.metrics, index=None, key=f"metric-{item.benchmark}"
            )
            if picked is None:
                show_warning(f"{item}: choose which one is meant.")
            else:
                metrics[item.benchmark] = picked
        left, right, third, fourth = st.columns(4)
        said = study.design.tolerance
        first, key = (Tolerance().value, "tolerance") if said is None else (said, f"tolerance-{said:g}")
        value = left.number_input(
            "Tolerance", 0.0, None, first, step=0.005, format="%g", key=key,
            help="Tuned and base that differ by no more, in units of the score, count as unchanged.",
        )  # fmt: skip
        z = right.number_input(
            "Standard errors", 0.0, None, 1.96, step=0.5, format="%g", key="tolerance-z",
            help="The tolerance is at least this many standard errors of the difference, where they are known.",
        )  # fmt: skip
        average = third.selectbox("Over benchmarks", list(AVERAGES), key="average", help=AVERAGES["pooled"])
        combination = fourth.selectbox("Of two sides", list(COMBINATIONS), key="combination")
        lower = st.multiselect(
            "Lower is better of",
            list(dict.fromkeys([*table.benchmark_names(), *sorted(study.lower_is_better)])),
            sorted(study.lower_is_better),
            key=f"lower-{_stamp(table)}",
        )
        typed = st.text_area(
            "Cohorts: one per line, a name and its benchmarks or cells",
            "\n".join(f"{name}: {', '.join(members)}" for name, members in _first_cohorts(study).items()),
            placeholder="Knowledge: mmlu, arc_challenge\nCognition: gsm8k, hellaswag",
            key=f"cohorts-{_stamp(table)}",
            height=100,
        )
    if len(metrics) < len(chosen.ambiguous):
        st.info("Some benchmarks have several metrics: choose which one is meant above.")
        st.stop()
    if metrics:
        chosen = choose_scores(table, named | metrics)
    known = [*table.benchmark_names(), *study.design.benchmarks, *(cell.name for cell in study.cells)]
    cohorts = _cohorts(typed or "", list(dict.fromkeys(known)))
    given |= {"metric": metrics, "cohort": {name: ",".join(members) for name, members in cohorts.items()}}
    given |= {"lower_is_better": lower, "tolerance": [value] if value != first else []}
    given |= {"z": z, "average": average, "combine": combination}
    return chosen, {
        "study": {"cohorts": cohorts, "lower_is_better": frozenset(lower)},
        "tolerance": Tolerance(value, z=z),
        "average": average,
        "combination": combination,
    }


def _first_cohorts(study: Study) -> Mapping[str, tuple[str, ...]]:
    """Return the cohorts set at first: those of the study, else a few cells each by itself."""
    if study.cohorts or not 1 < len(study.cells) <= _FEW:
        return study.cohorts
    return {cell.name: (cell.name,) for cell in study.cells}


def _stamp(table: ScoreTable) -> str:
    """Return what tells the controls of one table from those of another."""
    return hashlib.sha256(repr((table.model_names(), table.benchmark_names())).encode()).hexdigest()[:8]


def _cohorts(text: str, known: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the cohorts that lines of text name."""
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, members = line.partition(":")
        if not colon or not name.strip():
            raise ScoresError(f"the line {line!r} names no cohort: write NAME: benchmark, benchmark")
        found[name.strip()] = tuple(member.strip() for member in members.split(",") if member.strip())
        for member in found[name.strip()]:
            if member not in known:
                raise ScoresError(
                    f"cohort {name.strip()}: {member!r} is no benchmark or cell; there are {', '.join(known)}"
                )
    return found


def _cell(study: Study, view: View, given: dict[str, Any]) -> Study:
    """Let the user choose one cell or all."""
    names = [cell.name for cell in study.cells]
    if len(names) == 1:
        return study
    shown = checkpoint_path(view.tuned).name if view.has_pair else ""
    options = [_ALL, *names]
    cell = st.segmented_control(
        "Fine-tune", options, default=shown if shown in names else _ALL, key="cell", required=True
    )
    if cell == _ALL:
        return study
    given["cell"] = [cell]
    return study.only([cell])
