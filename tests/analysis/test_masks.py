"""Layer masks: which weights each repairs, that it writes just these, and that a stopped run goes on."""

import csv
import json
import shlex
import sys

import pytest
from safetensors.numpy import load_file

from dgviz.analysis.study.mask_run import commanding, evaluating, iter_masks
from dgviz.analysis.study.masks import EVERYTHING, layer_masks
from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.demo import demo_paths
from dgviz.errors import EvaluationError, PlanError, ScoresError
from dgviz.repair.plan import RepairPlan
from dgviz.scores.evaluate import Settings
from tests.checkpoints import write_pair

SCORER = """
import json, pathlib, sys
from safetensors.numpy import load_file
model, out, tuned, log = map(pathlib.Path, sys.argv[1:])
with log.open("a") as lines:
    print(out.name, file=lines)
broken = pathlib.Path(__file__).with_name("broken")
if broken.exists() and out.name.startswith(broken.read_text()):
    sys.exit(3)
sides = [load_file(folder / "model.safetensors") for folder in (model, tuned)]
same = [name for name in sides[1] if (sides[0][name] == sides[1][name]).all()]
share = len(same) / len(sides[1])
rows = [{"model": "x", "benchmark": name, "score": value} for name, value in (("task", share), ("held", 1 - share))]
(out / "scores.json").write_text(json.dumps({"scores": rows, "same": same}))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return open_pair(*map(str, write_pair(folder)))


@pytest.fixture
def scorer(tmp_path, pair):
    """A command that scores by how many tensors are tuned's; it fails on the model that a file ``broken`` names."""
    (tmp_path / "scorer.py").write_text(SCORER)
    words = [sys.executable, tmp_path / "scorer.py", "{model}", "{out}", pair.tuned.path, tmp_path / "log"]
    return shlex.join(map(str, words))


def test_the_parts_are_all_of_the_repair_and_nothing_twice():
    pair = open_pair(demo_paths()["base"], demo_paths()["noisy"])
    masks = {mask.name: set(mask.tensors) for mask in layer_masks(pair, RepairPlan())}
    everything = masks.pop(EVERYTHING)
    assert everything == {tensor.name for tensor in pair.repairable}
    thirds = [masks[f"{third} third"] for third in ("first", "middle", "last")]
    assert sum(map(len, thirds)) == len(set.union(*thirds)) and all(".layer." in n for n in set.union(*thirds))
    kinds = [own for name, own in masks.items() if "third" not in name and not name.startswith("all but")]
    assert sum(map(len, kinds)) == len(everything) == len(set.union(*kinds))
    for name, own in masks.items():
        if name.startswith("all but"):
            assert own == everything - masks[name.removeprefix("all but ")]
    with pytest.raises(PlanError, match="there is no mask 'best third'; there are all layers, first third"):
        layer_masks(pair, RepairPlan(), ["best third"])


def test_a_mask_plan_repairs_its_tensors_and_no_other(pair):
    masks = layer_masks(pair, RepairPlan())
    assert len(masks) > 4 and len({mask.tensors for mask in masks}) == len(masks)
    for mask in masks:
        assert {tensor.name for tensor in pair.tensors if mask.plan.changes(tensor)} == set(mask.tensors)
        assert RepairPlan.from_json(json.loads(json.dumps(mask.plan.to_json()))) == mask.plan


def test_one_command_repairs_scores_tabulates_and_goes_on(pair, scorer, tmp_path, capsys):
    out, log, broken = (tmp_path / name for name in ("out", "log", "broken"))
    words = ["layer-masks", str(pair.base.path), str(pair.tuned.path), str(out), "--scorer", scorer]
    words += ["--on-task", "task", "--device", "cpu", "--masks", "experts,MLP", "--keep", "--json"]
    broken.write_text("MLP")
    assert main(words) == 2
    assert "--scorer failed on MLP with exit status 3" in capsys.readouterr().err
    assert log.read_text().split() == [f"{name}.partial" for name in ("base", "tuned", "all-layers", "MLP")]
    broken.unlink()
    log.unlink()
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert log.read_text().split() == ["MLP.partial", "experts.partial"]
    assert found["remembered"] == ["base", "tuned", "all layers"]

    tuned = load_file(pair.tuned.path / "model.safetensors")
    (written,) = (out / "checkpoints" / "MLP").iterdir()
    masked = load_file(written / "model.safetensors")
    (mlp,) = [row for row in found["masks"] if row["name"] == "MLP"]
    changed = {name for name in tuned if (tuned[name] != masked[name]).any()}
    assert len(changed) == mlp["tensors"] and all("mlp" in name for name in changed)

    # What the scorer says of each model: the share of tensors that are not tuned's. "held" falls from base to tuned.
    sides = {"base": load_file(pair.base.path / "model.safetensors"), "tuned": tuned, "MLP": masked}
    shares = {name: sum((side[n] != tuned[n]).any() for n in tuned) / len(tuned) for name, side in sides.items()}
    (held,) = [row for row in found["recovery"]["benchmarks"] if row["benchmark"] == "held"]
    assert held["part"] == "damaged" and held["repaired"]["MLP"]["score"] == pytest.approx(shares["MLP"])
    healed = 100 * shares["MLP"] / shares["base"]
    assert found["recovery"]["repaired"]["MLP"]["healed"]["value"] == pytest.approx(healed)
    rows = list(csv.DictReader((out / "table-layer-masks.csv").read_text().splitlines()))
    (row,) = [row for row in rows if row["Repaired"] == "MLP"]
    assert float(row["% healed"]) == pytest.approx(healed) and float(row["held"]) == pytest.approx(shares["MLP"])
    assert [row["Repaired"] for row in rows] == ["all layers", "MLP", "experts", "base", "tuned"]
    assert {path.rpartition("/")[2] for path in found["written"]} == {
        "table-layer-masks.csv", "table-layer-masks.md", "table-layer-masks.tex", "scores.json",
    }  # fmt: skip
    assert main(["recovery", str(out / "scores.json"), "--bootstrap", "0", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["cells"][0]["on_task"] == "task" and set(again["repaired"]) == {"all layers", "experts", "MLP"}
    assert again["repaired"]["MLP"]["on_task_retention"] == found["recovery"]["repaired"]["MLP"]["on_task_retention"]


def test_another_plan_or_scorer_is_not_taken_up(pair, scorer, tmp_path):
    first = layer_masks(pair, RepairPlan(), ["MLP"])
    steps = iter_masks(pair, first, commanding(scorer), tmp_path / "out", "cpu")
    assert next(steps).name == "base"
    other = layer_masks(pair, RepairPlan(method="wise_ft"), ["MLP"])
    with pytest.raises(EvaluationError, match=r"out holds masks of another plan and scorer: name another folder"):
        next(iter_masks(pair, other, commanding(f"{scorer} more"), tmp_path / "out", "cpu"))
    with pytest.raises(EvaluationError, match="holds other files"):
        next(iter_masks(pair, first, commanding(scorer), tmp_path, "cpu"))


@pytest.mark.parametrize(
    ("command", "words"),
    [("score {model}", "has no {out}"), ("score '{model} {out}", "is no command"), ("", "has no {model}")],
)
def test_what_is_no_scorer(command, words):
    with pytest.raises(EvaluationError, match=words):
        commanding(command)


def test_a_scorer_writes_the_scores_of_one_model(pair, tmp_path):
    rows = "model,benchmark,score\\na,b,1\\nc,b,1"
    write = f"import pathlib, sys; pathlib.Path(sys.argv[1], 's.csv').write_text('{rows}')"
    command = shlex.join([sys.executable, "-c", write, "{out}", "{model}"])
    steps = iter_masks(pair, layer_masks(pair, RepairPlan(), ["MLP"]), commanding(command), tmp_path / "out", "cpu")
    with pytest.raises(ScoresError, match="has scores of a, c: a scorer writes those of the one model it is given"):
        next(steps)
    assert not (tmp_path / "out" / "results" / "base").exists()


@pytest.mark.soak
def test_the_demo_by_its_own_evaluator(tmp_path):
    import dgviz.demo.backend  # noqa: F401

    pair = open_pair(demo_paths()["base"], demo_paths()["noisy"])
    masks = layer_masks(pair, RepairPlan(), ["last third"])
    scorer = evaluating(["plain", "target"], "demo", Settings())
    found = {item.name: item for item in iter_masks(pair, masks, scorer, tmp_path / "out", "cpu")}
    assert list(found) == ["base", "tuned", EVERYTHING, "last third"]
    assert {score.benchmark for score in found["last third"].table.scores} == {"plain", "target"}
    assert not (tmp_path / "out" / "checkpoints" / "last-third").exists()
