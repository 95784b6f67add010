"""The results of the reference implementation: a folder of one checkpoint, with a JSON file per benchmark.

``eval_results/<checkpoint>/<benchmark>.json`` with ``summary`` (``score``, ``n``) and ``samples``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.types import Score, ScoreTable, count, finite


def is_dghard(content: Mapping[str, Any]) -> bool:
    """Return whether a JSON object looks like one of its results."""
    summary = content.get("summary")
    return isinstance(summary, dict) and "score" in summary and isinstance(content.get("samples"), list)


def parse_dghard(content: Mapping[str, Any], source: str, model: str, folder: str) -> ScoreTable:
    """Return a benchmark's score; the model is called as its folder is."""
    summary = content["summary"]
    name = model or folder
    if not name:
        raise ScoresError(f"{source} does not say which model it scores: give its name as NAME={source}")
    asked = count(summary.get("n_prompts"))
    benchmark = str(summary.get("benchmark") or Path(source).stem)
    n = count(summary.get("n")) or asked
    score = Score(name, benchmark, finite(summary["score"]), n=n, higher_is_better=True, source=source)
    return ScoreTable((score,))
