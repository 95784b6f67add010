"""Several methods in one read: the same bytes as one by one, safe to repeat; the comparison against plain sums."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dgviz import cli
from dgviz.analysis.methods import comparison_table, iter_comparison
from dgviz.checkpoint import open_pair
from dgviz.errors import ExportError
from dgviz.export import batch, plan_export
from dgviz.export.batch import iter_exports, output_name, plan_exports
from dgviz.export.write import ExportResult, iter_export
from dgviz.repair.methods import METHODS
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.rmt.spectrum import effective_rank
from tests.checkpoints import write_pair

LABELS = [*METHODS, "dg_hard:rule=mp_edge:shrinker=operator", "dare:p=0.5:seed=3"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), shards=2, config={"name": "synthetic"})


def write_alone(pair, plan, out):
    (result,) = (item for item in iter_export(plan_export(pair, plan, out), "cpu") if isinstance(item, ExportResult))
    return result.report


def weights(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def without_times(report):
    tensors = {name: {**row, "seconds": 0} for name, row in report["tensors"].items()}
    return {**report, "tensors": tensors, "seconds": 0}


@pytest.mark.slow
def test_all_methods_together_write_what_each_writes_alone(paths, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))  # no spectrum is known
    pair = open_pair(*paths)
    repairs = [read_plan(label) for label in LABELS]
    plans, finished = plan_exports(pair, repairs, tmp_path / "all")
    assert finished == {} and len(plans) == len(LABELS)
    results = {label: item for label, item in iter_exports(plans, "cpu") if isinstance(item, ExportResult)}
    assert list(results) == [plan.label for plan in sorted(repairs, key=lambda p: p.method == "norm_matched_global")]
    for repair in repairs:
        alone = write_alone(pair, repair, tmp_path / "alone" / output_name(repair))
        assert weights(tmp_path / "all" / output_name(repair)) == weights(tmp_path / "alone" / output_name(repair))
        assert without_times(results[repair.label].report) == without_times(alone)


def test_finished_outputs_are_left_and_unfinished_ones_continued(paths, tmp_path, capsys):
    command = ["repair-all", *map(str, paths), str(tmp_path / "out"), "--methods", "dg_hard,wise_ft:alpha=0.25"]
    assert cli.main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in first["methods"]] == ["dg_hard", "wise_ft:alpha=0.25"]
    assert all(row["written"] for row in first["methods"])
    before = weights(tmp_path / "out" / "dg_hard")
    stamp = (tmp_path / "out" / "dg_hard" / "dgviz.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "out" / "wise_ft-alpha=0.25")
    assert cli.main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [row["written"] for row in again["methods"]] == [False, True]
    assert weights(tmp_path / "out" / "dg_hard") == before
    assert (tmp_path / "out" / "dg_hard" / "dgviz.json").stat().st_mtime_ns == stamp
    assert cli.main(command) == 0
    assert "there already" in capsys.readouterr().out


def test_an_interrupted_batch_continues(paths, tmp_path):
    pair = open_pair(*paths)
    repairs = [read_plan(label) for label in ("dg_hard", "ties", "wise_ft")]
    plans, _ = plan_exports(pair, repairs, tmp_path)
    running = iter_exports(plans, "cpu")
    names = set()
    for _, report in running:
        names.add(report.name)
        if len(names) > len(plans[0].shards[0].tensors):
            break
    running.close()
    assert not list(tmp_path.glob("*/*.lock"))
    plans, _ = plan_exports(pair, repairs, tmp_path)
    assert all(len(plan.finished) == 1 for plan in plans)
    list(iter_exports(plans, "cpu"))
    for repair in repairs:
        write_alone(pair, repair, tmp_path / "alone" / output_name(repair))
        assert weights(tmp_path / output_name(repair)) == weights(tmp_path / "alone" / output_name(repair))


def test_an_output_of_other_inputs_is_not_taken_for_finished(paths, tmp_path):
    pair = open_pair(*paths)
    write_alone(pair, RepairPlan(include="mlp"), tmp_path / "dg_hard")
    with pytest.raises(ExportError, match="not empty"):
        plan_exports(pair, [RepairPlan()], tmp_path)


@pytest.mark.parametrize("damage", ["deleted shard", "damaged shard", "deleted config", "deleted index"])
def test_a_finished_output_that_was_damaged_is_not_taken_for_finished(paths, tmp_path, damage):
    pair = open_pair(*paths)
    write_alone(pair, RepairPlan(), out := tmp_path / "dg_hard")
    assert plan_exports(pair, [RepairPlan()], tmp_path)[0] == []
    file = out / pair.tuned.shards[1]
    if damage == "damaged shard":
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        file = {"deleted shard": file, "deleted config": out / "config.json"}.get(
            damage, out / "model.safetensors.index.json"
        )
        file.unlink()
    with pytest.raises(ExportError, match="delete the folder and repeat the command to write it again") as caught:
        plan_exports(pair, [RepairPlan()], tmp_path)
    assert damage == "deleted index" or file.name in str(caught.value)


def test_all_outputs_together_must_fit_the_disk(paths, tmp_path, monkeypatch):
    pair = open_pair(*paths)
    one = plan_export(pair, RepairPlan(), tmp_path / "one").total_bytes
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * one)
    monkeypatch.setattr("dgviz.export.plan.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match="for 3 outputs"):
        batch.plan_exports(pair, [read_plan(label) for label in ("dg_hard", "ties", "wise_ft")], tmp_path / "all")


def test_repair_takes_any_method(paths, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--method", "lines", "--param", "alpha=0.25", "--param", "last=0.5", "--json"]
    assert cli.main(["repair", *map(str, paths), str(out), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["plan"]["method"] == "lines" and report["plan"]["method_params"] == {"alpha": 0.25, "last": 0.5}
    rows = report["tensors"].values()
    assert {row.get("method") for row in rows if row["action"] == "repair"} == {"lines"}
    assert not any("rank" in matrix for row in rows for matrix in row["matrices"])
    assert cli.main(["repair", *map(str, paths), str(tmp_path / "no"), "--method", "soup"]) == 2
    assert "no repair method 'soup'" in capsys.readouterr().err


def test_methods_for_every_tensor_count_what_they_change(paths, tmp_path):
    pair = open_pair(*paths)
    report = write_alone(pair, read_plan("wise_ft"), tmp_path / "out")
    assert report["counts"] == {"repair": 10, "keep": 1, "base_only": 0}
    assert pair.counts() == {"repair": 6, "keep": 5, "base_only": 0}


def test_the_comparison_is_plain_sums_over_what_is_written(paths, tmp_path):
    pair = open_pair(*paths)
    plans = [read_plan(label) for label in LABELS]
    rows = {row["label"]: row for row in comparison_table(list(iter_comparison(pair, plans, "cpu")), plans)}

    def load(folder):
        return {
            name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()
        }

    base, tuned = load(pair.base.path), load(pair.tuned.path)
    names = [name for name, value in base.items() if value.is_floating_point()]

    def flat(values):
        return torch.cat([values[name].double().flatten() for name in names])

    written = {}
    for plan in plans:
        write_alone(pair, plan, tmp_path / output_name(plan))
        written[plan.label] = load(tmp_path / output_name(plan))
    delta = (flat(tuned) - flat(base)).norm()
    for label, row in rows.items():
        moved = flat(written[label]) - flat(base)
        assert row["norm_kept"] == pytest.approx(float(moved.norm() / delta), rel=1e-5), label
        if not METHODS[row["method"]].every_tensor:
            assert row["norm_kept_vectors"] == pytest.approx(1, rel=1e-5)
            own = [name for name in names if base[name].squeeze().ndim > 1]
            lengths = [
                torch.cat([(side[name] - base[name]).double().flatten() for name in own]).norm()
                for side in (written[label], tuned)
            ]
            assert row["norm_kept_matrices"] == pytest.approx(float(lengths[0] / lengths[1]), rel=1e-5), label
        assert row["drift"] == pytest.approx(float(moved.norm() / flat(base).norm()), rel=1e-5)
        assert row["sparsity"] == float((moved == 0).double().mean())
        distance = float((flat(written[label]) - flat(written["dg_hard"])).norm() / delta)
        assert row["distance"] == pytest.approx(distance, rel=1e-5, abs=1e-9)
        ranks = []
        for paired in pair.repairable:
            change = (written[label][paired.name].double() - base[paired.name].double()).squeeze()
            matrices = change if "experts" in paired.name else change.reshape(1, change.shape[0], -1)
            ranks += [effective_rank(torch.linalg.svdvals(matrix).numpy()) for matrix in matrices]
        assert row["effective_rank"] == pytest.approx(float(np.median(ranks)), rel=2e-2), label


def test_compare_methods_on_the_command_line(paths, tmp_path, capsys):
    saved = tmp_path / "folder" / "table.json"
    command = ["compare-methods", *map(str, paths), "--methods", "dg_hard,wise_ft:alpha=1", "--save", str(saved)]
    assert cli.main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(saved.read_text())
    assert [row["label"] for row in printed["methods"]] == ["dg_hard", "wise_ft:alpha=1"]
    assert printed["methods"][0]["distance"] == 0 and printed["methods"][1]["norm_kept"] == pytest.approx(1)
    assert cli.main(command) == 0
    assert "wise_ft:alpha=1" in capsys.readouterr().out
    assert cli.main(["compare-methods", *map(str, paths), "--methods", " , "]) == 2
    assert "names no method" in capsys.readouterr().err
