"""The export: where it goes, and its plan in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dgviz.app.export_options import OutputChoice
from dgviz.app.jobs import find_job
from dgviz.app.messages import as_sentence, show_error, show_warning
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError
from dgviz.export import ExportPlan, plan_export
from dgviz.export.push import check_repository, refuse_local_base
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.threshold import RULES
from dgviz.words import size


def free_folder(wanted: Path) -> Path:
    """Return the folder, or the first of its numbered names that is not there yet."""
    candidates = [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]
    return next((path for path in candidates if not path.exists()), wanted)


def suggested_name(tuned: Path, method: Mapping[str, Any], output: str) -> str:
    """Return what an output is called at first: tuned, what is done to it, and the format."""
    own = [] if method["method"] == "dg_hard" else [method["method"]]
    rule = [method["rule"]] if "rule" in method and (not own or method["rule"] != "dg_hard") else []
    words = [*own, *rule, *([] if output == "full" else [output])]
    return "-".join([tuned.name, *(word.replace("_", "-") for word in words)])


def draw_plan(pair: CheckpointPair, repair: RepairPlan, out: Path, output: OutputChoice) -> bool:
    """Say what will be written where; return whether it can be started."""
    known = find_job("repair", out)
    running = known is not None and known.state == "running"
    if running or (known is not None and known.state == "done" and out.exists()):
        what = "is being written by the export below" if running else "holds the export below"
        st.info(f"The folder {what}. Choose another folder to write once more.")
        return False
    try:
        for name in filter(None, (output.base_name, output.push_to)):
            check_repository(name)
        plan = plan_export(pair, repair, out, output.format, output.allow_code, output.base_name)
        if output.push_to:
            refuse_local_base(plan)
    except DgvizError as error:
        show_error(error)
        return False
    st.markdown(_plan_words(plan))
    if output.push_to:
        kind = "private " if output.private else "public "
        st.markdown(f"When it is finished it is uploaded to the {kind}repository **{output.push_to}**.")
    if plan.finished:
        st.info(
            f"The folder holds an unfinished export of this plan; {len(plan.finished)} finished file(s) stay, if the "
            "inputs' contents are still the same."
        )
    for warning in plan.warnings:
        show_warning(as_sentence(warning))
    return True


def _plan_words(plan: ExportPlan) -> str:
    """Return what will be written, in words."""
    pair = plan.pair
    counts = pair.counts()
    changed = [item for item in pair.tensors if plan.repair.changes(item)]
    matrices = sum(item.action == "repair" for item in changed)
    also = len(changed) - matrices
    free = f"the disk has {size(plan.free_bytes)} free"
    done = "changed" if plan.repair.recipe.control else "repaired"
    repaired = f"**{matrices}** of {len(pair.tensors)} tensors are {done} by {_title(plan.repair)}"
    if plan.repair.overrides:
        apart = sum(
            len(plan.repair.each(item)) > 1 or plan.repair.override_of(item) is not None for item in pair.tensors
        )
        repaired += f" or as overrides say, which decide on **{apart}**"
    if plan.format != "full":
        what = "an adapter" if plan.format == "lora" else "factors"
        return (
            f"{repaired}; what the rule keeps of them becomes {what}. Each direction kept of each matrix takes "
            f"{size(_bytes_per_rank(pair))} in the mean; the ranks decide the size, {free}."
        )
    others = f", **{counts['base_only']}** exist only in base and are not written" if counts["base_only"] else ""
    files = f"{len(plan.shards)} file" + ("s" if len(plan.shards) != 1 else "")
    if also:
        repaired += (
            f", **{also}** more (vectors and small tensors, which methods for matrices leave to tuned) are changed "
            "too"
        )
    copied = sum(item.tuned is not None for item in pair.tensors) - len(changed)
    others = (f", **{copied}** are copied from tuned" if copied else "") + others
    return f"{repaired}{others}. {size(plan.total_bytes)} go into {files}; {free}."


def _title(repair: RepairPlan) -> str:
    """Return what a repair is called: its method, and the rule where that is another than its own."""
    own = RULES[repair.rule].title
    if repair.method == RepairPlan().method:
        return own
    title = repair.recipe.title.replace("*", r"\*")
    return f"{title}, threshold by {own}" if repair.recipe.thresholded and repair.rule != "dg_hard" else title


def _bytes_per_rank(pair: CheckpointPair) -> float:
    """Return the mean size of one direction of a matrix, in bytes of float32."""
    layouts = [item.layout for item in pair.repairable]
    sizes = [4 * (layout.rows + layout.cols) for layout in layouts for _ in range(layout.stack or 1)]
    return sum(sizes) / len(sizes) if sizes else 0.0
