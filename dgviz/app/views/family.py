"""Families: several tuned checkpoints of one base side by side."""

import orjson
import streamlit as st

from dgviz.app.family import choose_members, family_task
from dgviz.app.family_overlap import draw_overlap
from dgviz.app.family_tables import draw_figures, draw_noise_tables, read_members
from dgviz.app.frame import enter_page, require_pair
from dgviz.app.jobs import draw_task
from dgviz.app.rules import choose_rule


def draw() -> None:
    """Draw the page."""
    view = enter_page("Several fine-tunes of one base")
    pair = require_pair(view)
    st.caption(
        "Fine-tunes by other methods, on other tasks, or steps of one run: the same figures of each, and how many of "
        "the kept directions they share. Each is compared with the same base."
    )
    members = choose_members(view, pair)
    if len(members) < 2:
        st.info(
            "Add at least one more fine-tune of this base. With the demo open, its other fine-tune is one click away."
        )
        st.stop()
    rule, params = choose_rule(view)
    task = family_task(view, members, rule, params)
    draw_task(task)
    job = task.job
    finished = job.id if job is not None and job.state != "running" else ""
    rows = read_members(members, rule, params, finished)
    if rows:
        draw_figures(rows)
        draw_noise_tables(rows, rule.title)
    if task.made:
        draw_overlap(orjson.loads(task.lock.read_bytes()), [member.name for member in members])
    elif rows:
        st.info("Compare the kept directions above: overlaps and cosines appear here.")
