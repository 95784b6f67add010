"""A report of a pair as one file: it needs no network, no JavaScript and no server, and prints."""

from dgviz.figures.report.files import draw_weights, weight_figure, write_page, write_parts
from dgviz.figures.report.page import MOST_BYTES, report_page
from dgviz.figures.report.pictures import ReportFigure, map_figures

__all__ = [
    "MOST_BYTES",
    "ReportFigure",
    "draw_weights",
    "map_figures",
    "report_page",
    "weight_figure",
    "write_page",
    "write_parts",
]
