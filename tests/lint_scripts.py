"""Lint of the JavaScript: the document's, and the component's as the one module that a browser gets.

The component's files share one scope, so that only together they tell which names are known and which are used.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from dgviz.app.document import SCRIPT
from dgviz.figures.figure4.component import script, script_files
from dgviz.figures.figure4.notebook import SCRIPT as NOTEBOOK
from dgviz.figures.figure4.notebook import notebook_script

CONFIG = Path(__file__).with_name("oxlint.json")
OXLINT = Path(sys.executable).with_name("oxlint")


def lint(source, places):
    """Return what the linter has to say of a module; `places` gives file and line of each of its lines."""
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, "component.mjs")
        module.write_text(source, encoding="utf-8")
        command = [OXLINT, "--config", CONFIG, "--format", "unix", module.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = re.findall(r"^[^:\n]+:(\d+):(\d+): (.+)$", done.stdout, re.MULTILINE)
    if done.returncode and not found:
        raise RuntimeError(f"oxlint ended with status {done.returncode}: {done.stdout}{done.stderr}")
    return [f"{places[int(line) - 1]}:{column}: {message}" for line, column, message in found]


def places_of(files):
    """Return file and line of every line of the module that the files make."""
    lines = [(file, len(file.read_text(encoding="utf-8").split("\n"))) for file in files]
    return [f"{file}:{number}" for file, count in lines for number in range(1, count + 1)]


if __name__ == "__main__":
    parts = [(script(), script_files()), (SCRIPT.read_text(encoding="utf-8"), [SCRIPT])]
    parts.append((notebook_script(), [*script_files(), NOTEBOOK, NOTEBOOK]))  # and lines that are made from its style
    problems = [problem for source, files in parts for problem in lint(source, places_of(files))]
    print("\n".join(problems) or "JavaScript: all checks passed")
    sys.exit(bool(problems))
