"""A report and its parts as files."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from dgviz.analysis.model_report import ModelReport
from dgviz.errors import ExportError
from dgviz.figures.picture import Picture
from dgviz.figures.report.pictures import ReportFigure
from dgviz.files import write_file
from dgviz.spectra.weight import Weight
from dgviz.table import Table


def draw_weights(report: ModelReport, weights: Sequence[Weight], device: str) -> list[ReportFigure]:
    """Return Figure 4 of some weights under the plan, from their checkpoints.

    Parameters
    ----------
    report : ModelReport
        Whose plan it is.
    weights : sequence of Weight
        Which.
    device : str
        Where to compute.
    """
    from dgviz.figures.figure4.draw import draw_figure4  # torch

    return [weight_figure(weight.name, draw_figure4(weight, report.plan, report.names, device)) for weight in weights]


def weight_figure(name: str, svg: str) -> ReportFigure:
    """Return Figure 4 of a weight as a figure of a report; its caption is in the picture.

    Parameters
    ----------
    name : str
        The weight.
    svg : str
        From `dgviz.figures.figure4.static.figure4_svg`.
    """
    file = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-120:]
    if file != name:  # another name may come to the same
        file += f"-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return ReportFigure(f"figure4-{file}", f"Figure 4: {name}", "", Picture(svg))


def write_page(path: Path, page: str) -> Path:
    """Write a report's page in one step.

    Parameters
    ----------
    path : Path
        The file.
    page : str
        From `report_page`.

    Raises
    ------
    ExportError
        If it cannot be written.
    """
    try:
        write_file(path, page.encode(errors="backslashreplace"))
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}; choose another file") from None
    return path


def write_parts(folder: Path, figures: Sequence[ReportFigure], tables: Sequence[Table]) -> list[Path]:
    """Write every figure as SVG and PNG and every table as CSV and Parquet.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    figures, tables : sequence
        What is written; tables without rows are not.

    Raises
    ------
    ExportError
        If one cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be made: {error.strerror or error}; choose another --files") from None
    drawn = [figure.picture.save(folder / f"{figure.name}.{end}") for figure in figures for end in ("svg", "png")]
    names = [(table, table.name.replace(" ", "-")) for table in tables if len(table)]
    return drawn + [table.save(folder / f"{name}.{end}") for table, name in names for end in ("csv", "parquet")]
