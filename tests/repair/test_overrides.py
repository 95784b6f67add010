"""Overrides: read, applied, refused, and found again in every byte of an export."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dgviz.checkpoint import open_pair, read_tensor
from dgviz.cli import main
from dgviz.command import Command
from dgviz.errors import DgvizError, ExportError, PlanError
from dgviz.export.plan import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.methods import METHODS
from dgviz.repair.overrides import Override, refuse_idle
from dgviz.repair.plan import RepairPlan, read_plan_file
from dgviz.repair.tensor import factor_tensor, repair_tensor
from dgviz.rmt.threshold import RULES
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import matrices_of
from tests.checkpoints import write_pair, write_tiny_pair

EMBEDDING, UP, OTHER = "model.embed_tokens.weight", "model.layers.2.mlp.up.weight", "model.layers.10.mlp.up.weight"
STACK, NORM, CONV, IDS = (
    "model.layers.2.mlp.experts.gate_up_proj",
    "model.norm.weight",
    "model.conv.weight",
    "model.position_ids",
)

WHOLE_MODEL = "norm_matched_global"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def pair(paths):
    return open_pair(*paths)


@pytest.fixture(scope="module")
def sides(paths):
    return [load_file(path / "model.safetensors") for path in paths]


def plan(*overrides, **default):
    return RepairPlan(**default, overrides=overrides)


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: factor=0.47", {"rule": "mp_edge", "params": {"scale": 0.47}}),
        ("a: tau=0.053", {"rule": "manual", "params": {"tau": 0.053}}),
        ("a: rank=7", {"rule": "fixed_rank", "params": {"rank": 7}}),
        ("a: rule=energy, fraction=0.8", {"rule": "energy", "params": {"fraction": 0.8}}),
        ("a: rule=dg_hard,factor=2", {"rule": "dg_hard", "params": {"scale": 2.0}}),
        ("a: method=wise_ft, alpha=0.3", {"method": "wise_ft", "method_params": {"alpha": 0.3}}),
        ("a: shrinker=frobenius", {"shrinker": "frobenius", "rule": "mp_edge"}),
        ("a: keep=base", {"keep": "base"}),
        ("a: drop_directions=3+7", {"rule": "mp_edge", "drop_directions": "3+7"}),
        ("a: rank=0, keep_directions=2-4", {"rule": "fixed_rank", "keep_directions": "2-4"}),
        ("a: method=rank_r, rank=4, drop_directions=2", {"method": "rank_r", "method_params": {"rank": 4}}),
    ],
)
def test_what_an_override_sets(text, expected):
    own = Override.parse(text).applied(RepairPlan("mp_edge"))
    assert {name: getattr(own, name) for name in expected} == expected
    assert str(Override.parse(str(Override.parse(text)))) == str(Override.parse(text))


def test_the_last_colon_ends_the_selection():
    assert Override.parse("re=a: b: keep=tuned").selector.text == "re=a: b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", "is not SELECTION: NAME=VALUE"),
        ("a: ", "is not NAME=VALUE"),
        (": keep=tuned", "is empty"),
        ("a: factor", "is not NAME=VALUE"),
        ("a: factor=1, factor=2", "sets factor twice"),
        ("a: keep=mine", "keep is tuned or base"),
        ("a: keep=base, factor=1", "stands alone"),
        ("a: tau=1, rank=2", "sets both tau and rank"),
        ("a: rank=2, factor=1", "no factor on its tau"),
        ("a: rule=best", "no threshold rule 'best'"),
        ("a: method=best", "best"),
        ("a: method=ties", "takes something from the whole model"),
        ("a: method=lines", "takes something from the whole model"),
        ("a: fraction=0.5", "has no parameter 'fraction'"),
        ("a: factor=-1", "must lie in"),
        ("a: tau=__import__('os')", "must be a number"),
        ("a: keep=base, keep_directions=1", "stands alone"),
        ("a: keep_directions=0", "names no directions"),
        ("a: drop_directions=5-3", "names no directions"),
        ("a: drop_directions=1+", "names no directions"),
        ("a: keep_directions=3+7, drop_directions=6-8", "direction 7 cannot be kept and dropped"),
        ("a: method=wise_ft, keep_directions=1", "wise_ft keeps no single directions"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(text, said):
    with pytest.raises(DgvizError) as caught:
        plan(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_threshold_on_a_plan_without_one_is_dg_hards():
    own = Override.parse("a: factor=0.5").applied(RepairPlan(method="wise_ft"))
    assert (own.method, own.rule, own.params) == ("dg_hard", "dg_hard", {"scale": 0.5})
    own = Override.parse("a: factor=0.5").applied(RepairPlan(method=WHOLE_MODEL))
    assert own.method == "dg_hard"


def test_a_plan_is_told_exactly_and_read_back(tmp_path):
    told = plan(
        "layers=2: factor=0.1", "re=a|b: keep=tuned", rule="mp_edge", params={"scale": 1 / 3}, dtype="float32"
    )
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(told.to_json()))
    assert read_plan_file(file) == told
    command = Command("repair", base="b", tuned="t", out="o", **told.arguments)
    assert Command.parse(str(command)) == command and "--override 're=a|b: keep=tuned'" in str(command)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("[1]", "no JSON object"),
        ('{"rulle": "dg_hard"}', "has no rulle"),
        ('{"overrides": 3}', "wrong kind"),
        ('{"overrides": ["a"]}', "is not SELECTION"),
        ('{"rule": "nonesuch"}', "nonesuch"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path, content, said):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(DgvizError, match=said):
        read_plan_file(tmp_path / "plan.json")
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan_file(tmp_path / "none.json")


# --- fitting a pair -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.layers.3: keep=base", r"selects no tensor of .*there are model.layers.2"),
        (f"{NORM}: factor=2", "changes nothing; model.norm.weight is not changed by it: Not a matrix"),
        (f"{STACK}[4]: keep=base", f"fits no stack: {STACK} has 4 matrices"),
        (f"{UP}[0]: keep=base", f"fits no stack: {UP} is none"),
        (f"{STACK}[1]: method=wise_ft", "goes through all entries"),
        (f"{STACK}: drop_directions=1", "those of one matrix, and selects 4"),
        ("layers=2-10: drop_directions=1", "those of one matrix, and selects [0-9]+"),
        (f"{UP}: keep_directions=2000", f"names direction 2000; {UP} is [0-9]+ x [0-9]+ and has"),
    ],
)
def test_what_does_not_fit_the_pair_is_one_sentence(pair, text, said):
    with pytest.raises(PlanError, match=said):
        refuse_idle(plan(text), pair)


def test_a_matrix_of_a_stack_beside_a_method_that_takes_all_of_it(pair):
    with pytest.raises(PlanError, match="dare goes through all entries"):
        refuse_idle(plan(f"{STACK}[1]: factor=2", method="dare"), pair)
    refuse_idle(plan(f"{STACK}: factor=2", method="dare"), pair)


# --- what is written ------------------------------------------------------------------------------------------------


def reference(base, tuned, tau):
    """Return base + D* of matrices or stacks of them, in float64."""
    left, s, right = torch.linalg.svd((tuned - base).double(), full_matrices=False)
    return base.double() + (left * torch.where(s > tau, s, 0.0)[..., None, :]) @ right


def tau_of(delta, rule="dg_hard", **params):
    s = torch.linalg.svdvals(delta.double()).numpy()
    return RULES[rule].apply(s, tuple(delta.shape), **params).tau


OVERRIDES = (
    "layers=2-10: factor=0.3",
    f"name={OTHER}: tau=0.02",
    f"{EMBEDDING}: method=wise_ft, alpha=0.25",
    f"{STACK}[1]: rank=2",
    f"{STACK}[2]: keep=base",
    f"{STACK}[3]: keep=tuned",
    "model.conv: keep=tuned",
    f"{NORM}: keep=base",
)


def test_every_overridden_weight_holds_what_a_float64_reference_says(pair, sides, tmp_path):
    base, tuned = sides
    export = plan_export(pair, plan(*OVERRIDES), tmp_path / "out")
    *_, result = iter_export(export, "cpu")
    written = load_file(tmp_path / "out" / "model.safetensors")
    expected = {
        UP: reference(base[UP], tuned[UP], tau_of(tuned[UP] - base[UP], scale=0.3)),
        OTHER: reference(base[OTHER], tuned[OTHER], 0.02),
        EMBEDDING: base[EMBEDDING].double() + 0.25 * (tuned[EMBEDDING] - base[EMBEDDING]).double(),
        "model.pos": reference(
            base["model.pos"], tuned["model.pos"], tau_of((tuned["model.pos"] - base["model.pos"])[0])
        ),
    }
    for name, values in expected.items():
        torch.testing.assert_close(written[name].double(), values, rtol=0, atol=1e-7)
    delta = tuned[STACK] - base[STACK]
    first = reference(base[STACK][0], tuned[STACK][0], tau_of(delta[0], scale=0.3))
    second = reference(base[STACK][1], tuned[STACK][1], tau_of(delta[1], "fixed_rank", rank=2))
    torch.testing.assert_close(written[STACK][:2].double(), torch.stack([first, second]), rtol=0, atol=1e-7)
    assert torch.equal(written[STACK][2], base[STACK][2]) and torch.equal(written[STACK][3], tuned[STACK][3])
    assert torch.equal(written[CONV], tuned[CONV]) and torch.equal(written[NORM], base[NORM])
    assert torch.equal(written[IDS], tuned[IDS])

    rows = result.tensors
    assert [row.get("override") for row in rows[STACK]["matrices"]] == [OVERRIDES[0], *OVERRIDES[3:6]]
    assert rows[CONV]["action"] == "keep" and OVERRIDES[6] in rows[CONV]["reason"]
    assert rows[NORM]["written"] == "base bytes" and "method" not in rows[NORM]
    assert rows[EMBEDDING]["method"] == "wise_ft"
    assert result.report["plan"]["overrides"] == list(OVERRIDES)
    assert OVERRIDES[1] in (tmp_path / "out" / "README.md").read_text()
    told = read_plan_file(tmp_path / "out" / "dgviz.json")
    *_, again = iter_export(plan_export(pair, told, tmp_path / "again"), "cpu")
    assert again.report["files"] == result.report["files"]


def chosen(base, tuned, places):
    """Return base plus some directions of the update, in float64."""
    left, s, right = torch.linalg.svd((tuned - base).double(), full_matrices=False)
    return base.double() + (left[:, places] * s[places]) @ right[places]


def test_single_directions_are_kept_and_dropped_in_every_format(pair, sides, tmp_path):
    base, tuned = sides
    texts = f"{UP}: rank=4, keep_directions=9+12, drop_directions=2-3", f"{STACK}[1]: rank=3, drop_directions=1"
    told = plan(*texts)
    (*_, result), out = iter_export(plan_export(pair, told, tmp_path / "out"), "cpu"), tmp_path / "out"
    written = load_file(out / "model.safetensors")
    for name, index, places in ((UP, ..., [0, 3, 8, 11]), (STACK, 1, [1, 2])):
        expected = chosen(base[name][index], tuned[name][index], places)
        torch.testing.assert_close(written[name][index].double(), expected, rtol=0, atol=1e-7)
    (row,) = result.tensors[UP]["matrices"]
    s = torch.linalg.svdvals((tuned[UP] - base[UP]).double())
    assert row["rank"] == 4 and row["override"] == texts[0]
    assert row["energy_kept"] == pytest.approx(float((s[[0, 3, 8, 11]] ** 2).sum() / (s**2).sum()), rel=1e-5)
    assert result.report["plan"]["overrides"] == list(texts) and texts[0] in (out / "README.md").read_text()
    *_, again = iter_export(plan_export(pair, read_plan_file(out / "dgviz.json"), tmp_path / "again"), "cpu")
    assert again.report["files"] == result.report["files"]

    ((left, right),), report = factor_tensor(pair[UP], told, "cpu")
    expected = chosen(base[UP], tuned[UP], [0, 3, 8, 11]) - base[UP].double()
    torch.testing.assert_close(left.double() @ right.double(), expected, rtol=0, atol=1e-6)
    assert (left.shape[1], report.matrices[0].factor_rank, report.matrices[0].rank) == (4, 4, 4)


def test_single_directions_of_rank_truncation_and_of_a_shrinker(pair, sides):
    base, tuned = (side[UP] for side in sides)
    told = plan(f"{UP}: drop_directions=1", method="rank_r", method_params={"rank": 3})
    torch.testing.assert_close(
        repair_tensor(pair[UP], told, "cpu").tensor.double(), chosen(base, tuned, [1, 2]), rtol=0, atol=1e-7
    )
    own = plan(f"{UP}: shrinker=frobenius", f"{UP}: shrinker=frobenius, keep_directions=20").at(pair[UP])
    usual = plan(f"{UP}: shrinker=frobenius").at(pair[UP])
    measured = OpenWeight(matrices_of(pair[UP])[0], "cpu").measured
    before, after = usual.reshape(measured).values, own.reshape(measured).values
    assert before[19] == 0 and after[19] == measured.s[19]  # what the rule drops is kept in full
    assert (after[:19] == before[:19]).all() and before[0] < measured.s[0]


def test_single_directions_need_a_method_that_has_them_and_an_update(pair):
    with pytest.raises(PlanError, match="wise_ft, the plan's method, keeps no single directions"):
        plan(f"{UP}: drop_directions=1", method="wise_ft")
    assert plan(f"{UP}: rule=dg_hard, drop_directions=1", method="wise_ft").at(pair[UP]).method == "dg_hard"
    with pytest.raises(PlanError, match="the plan's default names single directions"):
        refuse_idle(RepairPlan(drop_directions="3"), pair)
    measured = OpenWeight(matrices_of(pair[UP])[0], "cpu").measured
    with pytest.raises(DgvizError, match="directions that are not zero; the plan names direction 500"):
        plan(f"{UP}: keep_directions=500").at(pair[UP]).reshape(measured)


def test_later_overrides_win(pair):
    assert repair_tensor(pair[UP], plan("layers=2: keep=base", f"{UP}: keep=tuned"), "cpu").source == pair[UP].tuned
    assert repair_tensor(pair[UP], plan(f"{UP}: keep=tuned", "layers=2: keep=base"), "cpu").source == pair[UP].base


def test_a_default_of_base_with_single_weights_repaired(pair):
    told = RepairPlan(overrides=["re=.: keep=base", f"{UP}: factor=1"])
    refuse_idle(told, pair)
    done = repair_tensor(pair[UP], told, "cpu")
    torch.testing.assert_close(done.tensor, repair_tensor(pair[UP], RepairPlan(), "cpu").tensor, rtol=0, atol=0)
    assert repair_tensor(pair[OTHER], told, "cpu").source == pair[OTHER].base


def test_factors_of_both_sides(pair, sides):
    base, tuned = sides
    told = plan(f"{STACK}[2]: keep=base", f"{STACK}[3]: keep=tuned")
    factors, report = factor_tensor(pair[STACK], told, "cpu")
    assert factors[2] is None and report.matrices[2].energy_kept == 0
    left, right = factors[3]
    torch.testing.assert_close(left @ right, tuned[STACK][3] - base[STACK][3], rtol=0, atol=1e-6)


def test_a_format_that_cannot_hold_an_override_names_it(pair, tmp_path):
    with pytest.raises(ExportError, match=r"--format factors .* override 'model.pos: method=wise_ft'"):
        plan_export(pair, plan("model.pos: method=wise_ft"), tmp_path / "out", "factors")
    plan_export(pair, plan("model.pos: keep=base"), tmp_path / "out", "factors")


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens.weight"])
def test_tied_tensors_are_one(tmp_path, name):
    paths = write_tiny_pair(tmp_path, "llama_tied")
    told = plan(f"{name}: keep=base")
    pair = open_pair(*paths)
    refuse_idle(told, pair)
    assert told.at(pair["model.embed_tokens.weight"]).keep == "base"


def test_the_default_takes_no_account_of_what_is_overridden(pair):
    """One factor for all matrices is that of the matrices which it is for."""
    from dgviz.repair.whole_model import prepare_method

    alone = RepairPlan(method=WHOLE_MODEL)
    only = open_pair(pair.base.path, pair.tuned.path, include=f"^{CONV}$")
    rest = plan(
        *(f"name={tensor.name}: keep=base" for tensor in pair.repairable if tensor.name != CONV),
        method=WHOLE_MODEL,
    )
    assert prepare_method(pair, rest, "cpu") == prepare_method(only, alone, "cpu")
    assert prepare_method(pair, alone, "cpu") != prepare_method(only, alone, "cpu")


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan_file(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan("layers=2: rank=5", rule="mp_edge").to_json()))
    return str(file)


def run(capsys, *words):
    status = main(list(map(str, words)))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.slow
def test_scan_spectrum_and_tables_take_overrides(capsys, paths, plan_file):
    for words in (["scan", *paths, "--workers", "1"], ["spectrum", *paths, UP]):
        status, out, _ = run(capsys, *words, "--json", "--device", "cpu", "--plan", plan_file)
        report = json.loads(out)
        weights = report["weights"] if words[0] == "scan" else {UP: report}
        assert status == 0 and weights[UP]["matrices"][0]["rank"] == 5
    (other,) = weights.get(OTHER, {"matrices": [{"rank": 3}]})["matrices"]
    assert other["rank"] == 3
    for words in (["noise", *paths], ["thresholds", *paths, "--rules", "dg_hard"]):
        plain, own = (
            json.loads(run(capsys, *words, "--json", *more)[1]) for more in ([], ["--override", "layers=2: rank=5"])
        )
        plain, own = ((found.get("whole") or found["rules"][0]) for found in (plain, own))
        assert plain != own


def test_rows_of_scan_and_spectrum_count_single_directions(capsys, paths):
    more = ["--json", "--device", "cpu", "--override", f"{UP}: rank=5, drop_directions=2, keep_directions=9+10"]
    for words in (["scan", *paths], ["spectrum", *paths, UP]):
        status, out, err = run(capsys, *words, *more)
        report = json.loads(out)
        (row,) = (report["weights"][UP] if words[0] == "scan" else report)["matrices"]
        assert status == 0 and row["rank"] == 6, err
    s = torch.tensor(row["singular_values"], dtype=torch.float64) ** 2
    kept = s[[0, 2, 3, 4, 8, 9]].sum() / s.sum()
    assert row["energy_kept"] == pytest.approx(float(kept), rel=1e-9)


def test_repairs_of_several_methods_share_overrides(capsys, paths, tmp_path, sides):
    methods = ["--methods", "dg_hard,wise_ft", "--override", f"{UP}: keep=base", "--device", "cpu"]
    assert run(capsys, "repair-all", *paths, tmp_path / "all", *methods)[0] == 0
    for name in ("dg_hard", "wise_ft"):
        written = load_file(tmp_path / "all" / name / "model.safetensors")
        assert torch.equal(written[UP], sides[0][UP]) and not torch.equal(written[OTHER], sides[0][OTHER])
    status, out, _ = run(capsys, "compare-methods", *paths, *methods, "--json")
    with_override = {row["label"]: row["norm_kept"] for row in json.loads(out)["methods"]}
    status, out, _ = run(capsys, "compare-methods", *paths, *methods[:2], "--json")
    without = {row["label"]: row["norm_kept"] for row in json.loads(out)["methods"]}
    assert status == 0 and all(with_override[name] < without[name] for name in without)
    status, out, _ = run(capsys, "sweep", *paths, "--methods", "wise_ft", *methods[2:], "--json")
    assert status == 0 and max(point["norm_kept"] for point in json.loads(out)["lines"][0]["points"]) < 1


def test_a_plans_file_and_the_same_option_exclude_each_other(capsys, paths, plan_file, tmp_path):
    status, _, err = run(capsys, "repair", *paths, tmp_path / "out", "--plan", plan_file, "--rule", "energy")
    assert status == 2 and "says what --rule is" in err
    status, _, err = run(capsys, "scan", *paths, "--override", "nowhere: keep=base")
    assert status == 2 and "selects no tensor" in err


@pytest.mark.parametrize("masks", [{"include": "mlp"}, {"exclude": "embed|conv"}])
@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].prepares])
def test_what_expressions_leave_out_overrides_leave_out_too(tmp_path, masks, method):
    base, tuned = write_pair(tmp_path)
    selections = {"include": "not re={}", "exclude": "re={}"}
    overrides = [f"{selections[field].format(text)}: keep=tuned" for field, text in masks.items()]
    written = []
    for pair, plan in (
        (open_pair(base, tuned, **masks), RepairPlan(method=method, **masks)),
        (open_pair(base, tuned), RepairPlan(method=method, overrides=overrides)),
    ):
        done = (repair_tensor(paired, plan, "cpu") for paired in pair.tensors if paired.tuned is not None)
        tensors = (one.tensor if one.tensor is not None else read_tensor(one.source) for one in done)
        written.append(list(tensors))
    assert all(torch.equal(a, b) for a, b in zip(*written, strict=True))
