"""What is to be written: format, dtype, and what few people need."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from dgviz.export import FORMATS
from dgviz.repair.plan import OUTPUT_DTYPES

_TITLES = {"full": "Whole checkpoint", "lora": "LoRA adapter", "factors": "Low-rank factors"}


@dataclass(frozen=True)
class OutputChoice:
    """What the user wants written.

    Attributes
    ----------
    format, dtype : str
        As `dgviz.export.plan_export` and `dgviz.repair.plan.RepairPlan` take them.
    allow_code : bool
        Whether ``*.py`` files are carried over.
    base_name : str
        What base is called on the hub.
    push_to : str
        Where to upload; empty for nowhere.
    private : bool
        Whether a new repository is private.
    """

    format: str
    dtype: str
    allow_code: bool
    base_name: str
    push_to: str
    private: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """What the command says beside plan and format."""
        pushed = {"push_to": self.push_to, "private": self.private and bool(self.push_to)}
        return {"allow_code": self.allow_code, "base_name": self.base_name, **pushed}


def choose_output() -> OutputChoice:
    """Let the user choose what is written."""
    left, right = st.columns(2)
    output = left.selectbox("Format", FORMATS, format_func=_TITLES.get, key="format")
    dtype = "auto"
    if output == "full":
        dtype = right.selectbox(
            "Output dtype",
            OUTPUT_DTYPES,
            key="dtype",
            help="auto keeps each tensor's dtype. bfloat16 can round a small repaired update away; float32 keeps it.",
        )
    left.caption(f"{FORMATS[output][0].upper()}{FORMATS[output][1:]}.")
    if output == "lora":
        right.caption(
            "It changes base, not tuned: what LoRA has no form for (norms, biases, convolutions, tensors that are "
            "not repaired) stays as in base, and is listed. PEFT loads it before it gets its name."
        )
    elif output == "factors":
        right.caption("One file with left and right of every repaired update; no model loads it by itself.")
    with st.expander("Code, hub name, upload"):
        allow_code = output == "full" and st.checkbox(
            "Copy *.py files of the model", key="allow-code", help="They are copied, never run here. Read them first."
        )
        base_name = st.text_input(
            "Base's name on the Hugging Face Hub", key="base-name", placeholder="org/name, for model card and adapter"
        )
        push_to = st.text_input(
            "Upload to",
            key="push-to",
            placeholder="org/name of a new repository; nothing is uploaded while this is empty",
            help="Uses HF_TOKEN or the hub's own login of the account this server runs under.",
        )
        private = st.checkbox("Private repository", value=True, key="private", disabled=not push_to)
    return OutputChoice(output, dtype, allow_code, base_name.strip(), push_to.strip(), private)
