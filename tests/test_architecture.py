"""The rules of the house in docs/design.md, read from the source: imports run one way, and stay light."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*ROOT.glob("dgviz/**/*.py"), *ROOT.glob("pages/*.py"), *ROOT.glob("app.py")])
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]

# What the page's process and the command line import, and what that must not bring along.
LIGHT = [
    "errors",
    "scores",
    "recovery",
    "evaluate",
    "theory",
    "checkpoint",
    "threshold",
    "diagnosis",
    "figures",
    "jobs",
    "cli",
    "ui",
]
HEAVY = ["torch", "scipy.stats", "plotly.express", "transformers", "sklearn"]
MOST_LINES = {"pages": 80, "app": 80}
MOST_LINES_OF_A_MODULE = 400


def rule(pattern, what):
    """What docs/design.md says where it matches."""
    found = re.search(pattern, (ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    assert found, f"docs/design.md no longer says {what}"
    return found[1]


def order_of_rooms():
    """The rooms in the order in which they may import, lowest first."""
    order = rule(r"\*\*Imports run one way\*\*: ([a-z0-9_\s<]+)\.", "in which order imports run")
    return [*(name.strip() for name in order.split("<")), "app"]


def named_rooms(pattern, what):
    """The rooms that a sentence of docs/design.md enumerates."""
    return set(re.findall(r"[a-z0-9_]+", re.sub(r"\(.*?\)|\band\b", "", rule(pattern, what), flags=re.DOTALL)))


def torch_rooms():
    """The rooms whose modules may import torch as soon as they are imported."""
    return named_rooms(r"torch is imported at module level\s+by ([^;]*) only;", "who may import torch")


def jobs_users():
    """The rooms that may start processes."""
    return named_rooms(r"only\s+([a-z0-9_,\s]+?)\s+use\s+jobs", "who uses jobs")


def room_of(path):
    """The room of a file: errors for dgviz/errors.py, ui for dgviz/ui/state.py, pages, app."""
    first, *rest = path.relative_to(ROOT).with_suffix("").parts
    room = rest[0] if first == "dgviz" else first
    return "cli" if room == "__main__" else room


def is_later(node):
    """Whether what is inside runs later than the import of the module, or never."""
    return isinstance(node, ast.FunctionDef) or (
        isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )


def imports(path):
    """Every (name, line, at module level) that a file imports; `from dgviz import x` counts as dgviz.x."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {id(inner) for node in ast.walk(tree) if is_later(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) not in later


def refused(name, room, order):
    """Why a room may not import a name of dgviz, or None."""
    parts = name.split(".")
    if parts[0] != "dgviz" or parts[1:] in ([], ["__version__"]):
        return None
    target = parts[1]
    if target == room:
        return None
    if room == "jobs" or (room == "theory" and target != "errors"):
        return f"{room} imports nothing of dgviz"
    if target == "jobs":
        return None if room in jobs_users() else f"{room} is not among those who use jobs in docs/design.md"
    if target not in order:
        return f"{target} has no place in the order of docs/design.md"
    return f"{target} comes after {room}" if order.index(target) > order.index(room) else None


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_room_has_its_place():
    order = order_of_rooms()
    assert torch_rooms() | jobs_users() <= set(order)
    rooms = {room_of(path) for path in MODULES} - {"__init__", "jobs"}
    assert sorted(rooms - set(order)) == []
    assert len(order) == len(set(order))


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_run_one_way(path):
    order, room = order_of_rooms(), room_of(path)
    found = {f"line {line}: {name}": refused(name, room, order) for name, line, _ in imports(path)}
    assert {where: why for where, why in found.items() if why} == {}


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_streamlit_stays_in_ui_and_pages(path):
    found = [(name, line) for name, line, _ in imports(path) if name.split(".")[0] == "streamlit"]
    assert found == [] or room_of(path) in ("ui", "pages", "app")


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_heavy_libraries_are_imported_late_or_by_the_numerical_rooms(path):
    heavy = {"torch", "transformers", "sklearn"} - ({"torch"} if room_of(path) in torch_rooms() else set())
    found = [(name, line) for name, line, top in imports(path) if top and name.split(".")[0] in heavy]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_modules_are_short(path):
    assert lines(path) <= MOST_LINES.get(room_of(path), MOST_LINES_OF_A_MODULE)


IMPORT_ALL = """
import importlib, json, pkgutil, sys
root = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(getattr(root, "__path__", []), root.__name__ + "."):
    importlib.import_module(module.name)
print(json.dumps(sorted(set(json.loads(sys.argv[2])) & set(sys.modules))))
"""


@pytest.mark.parametrize("room", [room for room in LIGHT if room in {room_of(path) for path in MODULES}])
def test_importing_a_light_room_brings_nothing_heavy(room):
    """Measured in a fresh process, so that what is imported indirectly counts too."""
    command = [sys.executable, "-c", IMPORT_ALL, f"dgviz.{room}", json.dumps(HEAVY)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == []


class TestTheTestItself:
    """A check that could not fail would be worth nothing: each rule is broken once."""

    ORDER = ("errors", "theory", "checkpoint", "spectrum", "ui", "pages", "app")

    @pytest.mark.parametrize(
        ("room", "name"),
        [
            ("theory", "dgviz.checkpoint"),
            ("jobs", "dgviz.errors.DgvizError"),
            ("checkpoint", "dgviz.spectrum.decompose"),
            ("spectrum", "dgviz.ui.state"),
            ("spectrum", "dgviz.unheard_of"),
            ("spectrum", "dgviz.jobs.Worker"),
        ],
    )
    def test_a_back_edge_is_refused(self, room, name):
        assert refused(name, room, self.ORDER)

    @pytest.mark.parametrize(
        ("room", "name"),
        [
            ("theory", "dgviz.errors.ThresholdError"),
            ("spectrum", "dgviz.checkpoint.PairedTensor"),
            ("ui", "dgviz.jobs.Worker"),
            ("ui", "dgviz.ui.state"),
            ("errors", "numpy"),
            ("ui", "dgviz.__version__"),
        ],
    )
    def test_the_right_direction_is_not(self, room, name):
        assert refused(name, room, self.ORDER) is None

    def test_every_way_to_import_is_seen(self, tmp_path, monkeypatch):
        source = "import torch\nfrom dgviz import ui\nfrom . import spectrum\nfrom ..errors import X\n"
        source += "def f():\n    from dgviz.gram import y\n"
        source += "if TYPE_CHECKING:\n    import scipy\nif x:\n    import numpy\n"
        path = tmp_path / "dgviz" / "checkpoint" / "read.py"
        path.parent.mkdir(parents=True)
        path.write_text(source)
        monkeypatch.setitem(globals(), "ROOT", tmp_path)
        assert sorted(imports(path), key=lambda found: found[1]) == [
            ("torch", 1, True),
            ("dgviz.ui", 2, True),
            ("dgviz.checkpoint.spectrum", 3, True),
            ("dgviz.errors.X", 4, True),
            ("dgviz.gram.y", 6, False),
            ("scipy", 8, False),
            ("numpy", 10, True),
        ]
