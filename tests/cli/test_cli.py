"""The command line as its users and scripts see it: JSON, exit codes, one line on standard error."""

import importlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.cli import main
from dgviz.command import COMMON, GRAMMAR, SECTIONS, Command
from dgviz.errors import DgvizError
from dgviz.export import FORMATS
from dgviz.export.report import read_report
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import OUTPUT_DTYPES, RepairPlan
from dgviz.rmt.shrinkage import SHRINKERS
from dgviz.rmt.threshold import RULES
from tests.analysis.test_lens import LLAMA, PLANTED, write_model
from tests.checkpoints import write_checkpoint, write_pair

ROOT = Path(__file__).parents[2]
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return [str(path) for path in write_pair(tmp_path_factory.mktemp("cli"), config={"model_type": "synthetic"})]


def run(capsys, *arguments):
    """Run a command in this process; return status, standard output and standard error."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_inspect(capsys, pair):
    status, out, _ = run(capsys, "inspect", *pair, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["counts"] == {"repair": 6, "keep": 5, "base_only": 0}
    assert {"name", "shape", "dtype", "action", "reason"} <= found["tensors"][0].keys()
    assert {row["action"] for row in found["tensors"]} == {"repair", "keep"}
    status, out, _ = run(capsys, "inspect", *pair)
    assert status == 0 and out.splitlines()[-1] == "6 repair, 5 keep, 0 base_only"
    assert "model.embed_tokens.weight" in out


def test_spectrum_equals_numpy(capsys, pair):
    name = "model.embed_tokens.weight"
    status, out, _ = run(capsys, "spectrum", *pair, name, "--json", "--device", "cpu")
    report = json.loads(out)
    (found,) = report["matrices"]
    assert status == 0 and report["name"] == name and report["shape"] == [96, 32]
    keys = {"beta", "sigma", "tau", "edge", "rank", "energy_kept", "mp_fit", "singular_values"}
    assert keys <= found.keys()
    base, tuned = (load_file(f"{path}/model.safetensors")[name].double().numpy() for path in pair)
    s = np.linalg.svd(tuned - base, compute_uv=False)
    np.testing.assert_allclose(found["singular_values"], s, rtol=1e-5, atol=1e-7)
    assert found["beta"] == pytest.approx(1 / 3)
    assert found["rank"] == 3
    assert found["energy_kept"] == pytest.approx((s[:3] ** 2).sum() / (s**2).sum(), rel=1e-5)
    assert set(found["mp_fit"]) == {"tuned", "repaired", "discarded", "discarded_own", "noise"}


def test_spectrum_reads_directions_through_the_vocabulary(capsys, tmp_path):
    found = write_model(tmp_path, update=[LLAMA[0]])
    sides, name = [str(side.path) for side in (found.base, found.tuned)], "model.layers.0.mlp.down_proj.weight"
    status, out, _ = run(capsys, "spectrum", *sides, name, "--lens", "1+30", "--json")
    (row,) = json.loads(out)["matrices"]
    first, other = row["lens"]
    assert status == 0 and (first["number"], other["number"]) == (1, 30)
    assert PLANTED in ([token["id"] for token in first[end][:3]] for end in ("plus", "minus"))
    _, out, _ = run(capsys, "spectrum", *sides, name, "--lens", "1")
    assert re.search("^[+-]u +" + " ".join(f"␣word{token - 259}" for token in PLANTED), out, re.MULTILINE)
    assert "direction 1: u, which it writes, against lm_head.weight; its strongest token" in out
    for lens, message in (("best", "names no directions"), ("129", "and no 129")):
        status, _, error = run(capsys, "spectrum", *sides, name, "--lens", lens)
        assert status == 2 and message in error


def test_spectrum_of_a_stack_has_a_row_per_matrix(capsys, pair):
    name = "model.layers.2.mlp.experts.gate_up_proj"
    _, out, _ = run(capsys, "spectrum", *pair, name, "--json")
    rows = json.loads(out)["matrices"]
    assert len(rows) == 4 and len({row["tau"] for row in rows}) == 4
    assert all(len(row["singular_values"]) == 32 for row in rows)
    status, out, _ = run(capsys, "spectrum", *pair, name)
    assert status == 0 and [f"{name}[{index}]" in out for index in range(5)] == [True] * 4 + [False]


def test_repair_writes_what_it_reports(capsys, pair, tmp_path):
    out_dir = tmp_path / "out"
    status, out, err = run(capsys, "repair", *pair, out_dir, "--json", "--exclude", "conv")
    report = json.loads(out)
    assert status == 0
    assert err == ""  # bars are for terminals
    assert report.pop("seconds") > 0  # not in the file, whose bytes are the same for every run
    assert report == read_report(out_dir)
    rows = report["tensors"]
    assert {row["action"] for row in rows.values()} == {"repair", "keep"}
    assert rows["model.conv.weight"]["action"] == "keep"
    row = rows["model.embed_tokens.weight"]
    assert {"action", "shape", "matrices"} <= row.keys()
    assert {"rank", "tau", "sigma", "edge", "energy_kept", "mp_fit"} <= row["matrices"][0].keys()
    assert len(rows["model.layers.2.mlp.experts.gate_up_proj"]["matrices"]) == 4
    assert load_file(out_dir / "model.safetensors").keys() == load_file(f"{pair[1]}/model.safetensors").keys()


@pytest.mark.parametrize("command", ["repair", "repair-all"])
def test_what_is_surprising_is_said_once_before_any_work(capsys, pair, tmp_path, command, monkeypatch):
    base, tuned = (shutil.copytree(side, tmp_path / Path(side).name) for side in pair)
    (tuned / "adapter_config.json").write_text("{}")
    (tuned / "adapter_model.safetensors").write_bytes((tuned / "model.safetensors").read_bytes())
    methods = ["--method", "wise_ft", "--method", "dg_hard"] if command == "repair-all" else []
    status, _, err = run(capsys, command, base, tuned, tmp_path / "out", *methods)
    assert status == 0 and err.count("An adapter (adapter_config.json and its weights) lies beside") == 1
    assert "config.json in" not in err  # the report's own words say it

    def stop(*_):
        raise DgvizError("work would begin here")

    for name in ("write.iter_export", "batch.iter_exports"):
        monkeypatch.setattr(f"dgviz.export.{name}", stop)
    status, _, err = run(capsys, command, base, tuned, tmp_path / "other", *methods)
    assert status and "An adapter " in err.partition("work would begin here")[0]


def test_repair_with_a_rule_and_its_parameters(capsys, pair, tmp_path):
    arguments = ("repair", *pair, tmp_path / "all", "--rule", "manual", "--rule-param", "tau=0")
    assert run(capsys, *arguments)[0] == 0
    written = (tmp_path / "all" / "model.safetensors").read_bytes()
    assert written == Path(pair[1], "model.safetensors").read_bytes()
    _, out, _ = run(
        capsys, "repair", *pair, tmp_path / "none", "--rule", "manual", "--rule-param", "tau=inf", "--json"
    )
    assert json.loads(out)["plan"]["params"] == {"tau": "inf"}
    _, out, _ = run(
        capsys, "repair", *pair, tmp_path / "two", "--rule", "fixed_rank", "--rule-param", "rank=2", "--json"
    )
    assert json.loads(out)["tensors"]["model.embed_tokens.weight"]["matrices"][0]["rank"] == 2


def test_a_folder_of_several_weight_files_takes_a_figure_too(capsys, tmp_path):
    sides = write_pair(tmp_path)
    files = [(side / "model.safetensors").rename(tmp_path / f"{side.name}.safetensors") for side in sides]
    assert run(capsys, "spectrum", *files, EMBEDDING, "--figure", tmp_path / "figure.svg")[0] == 0
    assert (tmp_path / "figure.svg").is_file()


def test_a_shrinker_is_taken_where_an_override_has_a_threshold(capsys, pair, tmp_path):
    options = ["--method", "wise_ft", "--shrinker", "frobenius", "--override", f"{EMBEDDING}: rule=mp_edge"]
    status, out, _ = run(capsys, "repair", *pair, tmp_path / "out", *options, "--json")
    written = json.loads(out)
    assert status == 0 and written["plan"]["shrinker"] == "frobenius"
    stored = ["repair", *pair, tmp_path / "again", "--plan", tmp_path / "out" / "dgviz.json", "--json"]
    assert json.loads(run(capsys, *stored)[1])["plan"] == written["plan"]


def test_a_plan_file_may_hold_a_rule_beside_a_method_that_takes_none(capsys, pair, tmp_path):
    plan = RepairPlan(rule="mp_edge", method="wise_ft", shrinker="frobenius")
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    given = ["--plan", tmp_path / "plan.json", "--json"]
    assert json.loads(run(capsys, "repair", *pair, tmp_path / "out", *given)[1])["plan"] == plan.to_json()
    assert json.loads(run(capsys, "noise", *pair, *given)[1])["rule"] == "mp_edge"  # spectra are cut by it
    printed = str(Command("repair", base=pair[0], tuned=pair[1], out=tmp_path / "next", **plan.arguments))
    assert run(capsys, *Command.parse(printed).words)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "gone", "{1}"], "gone"),
        (["inspect", "{0}", "{0}"], "same"),
        (["spectrum", "{0}", "{1}", "model.embed_tokens.wait"], "did you mean 'model.embed_tokens.weight'"),
        (["spectrum", "{0}", "{1}", "model.norm.weight"], "has no spectrum to show"),
        (["spectrum", "{0}", "{1}", "model.embed_tokens.weight", "--rule", "best"], "no threshold rule 'best'"),
        (["spectrum", "{0}", "{1}", "model.embed_tokens.weight", "--rule-param", "tau"], "takes NAME=VALUE"),
        (["spectrum", "{0}", "{1}", "model.embed_tokens.weight", "--rule-param", "k=3"], "no parameter 'k'"),
        (["spectrum", "{0}", "{1}", "model.embed_tokens.weight", "--device", "tpu"], "'tpu' is not available here"),
        (["repair", "{0}", "{1}", "{1}/inside"], "lies inside the tuned checkpoint"),
        (["repair", "{0}", "{1}", "out", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["inspect", "{0}", "{1}", "--include", "("], "include"),
        (["polish", "{0}"], "no command 'polish'; did you mean 'push'? See"),
        (["scn", "{0}"], "no command 'scn'; did you mean 'scan'? See"),
        (["scan", "{0}", "{1}", "--incldue", "x"], "did you mean '--include' or '--exclude'? See"),
        (["spectrum", "{0}", "{1}", "model.embed_tokens.weight", "--rule", "dghard"], "did you mean 'dg_hard'?"),
        (["repair", "{0}", "{1}", "out", "--method", "wiseft"], "did you mean 'wise_ft'?"),
        (["repair", "{0}", "{1}", "out", "--rule-param", "scal=2"], "it takes scale; did you mean 'scale'?"),
        (
            ["repair", "{0}", "{1}", "out", "--param", "tau=0.1"],
            "has no tau, which is of the rule manual: use",
        ),
        (["repair", "{0}", "{1}", "out", "--rule-param", "p=0.1"], "has no p, which is of the method dare"),
        (["repair", "{0}", "{1}", "out", "--rule-param", "tau=0.1"], "it takes scale; tau is a parameter of manual"),
        (["repair", "{0}", "{1}", "out", "--param", "p=0.1"], "it takes alpha; p is a parameter of dare"),
        (
            ["repair", "{0}", "{1}", "out", "--method", "wise_ft", "--rule", "manual", "--rule-param", "tau=0.5"],
            "--rule changes nothing: the method wise_ft takes no threshold; leave it out, or choose one of dg_hard, ",
        ),
        (["repair", "{0}", "{1}", "out", "--method", "ties", "--rule-param", "scale=2"], "--rule-param changes"),
        (["repair", "{0}", "{1}", "out", "--method", "wise_ft", "--shrinker", "frobenius"], "--shrinker changes"),
        (
            [
                "layer-masks",
                "{0}",
                "{1}",
                "out",
                "--scorer",
                "a {{model}} {{out}}",
                "--method",
                "ties",
                "--rule",
                "energy",
            ],
            "--rule changes nothing",
        ),
        (["repair", "{0}", "{1}", "out", "--private"], "nothing is uploaded; give --push-to ORG/NAME"),
        (["repair", "{0}", "{1}", "out", "--format", "lora", "--allow-code"], "--allow-code is for --format full"),
        (["repair", "{0}", "{1}", "out", "--format", "factors", "--check-logits"], "--check-logits is for --format"),
        (["repair", "{0}", "{1}"], "OUT"),
        (["repair-all", "{0}", "{1}", "out"], "--methods"),
        (["demo", "out", "--train", "--scores"], "not allowed with argument --train"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(capsys, pair, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(cache))  # nothing remembered: the device is really asked for
    status, out, err = run(capsys, *(argument.format(*pair) for argument in arguments))
    assert status == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1 and "Traceback" not in err


NAMED_OUTPUTS = [(name, argument) for name, form in GRAMMAR.items() for argument in form.arguments if argument.writes]


@pytest.mark.parametrize(("command", "argument"), NAMED_OUTPUTS, ids=lambda item: getattr(item, "flag", item))
def test_no_output_takes_the_place_of_anything_in_a_checkpoint(capsys, tmp_path, command, argument):
    base, tuned = map(str, write_pair(tmp_path))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    (tmp_path / "link").symlink_to(tuned)
    ending = argument.writes[0].strip("/")
    sides = {"spectrum": [base, tuned, EMBEDDING], "family": [base, tuned, tuned]}.get(command, [base, tuned])
    more = {"report": ["-o", str(tmp_path / "r.html")], "layer-masks": ["--scorer", "true {model} {out}"]}
    words_of = [command, *sides, *(more.get(command, []) if argument.short != "-o" else [])]
    refused = [
        (f"{tuned}/new{ending}", f"lies inside the tuned checkpoint {tuned}"),
        (f"{base}/new/new{ending}", f"lies inside the base checkpoint {base}"),
        (f"{tmp_path}/link/new{ending}", f"lies inside the tuned checkpoint {tuned}"),
    ]
    if ending:
        refused += [(f"{tuned}/model.safetensors", f"does not end in {ending}"), (str(tmp_path / "new"), "end in")]
    else:
        refused.append((tuned, f"is the tuned checkpoint {tuned}"))
    for path, message in refused:
        given = [path] if argument.positional else [argument.flag, path]
        status, out, err = run(capsys, *words_of, *given)
        assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1, err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


WITH_DEVICE = [name for name, form in GRAMMAR.items() if {"base", "device"} <= {item.name for item in form.arguments}]


@pytest.mark.parametrize("command", WITH_DEVICE)
@pytest.mark.parametrize("device", ["nonsense", "cpu:0", "cuda:99"])
def test_a_device_that_there_is_not_is_refused_before_any_work(capsys, tmp_path, command, device):
    more = {
        "spectrum": [EMBEDDING],
        "report": ["-o", str(tmp_path / "r.html")],
        "repair-all": ["out", "--methods", "wise_ft"],
        "fit": ["plan.json"],
    }
    options = more.get(command, ["out"] if command in ("repair", "layer-masks") else [])
    status, out, err = run(capsys, command, "base", "tuned", *options, "--device", device)
    assert (status, out) == (2, "")
    assert err.startswith(f"dgviz {command}: device {device!r} is not available here: choose one of auto, ")


def test_no_command_lists_them_all_by_group(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert run(capsys, "--help")[1] == out
    groups = dict.fromkeys(form.group for form in GRAMMAR.values())
    places = [out.index(f"\n{group}:\n") for group in groups]
    assert places == sorted(places) and len(places) >= 4
    for form in GRAMMAR.values():
        assert re.search(rf"^  {form.name} +{re.escape(form.help)}$", out, flags=re.MULTILINE)


@pytest.mark.parametrize("command", GRAMMAR)
def test_every_command_has_help_and_is_there(capsys, command):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0 and out.startswith(f"usage: dgviz {command} ")
    assert set(re.findall(r"\{([a-z]+)\}", out)) <= {"demo", "model", "out"}  # every list of names is filled in
    assert callable(importlib.import_module(f"dgviz.cli.{command.replace('-', '_')}").run)


@pytest.mark.parametrize(
    ("command", "lists"), [("scan", ["rules"]), ("repair", ["rules", "methods", "shrinkers"]), ("push", [])]
)
def test_help_has_a_line_for_every_name_that_the_command_takes(capsys, command, lists):
    out = run(capsys, command, "--help")[1]
    known = {"rules": RULES, "methods": METHODS, "shrinkers": SHRINKERS}
    assert [name for name in known if f"\n{name}:\n" in out] == lists
    for name in lists:
        for item in known[name].values():
            assert re.search(rf"^  {item.name} +{re.escape(item.title)}", out, flags=re.MULTILINE)


def test_help_has_sections(capsys):
    out = run(capsys, "repair", "--help")[1]
    sections = re.findall(r"^([a-z][a-z ]+):$", out, flags=re.MULTILINE)
    assert set(sections) >= {"what it takes", "which tensors", "threshold", "method", "plan", "what is written"}
    flags = {argument.flag for form in GRAMMAR.values() for argument in form.arguments}
    assert SECTIONS.keys() - flags == {argument.flag for argument in COMMON}


def test_how_much_is_said_on_the_way(capsys, pair):
    scan = ["scan", *pair, "--workers", "1"]
    assert run(capsys, *scan)[2] == ""  # no bar, for this is no terminal
    lines = run(capsys, *scan, "--log-level", "info")[2].splitlines()
    assert len(lines) == 9 and all(line.startswith("info: scan: model.") for line in lines)
    status, _, err = run(capsys, "spectrum", *pair, "gone", "--log-level", "debug")
    assert status == 2 and "Traceback" in err and err.splitlines()[-1].startswith("dgviz spectrum: no tensor 'gone'")
    status, _, err = run(capsys, "spectrum", *pair, "gone", "--quiet")
    assert status == 2 and err.startswith("dgviz spectrum: no tensor") and err.count("\n") == 1


def test_a_warning_of_all_matrices_is_said_once(capsys, pair, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "file" / "cache"))
    status, _, err = run(capsys, "scan", *pair, "--workers", "1")
    lines = [line for line in err.splitlines() if "cannot be stored" in line]
    assert status == 0 and len(lines) == 1
    assert re.fullmatch(r"warning: model\.\S+, .* and \d+ more: the spectrum cannot be stored in .*", lines[0])


def test_quiet_leaves_out_warnings_and_no_errors(capsys, tmp_path):
    base, tuned = write_pair(tmp_path)
    values = load_file(tuned / "model.safetensors")
    name = "model.embed_tokens.weight"
    values[name][2, 3] = torch.nan
    save_file(values, tuned / "model.safetensors")
    scan = ["scan", base, tuned, "--workers", "1", "--exclude", "lm_head"]
    for options in ([], ["-q"]):
        status, _, err = run(capsys, *scan, *options)
        assert status == 1 and err.splitlines()[-1].startswith(f"dgviz scan: {name} failed: ")
    blocked = load_file(base / "model.safetensors")
    blocked[name] = torch.cat([blocked[name], blocked[name]], 1)
    save_file(blocked, base / "model.safetensors")
    assert "warning: " in run(capsys, *scan)[2]
    assert run(capsys, *scan, "-q")[::2] == (0, "")


def test_bars_are_for_terminals(pair):
    code = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['sh', '-c', sys.argv[1]])))"
    command = [sys.executable, "-m", "dgviz", "scan", *pair, "--workers", "1"]
    drawn = {}
    for options in ((), ("-q",), ("--log-level", "info")):
        typed = f"stty cols 100 rows 40; {shlex.join([*command, *options])}"
        done = subprocess.run([sys.executable, "-c", code, typed], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        drawn[options] = done.stdout
    assert "100%|" in drawn[()]
    assert "%|" not in drawn[("-q",)] and "info: scan:" in drawn[("--log-level", "info")]


def test_an_interrupted_command_ends_as_shells_say(tmp_path):
    values = torch.randn(2048, 1024, generator=torch.Generator().manual_seed(0))  # seconds of work
    sides = {"base": values, "tuned": values + 1e-2 * values.flip(0)}
    pair = [
        str(write_checkpoint(tmp_path / side, {f"{n}.weight": own.roll(n).bfloat16() for n in range(20)}, {"a": 1}))
        for side, own in sides.items()
    ]
    command = [sys.executable, "-m", "dgviz", "repair", *pair, str(tmp_path / "out"), "--log-level", "info"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    with process:
        assert process.stderr.readline().startswith("info: repair: ")
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "dgviz repair: interrupted"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_is_printed(capsys, shell):
    status, out, err = run(capsys, "completion", shell)
    assert (status, err) == (0, "") and len(out) > 3000
    assert all(command in out for command in GRAMMAR)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["sc"], {"scan"}),
        (["scan", "a", "b", "--rule", "mp"], {"mp_edge", "mp_edge_tw"}),
        (["repair", "a", "b", "c", "--method", "wise"], {"wise_ft"}),
        (["scan", "a", "b", "--qu"], {"--quiet"}),
    ],
)
def test_bash_completes(capsys, tmp_path, typed, found):
    script = tmp_path / "completion"
    script.write_text(run(capsys, "completion", "bash")[1])
    words = shlex.join(["dgviz", *typed])
    asked = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _shtab_dgviz; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == found


def test_choices_are_what_the_rooms_offer():
    choices = {argument.flag: argument.choices for argument in GRAMMAR["repair"].arguments}
    assert choices["--dtype"] == OUTPUT_DTYPES and choices["--format"] == tuple(FORMATS)


def test_a_non_finite_update_ends_a_repair_with_its_place(capsys, tmp_path):
    base, tuned = write_pair(tmp_path)
    values = load_file(tuned / "model.safetensors")
    values["model.embed_tokens.weight"][2, 3] = torch.inf
    save_file(values, tuned / "model.safetensors")
    status, _, err = run(capsys, "repair", base, tuned, tmp_path / "out")
    assert status == 2
    assert "model.embed_tokens.weight: entry [2, 3]" in err.splitlines()[-1]


def test_a_failing_disk_is_status_1(capsys, pair, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    status, _, err = run(capsys, "repair", *pair, blocked / "out")
    assert status in (1, 2) and "Traceback" not in err and str(blocked) in err


def test_the_module_runs_and_asks_no_torch_for_headers(pair):
    code = (
        "import sys; from dgviz.cli import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", *pair, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-m", "dgviz", "--version"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith(b"dgviz ")


def test_demo_writes_the_pair_out(capsys, tmp_path):
    status, out, _ = run(capsys, "demo", tmp_path / "demo", "--json")
    paths = json.loads(out)
    assert status == 0
    assert {"base", "clean", "noisy"} <= paths.keys()
    status, out, _ = run(capsys, "inspect", paths["base"], paths["noisy"], "--json")
    assert status == 0 and json.loads(out)["counts"]["repair"] > 20
