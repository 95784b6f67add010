"""The paper's study as a file to fill in: tasks, benchmarks, cohorts, safety axes and inference, as far as known."""

from pathlib import Path


def preset_text() -> str:
    """Return the study file of arXiv 2605.20296; what is not known of it is null.

    Examples
    --------
    >>> import json
    >>> study = json.loads(preset_text())
    >>> len(study["cells"]), len(study["benchmarks"]), study["cohorts"]["Knowledge"]
    (14, 9, None)
    """
    return Path(__file__).with_name("paper.json").read_text(encoding="utf-8")
