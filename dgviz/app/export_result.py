"""What an export has written: figures, warnings, how to load it, every tensor."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dgviz.app.messages import as_sentence, plain, show_error
from dgviz.app.picker import open_here
from dgviz.app.state import View
from dgviz.checkpoint.documents import MAX_CONFIG_BYTES
from dgviz.command import Command
from dgviz.errors import AccessError, DgvizError, StateError
from dgviz.export.card import checked_words
from dgviz.export.report import read_report
from dgviz.jobs import Job
from dgviz.opening import read_named
from dgviz.repair.plan import MAX_PLAN_BYTES
from dgviz.words import duration, number, size


def draw_result(view: View, job: Job) -> None:
    """Show what was written, how to load it, and what to do with it next."""
    result = job.result or {}
    out = Path(result["out"])
    st.markdown(
        f"Wrote {size(result['total_bytes'])} in {len(result['files'])} file(s) in "
        f"{duration(result['seconds'])}; read back and compared with the plan."
    )
    if result.get("address"):
        st.markdown(f"Uploaded to {result['address']}")
    _draw_overall(result)
    kind = _model_class(out) if result["format"] == "full" else None
    if kind is not None:
        st.code(f"from transformers import {kind}\n\nmodel = {kind}.from_pretrained({str(out)!r})", language="python")
    if result["format"] == "lora":
        st.code(
            f"from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base_model, {str(out)!r})",
            language="python",
        )
        st.caption(as_sentence(result["loading"]))
    if kind is not None:
        with st.container(horizontal=True):
            st.button(
                "What it took away",
                key=f"removed-{job.id}",
                icon=":material/compare:",
                help="Opens what was written as base and the fine-tuned model as tuned: the update between the two "
                "is what the repair has dropped.",
                on_click=open_here,
                args=(str(out), view.tuned),
            )
        st.caption("Score it on your own tasks:")
        st.code(str(Command("evaluate", model=out)), language="bash", wrap_lines=True)
    for warning in result["warnings"][:5]:
        st.caption(f":material/warning: {plain(warning)}")
    with st.expander("What was verified"):
        for check, outcome in result["verified"].items():
            st.markdown(f"- {check}: {plain(checked_words(outcome))}")
    if result.get("left_at_base"):
        with st.expander(f"{len(result['left_at_base'])} changed tensors that stay as in base"):
            rows = [{"tensor": name, "why": why} for name, why in result["left_at_base"].items()]
            st.dataframe(rows, hide_index=True, width="stretch")
    with st.expander("Every tensor"):
        _draw_rows(out)


def _draw_overall(result: Mapping[str, Any]) -> None:
    """Show what rounding did to the repair of the whole model."""
    overall = result["overall"]
    if overall["gain"] is None:
        if result["format"] != "full":
            st.markdown("Written in float32: nothing of the repaired update is rounded away.")
        return
    back = overall["noise_restored"]
    restored = "" if back is None else f"; rounding put back {back:.1%} of the noise that was removed"
    st.markdown(f"Gain **{overall['gain']:.4f}**: the share of the repaired update that is in the files{restored}.")


def _model_class(out: Path) -> str | None:
    """Return the transformers class that the output's config names, or the general one; None without a config."""
    try:
        names = json.loads(read_named(out / "config.json", MAX_CONFIG_BYTES)).get("architectures") or []
    except (AccessError, OSError, ValueError, RecursionError, AttributeError):
        return None
    return str(names[0]) if isinstance(names, list) and names else "AutoModel"


def _draw_rows(out: Path) -> None:
    """Show the report the output carries."""
    try:
        read_named(out / "dgviz.json", MAX_PLAN_BYTES)  # where this server may not read, nothing is
        rows = [_row(name, row) for name, row in read_report(out)["tensors"].items()]
    except (DgvizError, OSError) as error:
        show_error(error)
        return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        show_error(StateError(f"{out / 'dgviz.json'} is damaged or of another version ({error!r}); export again"))
        return
    st.dataframe(rows, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 420))


def _row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of one tensor."""
    matrices = row["matrices"]
    shown = {"rank": "rank", "energy kept": "energy_kept", "gain after rounding": "gain"}
    columns = {title: number([matrix.get(key) for matrix in matrices]) for title, key in shown.items()}
    titles = "discarded", "discarded_own", "noise"
    fits = "MP-fit of what was dropped, with zeros", "without zeros", "of noise of this shape"
    for title, key in zip(fits, titles, strict=True):
        columns[title] = number([matrix.get("mp_fit", {}).get(key) for matrix in matrices])
    return {"tensor": name, "written": row["written"], **columns}
