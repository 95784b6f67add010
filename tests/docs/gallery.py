"""The reports that docs/gallery.md links to, into build/gallery: ``python -m tests.docs.gallery [CALIBRATED]``.

The demo's come with dgviz. The others are of pairs that ``dgviz calibrate CALIBRATED`` has trained; those that are
not there are left out, and said.
"""

import re
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from dgviz.cli import main

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "build" / "gallery"


def linked() -> list[str]:
    """Return the names of the reports that the page links to."""
    return re.findall(r"\]\(gallery/([\w-]+)\.html\)", (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"))


def build(calibrated: Path | None) -> None:
    """Write the reports of all pairs that are there."""
    GALLERY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder, "demo")
        dgviz("demo", demo)
        evidence = Path(folder, "recovery.json")
        with evidence.open("w", encoding="utf-8") as stream, redirect_stdout(stream):
            dgviz("recovery", demo / "scores.json", "--json")
        for name in linked():
            out = GALLERY / f"{name}.html"
            pair = calibrated / "checkpoints" / name if calibrated else None
            if name.startswith("demo-"):
                dgviz("report", demo / "base", demo / name.removeprefix("demo-"), "-o", out, "--evidence", evidence)
            elif pair and pair.is_dir():
                dgviz("report", pair / "base", pair / "tuned", "-o", out)
            elif not out.exists():
                print(
                    f"{name} is left out: dgviz calibrate DIR --pairs {name} trains it, then name DIR",
                    file=sys.stderr,
                )


def dgviz(*words: str | Path) -> None:
    """Run a command; what goes wrong has been said."""
    status = main([str(word) for word in words])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else None)
