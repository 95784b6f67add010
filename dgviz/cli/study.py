"""``study``: the paper's study as a file to fill in, and what of a study is missing."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgviz.analysis.study import Coverage, find_coverage, preset_text
from dgviz.cli.options import print_columns, print_result
from dgviz.command import Command
from dgviz.errors import ScoresError
from dgviz.files import write_file
from dgviz.scores import ScoreTable, choose_scores, read_scores
from dgviz.scores.recovery import Study, plan_study
from dgviz.scores.recovery.study import read_study_file, study_arguments


def run(options: argparse.Namespace) -> int:
    """Write the paper's study where asked; print its open fields and the scores that are missing."""
    file = Path(options.study).expanduser()
    if options.new:
        _write_new(file)
    content = read_study_file(file)
    study = plan_study(table := _table(options.scores), **study_arguments(content, str(file)))
    if not study.design.benchmarks:
        raise ScoresError(f"{file} names no benchmarks, so nothing of it can be missing: `recovery --study` takes it")
    coverage = find_coverage(study, choose_scores(table, study.design.metrics_of(table)))
    # A base stands in several cells and is scored once.
    there, missing = (
        dict.fromkeys((item.model, name) for item in coverage for name in getattr(item, part))
        for part in ("there", "missing")
    )
    lacking: dict[str, list[str]] = {}
    for model, name in missing:
        lacking.setdefault(model, []).append(name)
    cells = {item.model: item.cell for item in coverage}
    commands = [_command(model, cells[model], names, study, content) for model, names in lacking.items()]
    result = {
        "title": content.get("title") or "",
        "open": study.design.open,
        "coverage": [vars(item) for item in coverage],
        "planned": len(there) + len(missing),
        "scored": len(there),
        "commands": list(map(str, commands)),
    }
    print_result(options, result, lambda: _print(result, coverage, study))
    return 0


def _write_new(file: Path) -> None:
    """Write the paper's study to a file that is not there yet."""
    if file.exists():
        raise ScoresError(f"{file} is there already: name a new file, or leave out --new to see what it lacks")
    try:
        write_file(file, preset_text().encode())
    except OSError as error:
        raise ScoresError(f"{file} cannot be written: {error.strerror or error}") from error


def _table(sources: Sequence[str]) -> ScoreTable:
    return read_scores(sources) if sources else ScoreTable(())


def _command(model: str, cell: str, tasks: Sequence[str], study: Study, content: Mapping[str, Any]) -> Command:
    """Return the command that scores what a model lacks, under the study's inference settings."""
    settings = study.design.inference
    about = (content.get("models") or {}).get(next(c.model for c in study.cells if c.name == cell)) or {}
    given = {
        "model_arg": {**(settings.get("model_args") or {}), **(about.get("model_args") or {})},
        "gen_arg": settings.get("generation") or {},
    }
    words = {
        name: {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        for name, values in given.items()
    }
    backend = settings.get("backend") or "hf"
    chat = bool(settings.get("chat"))
    return Command("evaluate", model=model, tasks=tasks, backend=backend, name=model, chat=chat, **words)


def _print(result: Mapping[str, Any], coverage: Sequence[Coverage], study: Study) -> None:
    """Print open fields, a line per cell, and the first command to run."""
    print(result["title"])
    fields: dict[str, list[str]] = {}
    for path in study.design.open:
        parts = path.split(".")
        fields.setdefault(".".join([parts[0], "*", *parts[2:]]) if len(parts) > 2 else path, []).append(path)
    if fields:
        print()
        rows = [(str(len(names)), field) for field, names in fields.items()]
        print_columns(("open", "field, null until it is known"), rows)
    print()
    roles = list(dict.fromkeys(item.role for item in coverage))
    rows = []
    for cell in study.cells:
        own = {item.role: item for item in coverage if item.cell == cell.name}
        counts = [f"{len(i.there)}/{len(i.there) + len(i.missing)}" if (i := own.get(r)) else "-" for r in roles]
        rows.append((*counts, cell.name))
    print_columns((*roles, "cell"), rows)
    print(f"\n{result['scored']} of {result['planned']} scores are there")
    if result["commands"]:
        print(f"{len(result['commands'])} models lack some; the next: {result['commands'][0]}")
