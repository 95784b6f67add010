"""What is installed: ranges hold the pins, and work that needs no transformers is done without it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dgviz.demo import demo_paths
from dgviz.errors import PackageError
from dgviz.packages import EXTRAS, need

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRA = PROJECT["optional-dependencies"]


def pins(file):
    """The exact versions in a file, by package."""
    return dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / file).read_text(), re.MULTILINE))


def test_what_is_tested_lies_in_the_ranges_of_the_package():
    wanted = {one.name: one.specifier for one in map(Requirement, [*PROJECT["dependencies"], *EXTRA["all"]])}
    pinned, lowest = pins("requirements.txt"), pins("tests/lowest.txt")
    assert all(pinned[name] in specifier for name, specifier in wanted.items())
    assert {name: str(specifier) for name, specifier in wanted.items()} == {
        name: f">={version}" for name, version in lowest.items()
    }


def test_every_extra_is_one():
    assert set(EXTRAS.values()) <= EXTRA.keys()


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    need("This", "numpy")
    for module, extra in EXTRAS.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(PackageError, match=rf"^This needs {module}, .*: run `.* install 'dgviz\[{extra}\]'`$"):
            need("This", "numpy", module)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A function that runs a command where only what the core needs is installed; returns its exit code and words."""
    folder = tmp_path_factory.mktemp("bare")
    without = ["transformers", "peft", "sklearn", "accelerate", "tokenizers", "lm_eval"]
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({without!r}))\n")
    path = os.pathsep.join([str(folder), str(ROOT)])

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-m", "dgviz", *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_core_needs_no_transformers(bare, tmp_path):
    pair = demo_paths()["base"], demo_paths()["noisy"]
    status, said = bare("repair", *pair, tmp_path / "out", "--device", "cpu")
    assert status == 0 and "transformers: not checked: transformers is not installed" in said
    for words in (["scan", *pair, "--device", "cpu"], ["repair", *pair, tmp_path / "factors", "--format", "factors"]):
        assert bare(*words)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["repair", "BASE", "TUNED", "out", "--format", "lora"], "models"),
        (["fit", "BASE", "TUNED", "plan.json"], "models"),
        (["calibrate", "folder"], "models"),
        (["demo", "folder", "--train"], "demo"),
    ],
)
def test_what_needs_more_says_so_in_a_sentence(bare, tmp_path, words, extra):
    names = {"BASE": demo_paths()["base"], "TUNED": demo_paths()["noisy"]}
    paths = ("out", "plan.json", "folder")
    status, said = bare(*(names.get(word, tmp_path / word if word in paths else word) for word in words))
    assert status == 2 and f"is not installed: run `python -m pip install 'dgviz[{extra}]'`" in said
    assert not (tmp_path / "out").exists()
