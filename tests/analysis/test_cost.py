"""What a pair is foretold to take: figures that follow from shapes, and bytes that are those of the files."""

import dataclasses
import json

import pytest

from dgviz.analysis.cost import PROCESSORS, CostPlan
from dgviz.checkpoint import inspect_pair
from dgviz.cli import main
from dgviz.export import plan_export
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.weight import weights_of
from tests.checkpoints import write_pair

CORE = PROCESSORS["cpu"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return inspect_pair(*write_pair(tmp_path_factory.mktemp("pair")))


def stages(pair, processor=CORE, workers=1, machines=1, line=1e9):
    return {stage.name: stage for stage in CostPlan(pair, processor, workers, machines, line).stages}


def test_stages_of_a_pair(pair, tmp_path):
    found = stages(pair)
    assert list(found) == ["inspect", "scan", "repair after it", "repair alone"]
    output = plan_export(pair, RepairPlan(), tmp_path / "out").total_bytes
    assert found["repair alone"].written == output  # what an export plans to write
    both = sum(weight.base.nbytes + weight.tuned.nbytes for weight in weights_of(pair))
    assert found["scan"].read == found["inspect"].read + both
    assert found["scan"].core_seconds > sum(map(CORE.scan, weights_of(pair)))
    assert found["repair after it"].core_seconds < found["repair alone"].core_seconds


def test_more_hands_take_less_time_and_more_memory(pair):
    one, four = stages(pair), stages(pair, workers=4)
    assert four["scan"].seconds < one["scan"].seconds
    assert four["scan"].core_seconds == one["scan"].core_seconds
    assert four["scan"].memory > 3 * one["scan"].memory
    # The largest matrix is the end of it, however many machines there are.
    longest = max(map(CORE.scan, weights_of(pair)))
    slow = stages(pair, CORE.slower(1000.0), workers=8, machines=50)["scan"]
    assert slow.seconds == pytest.approx(1000 * (CORE.scan_begin + longest))


def test_a_thin_line_is_what_everything_waits_for(pair):
    thin, wide = stages(pair, line=1e3), stages(pair)
    assert thin["scan"].seconds > (thin["scan"].read + thin["scan"].written) / 1e3 > 2 * wide["scan"].seconds
    assert dataclasses.replace(thin["scan"], seconds=0) == dataclasses.replace(wide["scan"], seconds=0)


def test_the_command(pair, capsys, monkeypatch):
    monkeypatch.setattr("dgviz.analysis.cost.measure_slowness", lambda: 2.0)
    sides = [str(pair.base.path), str(pair.tuned.path)]
    assert main(["plan", *sides, "--workers", "3", "--line", "100MB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["workers"], found["line"]) == (3, 100_000_000)
    assert found["processor"]["cube"] == 2 * CORE.cube
    assert found["stages"] == [
        dataclasses.asdict(stage) for stage in CostPlan(pair, CORE.slower(2.0), 3, 1, 1e8).stages
    ]
    assert main(["plan", *sides, "--on", "h100", "--machines", "2"]) == 0
    shown = capsys.readouterr().out
    assert "2 machine(s), 1 worker(s) each (H100, on paper)" in shown and "repair after it" in shown
    for wrong, said in (
        ("--workers=0", "--workers is 0"),
        ("--line=0", "0 bytes a second"),
        ("--on=x", "--on is 'x'"),
    ):
        assert main(["plan", *sides, wrong]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.soak
def test_foretold_within_a_factor_of_one_and_a_half(capsys):
    from tests.bench import bench_plan

    bench_plan.run([])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 12 and all(1 / 1.5 < float(row[4]) < 1.5 for row in rows), rows
