"""The paper's study (arXiv 2605.20296): its preset, what of it is missing, its tables in three forms, layer masks.

Importing this loads numpy only.
"""

from dgviz.analysis.study.coverage import Coverage, find_coverage
from dgviz.analysis.study.noise import noise_files, read_noise
from dgviz.analysis.study.preset import preset_text
from dgviz.analysis.study.tables import Entry, PaperTable, paper_tables
from dgviz.analysis.study.typeset import FORMS, typeset, write_tables

__all__ = [
    "FORMS",
    "Coverage",
    "Entry",
    "PaperTable",
    "find_coverage",
    "noise_files",
    "paper_tables",
    "preset_text",
    "read_noise",
    "typeset",
    "write_tables",
]
