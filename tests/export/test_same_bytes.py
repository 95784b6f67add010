"""The same inputs, plan, engine and number of threads give the same bytes, whatever the store held.

Another number of threads sums in another order: it moves an entry in a hundred thousand to the next number, and with
it the hashes of the files; nothing else of what is written.
"""

import json
from contextlib import closing

import pytest
import torch
from safetensors.torch import load

from dgviz.analysis.methods import comparison_table, iter_comparison
from dgviz.checkpoint import open_pair
from dgviz.export import plan_export
from dgviz.export.batch import iter_exports, plan_exports
from dgviz.export.plan import REPORT, RUN
from dgviz.export.report import read_report
from dgviz.export.write import iter_export
from dgviz.jobs.executor import InProcess, Processes
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import weights_of
from tests.checkpoints import planted_update, write_checkpoint


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Updates with noise, one without, one of zeros: at rounding level threads and store are seen."""
    directory = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(0)
    shapes = {"wide": (192, 320), "tall": (320, 192), "experts.gate_up_proj": (3, 128, 96)}
    base = {name: 0.02 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    tuned = planted_update(base)
    base["frozen"] = tuned["frozen"] = 0.02 * torch.randn(96, 64, generator=generator)
    base = {name: tensor.bfloat16() for name, tensor in base.items()}
    tuned = {name: tensor.bfloat16() for name, tensor in tuned.items()}
    base["low"] = 32 + torch.randint(-8, 8, (384, 256), generator=generator).bfloat16()
    left, right = (
        torch.randint(-2, 3, (384, 3), generator=generator),
        torch.randint(-2, 3, (3, 256), generator=generator),
    )
    tuned["low"] = base["low"] + (left @ right).bfloat16()  # whole numbers: of rank 3 exactly
    sides = {"base": base, "tuned": tuned}
    return open_pair(*(write_checkpoint(directory / side, own, {"a": 1}, 2) for side, own in sides.items()))


@pytest.fixture
def use_threads():
    """Set the number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def written(pair, out, plan=RepairPlan(), output="full", where="cpu"):  # noqa: B008
    list(iter_export(plan_export(pair, plan, out, output), where))
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def scan(pair):
    """Store every spectrum, and its factors."""
    for weight in weights_of(pair):
        OpenWeight(weight, "cpu").store_factors(("dg_hard", {}))


PLANS = {"dg_hard": RepairPlan(), "fixed_rank": RepairPlan(rule="fixed_rank", params={"rank": 3})}


@pytest.mark.parametrize(
    ("label", "output", "threads"), [("dg_hard", "full", 1), ("fixed_rank", "full", 2), ("fixed_rank", "factors", 1)]
)
def test_every_file_but_one_is_the_same_cold_and_warm(
    pair, tmp_path, use_threads, threads, label, output, monkeypatch, later
):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    use_threads(threads)
    cold = written(pair, tmp_path / "cold", PLANS[label], output)
    scan(pair)
    warm = written(pair, tmp_path / "warm", PLANS[label], output)
    assert cold.keys() == warm.keys() and RUN in cold
    assert [name for name in cold if cold[name] != warm[name]] == [RUN]
    assert "from the store" in warm[RUN].decode() and "from the store" not in cold[RUN].decode()
    run = json.loads(cold[RUN])
    assert run["machine"]["threads"] == threads and run["written"] <= json.loads(warm[RUN])["written"]


@pytest.fixture(scope="module")
def executors():
    """Everything in this process, and in two of which this is one."""
    with closing(Processes(2, warm="dgviz.repair.tensor", joined=True)) as processes:
        processes.start()
        yield [InProcess(threads=1), processes]


@pytest.mark.parametrize("output", ["full", "factors"])
def test_every_number_of_processes_writes_the_same_bytes(pair, tmp_path, executors, output, use_threads):
    alone, shared = (
        files(written(pair, tmp_path / str(number), PLANS["dg_hard"], output, executor))
        for number, executor in enumerate(executors)
    )
    assert alone == shared and len(alone) > 2


def test_several_methods_come_out_the_same_of_every_number_of_processes(pair, tmp_path, executors, use_threads):
    repairs = [
        RepairPlan(),
        RepairPlan(method="wise_ft"),
        RepairPlan(method="ties"),
        RepairPlan(method="norm_matched"),
    ]
    found = []
    for number, executor in enumerate(executors):
        plans, _ = plan_exports(pair, repairs, tmp_path / str(number))
        list(iter_exports(plans, executor))
        found.append([files({path.name: path.read_bytes() for path in plan.out.iterdir()}) for plan in plans])
    assert found[0] == found[1]
    tables = [comparison_table(list(iter_comparison(pair, repairs, executor)), repairs) for executor in executors]
    assert tables[0] == tables[1]


def files(contents):
    """All but the file of times."""
    return {name: data for name, data in contents.items() if name != RUN}


@pytest.mark.slow
def test_threads_are_seen_in_the_last_bit_of_a_few_entries_and_in_hashes_only(
    pair, tmp_path, use_threads, monkeypatch, later
):
    folders = {}
    for threads, filled in ((1, False), (2, False), (1, True)):
        monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / f"cache-{threads}-{filled}"))
        if filled:  # by a scan with the other number
            use_threads(3 - threads)
            scan(pair)
        use_threads(threads)
        folders[threads, filled] = written(pair, tmp_path / f"{threads}-{filled}", PLANS["fixed_rank"])
    first = folders.pop((1, False))
    for found in folders.values():
        assert found["README.md"] == first["README.md"]
        reports = [json.loads(files[REPORT]) for files in (first, found)]
        for report in reports:
            for entry in report["files"].values():
                del entry["sha256"]
        assert reports[0] == reports[1]
        for name in pair.tuned.shards:
            before, now = load(first[name]), load(found[name])
            for tensor, values in before.items():
                off = (values.double() - now[tensor].double()).abs()
                assert off.max() <= values.abs().max() * 2**-7, tensor  # one step of bfloat16
                assert (off > 0).sum() <= 1 + 1e-4 * off.numel(), tensor


def test_both_reports_together_say_all_and_one_of_them_enough(pair, tmp_path):
    *_, result = iter_export(plan_export(pair, RepairPlan(), tmp_path / "out"), "cpu")
    whole = read_report(tmp_path / "out")
    assert whole == json.loads(json.dumps(result.report))
    matrix = whole["tensors"]["wide"]["matrices"][0]
    assert {"tau", "sigma", "route", "gain"} <= matrix.keys()
    alone = json.loads((tmp_path / "out" / REPORT).read_bytes())["tensors"]["wide"]["matrices"][0]
    assert alone["rank"] == matrix["rank"] and alone["gain"] == pytest.approx(matrix["gain"], abs=1e-6)
    assert "tau" not in alone and "route" not in alone
    (tmp_path / "out" / RUN).write_bytes(b'{"tensors": 3')
    damaged = read_report(tmp_path / "out")
    assert damaged["tensors"]["wide"]["matrices"][0] == alone
    assert f"{RUN} is not read" in damaged["warnings"][-1]
