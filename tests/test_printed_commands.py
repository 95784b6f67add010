"""Every command that a page, a message, a card or the documentation prints can be typed: it is read back, equal."""

import ast
import inspect
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import dgviz
from dgviz.analysis.model_spectra import read_spectra
from dgviz.analysis.rules import cut_model, read_rule, rule_label
from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.command import GRAMMAR, Command, option
from dgviz.demo import read_scores
from dgviz.errors import CheckpointError, ExportFailedError, PairError, ThresholdError
from dgviz.export import plan_export
from dgviz.export.push import push
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.app.pages import open_at
from tests.checkpoints import write_checkpoint, write_pair

ROOT = Path(__file__).parents[1]
SEED, SUM = 123456789, 0.1 + 0.2
ODD = "a 'b' \"c\""
START = "python -m dgviz "


def printed(text):
    """Return the commands in a text, each to the end of its backticks or its line, read from what is printed."""
    found = []
    for match in re.finditer(rf"(`?){START}(.*)", text):
        typed = match[2].partition("`")[0] if match[1] else match[2]
        command = Command.parse(typed)
        assert str(command) == START + typed or match[1] == "", typed
        found.append(command)
    return found


def refusal(error, function, *arguments):
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path / ODD)


def store(paths):
    pair = open_pair(*paths)
    for weight in weights_of(pair):
        OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    return read_spectra(pair).weights


def written(pair, plan, out):
    assert list(iter_export(plan_export(pair, plan, out), "cpu"))


# --- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_scan_a_rule_asks_for_is_the_one_it_needs(pair):
    matrices = store(pair)
    plan = read_rule(f"flip_pa:seed={SEED}:trials=3")
    (command,) = printed(refusal(ThresholdError, cut_model, matrices, plan))
    assert command == Command(
        "scan", base="BASE", tuned="TUNED", rule="flip_pa", rule_param={"trials": 3, "seed": SEED}
    )
    words = [{"BASE": str(pair[0]), "TUNED": str(pair[1])}.get(word, word) for word in command.words]
    assert main([*words, "--workers", "1", "--device", "cpu"]) == 0
    assert len(cut_model(read_spectra(open_pair(*pair)).weights, plan).rows) == len(matrices)


@pytest.mark.parametrize("command", ["thresholds", "noise"])
def test_what_is_missing_says_which_scan(pair, capsys, command):
    assert main([command, *map(str, pair)]) == 1
    assert printed(capsys.readouterr().err) == [Command("scan", base=pair[0], tuned=pair[1])]


def test_a_hub_id_that_is_not_there_says_how_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = refusal(CheckpointError, open_pair, "org/name@v1", "org/other")
    assert printed(text) == [Command("fetch", model="org/name@v1")]


def test_an_upload_that_failed_says_how_to_repeat_it(pair, tmp_path):
    out = tmp_path / f"{ODD} out"
    written(open_pair(*pair), RepairPlan(), out)
    assert printed(refusal(ExportFailedError, push, out, "org/name")) == [
        Command("push", out=out, repository="org/name")
    ]


def test_a_broken_demo_says_how_to_write_it_again(tmp_path):
    (tmp_path / "scores.json").write_text("{")
    assert printed(refusal(CheckpointError, read_scores, tmp_path)) == [Command("demo", directory="DIR")]


def test_names_to_exclude_are_those_meant(tmp_path):
    name = f"{ODD} $x.weight"
    base, tuned = torch.ones(40, 40), torch.ones(40, 41)
    other = torch.randn(64, 64)
    paths = [
        write_checkpoint(tmp_path / side, {name: value, "v": other})
        for side, value in (("base", base), ("tuned", tuned))
    ]
    text = refusal(PairError, open_pair, *paths)
    (flag, pattern) = shlex.split(text[text.index("--exclude ") :])
    assert flag == "--exclude" and open_pair(*paths, exclude=pattern)[name].reason == "Excluded by --exclude."


def test_a_value_that_is_not_finite_can_be_excluded_as_said(tmp_path, capsys):
    name = "it's [odd].weight"
    base, other = torch.randn(64, 64), torch.randn(64, 64)
    tuned = base.clone()
    tuned[1, 2] = float("nan")
    paths = [
        write_checkpoint(tmp_path / side, {name: value, "v": other})
        for side, value in (("base", base), ("tuned", tuned))
    ]
    for number, method in enumerate(("dg_hard", "magnitude")):
        words = ["repair", *map(str, paths), str(tmp_path / f"out{number}"), "--method", method, "--device", "cpu"]
        assert main(words) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert main([*words, *shlex.split(said[said.index("--exclude ") :])]) == 0


@pytest.mark.parametrize(
    "plan",
    [
        RepairPlan("flip_pa", {"seed": SEED, "scale": SUM}, shrinker="frobenius", exclude="it's (a|b)$"),
        RepairPlan("manual", {"tau": 1e-17}, dtype="float32"),
        RepairPlan(method="dare", method_params={"seed": SEED, "p": SUM}, include="mlp| "),
        RepairPlan("known_sigma", {"sigma": 1e-17}),
    ],
)
def test_a_plan_is_told_exactly_wherever_it_is_printed(pair, tmp_path, plan):
    command = Command("repair", base="b", tuned="t", out="o", **plan.arguments)
    assert Command.parse(str(command)) == command
    given = command.given
    read = RepairPlan(
        given.get("rule", "dg_hard"),
        given.get("rule_param", {}),
        given.get("include"),
        given.get("exclude"),
        given.get("dtype", "auto"),
        given.get("method", "dg_hard"),
        given.get("param", {}),
        given.get("shrinker", "hard"),
    )
    assert read == plan
    assert read_plan(plan.label, dtype=plan.dtype, include=plan.include, exclude=plan.exclude) == plan
    if plan.recipe.thresholded:
        assert read_rule(rule_label(plan)).params == plan.params
    written(open_pair(*pair, plan.include, plan.exclude), plan, tmp_path / "out")
    (shown,) = printed((tmp_path / "out" / "README.md").read_text())
    assert shown == Command("repair", base=pair[0].name, tuned=pair[1].name, out="OUT", **plan.arguments)


# --- pages ----------------------------------------------------------------------------------------------------------


def shown(page, paths, **query):
    """Return the commands on a page."""
    app = open_at(page, base=paths[0], tuned=paths[1], **query)
    blocks = [block.value for block in app.code if block.language == "bash"]
    commands = [Command.parse(block) for block in blocks]
    assert [str(command) for command in commands] == blocks
    return commands


RULE = {"rule": "flip_pa", "rule_param": {"seed": SEED}}


@pytest.mark.slow
def test_every_page_prints_commands_that_can_be_typed(pair, tmp_path):
    matrices = store(pair)
    sides = {"base": pair[0], "tuned": pair[1]}
    assert shown("open", pair) == [Command("scan", **sides)]
    export, _ = shown("open?plan=open", pair, rule="flip_pa", params=f"seed:{SEED}", exclude="it's")
    assert export == Command("repair", **sides, out=export.given["out"], exclude="it's", **RULE)
    assert shown("workbench", pair, weight=matrices[0].weight.name, rule="energy", params=f"fraction:{SUM!r}") == [
        Command("spectrum", **sides, tensor=matrices[0].weight.name, rule="energy", rule_param={"fraction": SUM})
    ]
    (by_hand,) = shown("workbench", pair, weight=matrices[0].weight.name, tau=repr(SUM / 10))
    assert by_hand.given["rule"] == "manual" and by_hand.given["rule_param"] == {"tau": SUM / 10}
    (compared,) = shown("workbench?show=model-methods", pair)[:1]
    assert compared.name == "compare-methods" and "dg_hard" in compared.given["methods"]
    other = shutil.copytree(pair[1], tmp_path / "other one")
    (family,) = shown("workbench?show=family", pair, others=other, rule="flip_pa", params=f"seed:{SEED}")
    assert family.given["tuned"] == (str(pair[1]), str(other)) and family.given["rule_param"] == {"seed": SEED}


@pytest.mark.slow
def test_recovery_and_sweep_print_commands_that_can_be_typed(pair):
    (recovery,) = shown("evidence", ["demo:base", "demo:noisy"])
    assert recovery.name == "recovery" and recovery.given["scores"] == ("scores.json",)
    sweep = shown("workbench?show=model-methods", pair)[-1]
    assert sweep.name == "sweep" and sweep.given["save"] == "sweep.json"


# --- documentation and source ---------------------------------------------------------------------------------------

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_can_be_typed(document):
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for typed in re.findall(rf"{START}([^`\n#|>&]*[^`\n#|>&\s])", text):
        words = shlex.split(typed.replace("...", ""))
        if len(words) > 1:  # one alone is a name in a sentence
            Command.parse(words)
        else:
            assert words[0] in {*GRAMMAR, "COMMAND"}


def strings(path):
    """Yield the texts of a module, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, nodes) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


SOURCES = sorted(Path(inspect.getfile(dgviz)).parent.rglob("*.py"))
FOREIGN = {"--sigma", "--help", "--version"}  # of the released code of DG-Hard; of every command
FOREIGN |= {"--safe", "--backend", "--local", "--target", "--input", "--output", "--de-quantize"}  # of other tools
FOREIGN |= {"--max-lora-rank"}  # of vLLM
FOREIGN |= {"--head"}  # of Ray


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_writes_a_command_out_and_every_option_it_names_exists(path):
    for text in strings(path):
        typed = re.search(rf"dgviz (?:{'|'.join(GRAMMAR)}) (?!cancelled|failed)[A-Z'\"./-]", text)
        assert typed is None, f"print a Command instead: {text!r}"
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text):
            if flag not in FOREIGN:
                assert option(flag) == flag
