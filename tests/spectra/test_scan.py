"""The whole-model scan: figures against float64, resumed from the store, honest about failures, usable by repair."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import DgvizError, SpectrumError, ThresholdError
from dgviz.jobs import start_job
from dgviz.jobs.executor import Processes
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.rmt.threshold import RULES
from dgviz.spectra import model_scan as survey
from dgviz.spectra.model_scan import iter_scan, scan_report
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.scan import scan_weights
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, matrices_of
from tests.checkpoints import random_tensors, write_checkpoint, write_pair

ROOT = Path(__file__).parents[2]
STACK = "model.layers.2.mlp.experts.gate_up_proj"
EMBEDDING = "model.embed_tokens.weight"
CPU = {"device": "cpu", "workers": 2}


def settle(*checkpoints: Path) -> None:
    """Make files look older than a file system's clock can hide changes in, so that their hashes are remembered."""
    for path in checkpoints:
        for file in path.iterdir():
            os.utime(file, (1e9, 1e9))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    paths = write_pair(tmp_path_factory.mktemp("pair"))
    settle(*paths)
    return open_pair(*paths)


@pytest.fixture(scope="module")
def scanned(pair, tmp_path_factory):
    """The store of a finished scan, and its results."""
    store = SpectrumStore(tmp_path_factory.mktemp("store"))
    before = set(psutil.Process().children())
    results = list(iter_scan(pair, store=store, **CPU))
    assert set(psutil.Process().children()) <= before, "a worker process outlived the scan"
    return store, results


@pytest.fixture
def store(scanned, tmp_path):
    """A store of one's own, filled by the scan."""
    shutil.copytree(scanned[0].root, tmp_path / "store")
    return SpectrumStore(tmp_path / "store")


def float64_delta(pair, name, index=None):
    base, tuned = (load_file(side.path / "model.safetensors")[name].double() for side in (pair.base, pair.tuned))
    delta = (tuned - base).squeeze()
    return (delta if index is None else delta[index]).reshape(
        delta.shape[-2] if index is not None else len(delta), -1
    )


# --- figures --------------------------------------------------------------------------------------------------------


def test_every_matrix_has_one_result_and_its_figures_equal_float64(pair, scanned):
    _, results = scanned
    expected = {(p.name, None) for p in pair.repairable if p.name != STACK} | {(STACK, i) for i in range(4)}
    assert len(results) == len(expected) and {(r.weight.tensor.name, r.weight.index) for r in results} == expected
    for result in results:
        assert result.error is None and result.row["stored"] is False and result.work > 0
        delta = float64_delta(pair, result.weight.tensor.name, result.weight.index)
        s = torch.linalg.svdvals(delta).numpy()
        threshold = RULES["dg_hard"].apply(s, tuple(delta.shape))
        assert result.row["rank"] == threshold.rank
        for name in ("tau", "sigma", "edge"):
            assert result.row[name] == pytest.approx(getattr(threshold, name), rel=1e-6)
        base = load_file(pair.base.path / "model.safetensors")[result.weight.tensor.name].double()
        base = base if result.weight.index is None else base[result.weight.index]
        assert result.row["summary"]["relative_size"] == pytest.approx(float(delta.norm() / base.norm()), rel=1e-6)
        assert result.row["summary"]["zero_share"] == float((delta == 0).double().mean())


@pytest.mark.slow
def test_matrices_of_a_stack_worked_on_together_have_the_same_figures(pair, scanned, tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "batch_size", lambda weight, device: 3)
    calls = []
    monkeypatch.setattr(Processes, "submit", noting(Processes.submit, calls))
    results = list(iter_scan(pair, store=SpectrumStore(tmp_path), device="cpu", workers=1))
    together = [arguments["weights"] for task, arguments in calls if task.function == "scan_weights"]
    assert together and max(map(len, together)) == 3
    alone = {result.name: result.row for result in scanned[1]}
    assert len(results) == len(alone)
    for result in results:
        expected = alone[result.name]
        assert result.row["rank"] == expected["rank"] and result.row["route"] == expected["route"]
        assert result.row["tau"] == pytest.approx(expected["tau"], rel=1e-6)
        assert result.row["summary"] == pytest.approx(expected["summary"], rel=1e-6)


def noting(call, calls):
    def noted(self, function, **arguments):
        calls.append((function, arguments))
        return call(self, function, **arguments)

    return noted


def test_one_bad_matrix_of_a_stack_does_not_spoil_the_others(tmp_path):
    base = {STACK: torch.randn(3, 40, 32)}
    tuned = {STACK: base[STACK] + 0.1}
    tuned[STACK][1, 2, 3] = torch.nan
    for side, tensors in (("base", base), ("tuned", tuned)):
        write_checkpoint(tmp_path / side, tensors)
    paired = open_pair(tmp_path / "base", tmp_path / "tuned")[STACK]
    first, bad, last = scan_weights(matrices_of(paired)[:3], [("dg_hard", {})] * 3, "cpu", 1, tmp_path / "store")
    assert first["rank"] is not None and last["rank"] is not None
    assert isinstance(bad, SpectrumError) and f"{STACK}[1]: entry [2, 3]" in str(bad)


def test_the_report_has_the_pairs_order_and_a_row_per_matrix(pair, scanned):
    report = scan_report(pair, scanned[1], 1.25)
    assert list(report["weights"]) == [paired.name for paired in pair.repairable]
    assert report["seconds"] == 1.25 and report["stored"] == 0 and report["computed"] == 9 and report["errors"] == {}
    (row,) = report["weights"][EMBEDDING]["matrices"]
    assert report["weights"][EMBEDDING]["shape"] == [96, 32] and row["rank"] == 3
    assert set(row["mp_fit"]) == {"tuned", "repaired", "discarded", "discarded_own", "noise"}
    stack = report["weights"][STACK]
    assert stack["shape"] == [4, 48, 32] and len(stack["matrices"]) == 4
    assert all(matrix.keys() == row.keys() and matrix["warnings"] == [] for matrix in stack["matrices"])
    json.dumps(report, allow_nan=False)


# --- the store ------------------------------------------------------------------------------------------------------


def test_a_second_scan_computes_nothing_and_starts_no_process(pair, store):
    before = psutil.Process().children()
    results = []
    for result in iter_scan(pair, "mp_edge", store=store, **CPU):
        results.append(result)
        assert psutil.Process().children() == before
    report = scan_report(pair, results, 0.0)
    assert report["stored"] == 9 and report["computed"] == 0
    s = store.get(Weight(pair[EMBEDDING]).key).s
    assert report["weights"][EMBEDDING]["matrices"][0]["tau"] == RULES["mp_edge"].apply(s, (96, 32)).tau


@pytest.mark.slow
def test_only_what_is_missing_is_computed(pair, store):
    """One entry is gone, one damaged, and one was put there by a page."""
    gone, damaged, bare = (Weight(pair[name]).key for name in (EMBEDDING, "model.pos", "model.conv.weight"))
    (store.root / gone[:2] / f"{gone}.safetensors").unlink()
    (store.root / damaged[:2] / f"{damaged}.safetensors").write_bytes(b"damaged")
    known = store.get(bare)
    (store.root / bare[:2] / f"{bare}.safetensors").unlink()
    assert OpenWeight(Weight(pair["model.conv.weight"]), "cpu", store).spectrum().summary == known.summary
    rows = {result.name: result.row for result in iter_scan(pair, store=store, device="cpu", workers=1)}
    assert {name for name, row in rows.items() if not row["stored"]} == {EMBEDDING, "model.pos"}
    assert store.get(bare).summary == known.summary == rows["model.conv.weight"]["summary"]
    assert all(store.get(key).summary for key in (gone, damaged, bare))


def test_kept_factors_are_stored_up_to_a_cap(pair, scanned):
    store, results = scanned
    for result in results:
        key, rank = result.weight.key, result.row["rank"]
        factors = store.get_factors(key, rank) if rank else None
        delta = float64_delta(pair, result.weight.tensor.name, result.weight.index)
        if sum(delta.shape) * rank * 4 > 0.2 * delta.numel() * 4 or rank == 0:
            assert store.get_factors(key, 1) is None
            continue
        left, right = factors
        assert left.shape == (delta.shape[0], rank) and right.shape == (rank, delta.shape[1])
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        best = ((u[:, :rank] * s[:rank]) @ vh[:rank]).numpy()
        np.testing.assert_allclose(left @ right, best, atol=1e-6 * float(s[0]))
    assert any(store.get_factors(r.weight.key, 3) for r in results)


def test_the_scans_own_rule_decides_too_how_many_factors_are_kept(pair, tmp_path):
    arguments = {"device": "cpu", "threads": 2, "root": tmp_path}
    scan_weights([Weight(pair["model.layers.2.mlp.up.weight"])], settings=[("fixed_rank", {"rank": 4})], **arguments)
    key = Weight(pair["model.layers.2.mlp.up.weight"]).key
    assert SpectrumStore(tmp_path).get_factors(key, 4)[0].shape == (64, 4)
    # Rank 30 of 32 is beyond the cap; DG-Hard's 3 are not.
    scan_weights([Weight(pair[EMBEDDING])], settings=[("fixed_rank", {"rank": 30})], **arguments)
    key = Weight(pair[EMBEDDING]).key
    assert SpectrumStore(tmp_path).get_factors(key, 3) is not None
    assert SpectrumStore(tmp_path).get_factors(key, 4) is None


def test_a_store_that_cannot_be_written_is_a_warning(pair, tmp_path):
    (tmp_path / "file").write_text("")
    [row] = scan_weights([Weight(pair[EMBEDDING])], [("dg_hard", {})], "cpu", 2, tmp_path / "file" / "below")
    assert row["rank"] == 3 and len(row["warnings"]) == 1 and "cannot be stored" in row["warnings"][0]


# --- repair after the scan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        RepairPlan(),
        RepairPlan("fixed_rank", {"rank": 2}),
        RepairPlan("manual", {"tau": 0}),
        RepairPlan(dtype="bfloat16"),
    ],
    ids=["dg_hard", "fewer", "all", "bfloat16"],
)
def test_repair_after_a_scan_equals_repair_without(pair, store, tmp_path, plan):
    from_store = 0
    for paired in pair.repairable:
        fresh = repair_tensor(paired, plan, "cpu", SpectrumStore(tmp_path / "empty"))
        stored = repair_tensor(paired, plan, "cpu", store)
        from_store += sum(row.route.endswith(", from the store") for row in stored.report.matrices)
        assert stored.source == fresh.source and stored.report.written == fresh.report.written
        for known, computed in zip(stored.report.matrices, fresh.report.matrices, strict=True):
            assert known.rank == computed.rank and known.mp_fit == computed.mp_fit
            assert known.gain == pytest.approx(computed.gain, abs=1e-6)
        if fresh.tensor is not None:
            # One unit in the last place where a rounding falls the other way.
            atol = 1e-8 if plan.dtype == "auto" else 2**-8 * float(fresh.tensor.abs().max())
            torch.testing.assert_close(stored.tensor, fresh.tensor, rtol=0, atol=atol)
    assert from_store >= 8


def test_repair_reads_neither_tuned_nor_a_decomposition_from_a_complete_store(pair, store, tmp_path):
    """What a scan has stored is enough: the same pair, whose tuned side can no longer be decomposed."""
    paired = pair[EMBEDDING]
    expected = repair_tensor(paired, RepairPlan(), "cpu", store).tensor
    key = Weight(paired).key
    left, right = store.get_factors(key, 3)
    store.put_factors(key, 2 * left, right)
    doubled = repair_tensor(paired, RepairPlan(), "cpu", store).tensor
    base = load_file(pair.base.path / "model.safetensors")[EMBEDDING]
    torch.testing.assert_close(doubled - base, 2 * (expected - base), rtol=0, atol=1e-7)


def test_repair_computes_where_too_few_factors_are_stored(pair, store):
    report = repair_tensor(pair[EMBEDDING], RepairPlan("fixed_rank", {"rank": 9}), "cpu", store).report.matrices[0]
    assert report.rank == 9 and "store" not in report.route


def test_repair_does_not_hash_for_the_sake_of_a_store(tmp_path, store):
    """Files that nobody scanned are read once, not twice."""
    pair = open_pair(*write_pair(tmp_path))  # as fresh as a file can be: its hash is not remembered
    OpenWeight(Weight(pair[EMBEDDING]), "cpu", store).spectrum()
    assert "store" not in repair_tensor(pair[EMBEDDING], RepairPlan(), "cpu", store).report.matrices[0].route


# --- failures and ends ----------------------------------------------------------------------------------------------


@pytest.fixture
def awkward(tmp_path, monkeypatch):
    """A pair in which one matrix, and one expert of a stack, hold what has no spectrum; and a store of its own."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    tensors = random_tensors()
    tensors["model.same.weight"] = torch.ones(64, 32)
    tensors["model.mask"] = torch.full((64, 32), -torch.inf).triu(1)
    tuned = {name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    tuned[EMBEDDING][5, 7] = float("nan")
    tuned[STACK][2, 0, 1] = float("inf")
    tuned |= {name: tensors[name].clone() for name in ("model.same.weight", "model.mask")}
    base = write_checkpoint(tmp_path / "base", tensors)
    return base, write_checkpoint(tmp_path / "tuned", tuned)


@pytest.mark.slow
def test_what_fails_is_named_at_the_end_and_the_rest_is_done(awkward, capsys):
    command = ["scan", *map(str, awkward), "--json", "--device", "cpu", "--workers", "1"]
    assert main(command) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert set(report["errors"]) == {EMBEDDING, f"{STACK}[2]"}
    assert "entry [5, 7]" in report["errors"][EMBEDDING] and "nan" in report["errors"][EMBEDDING]
    assert f"{STACK}[2] failed: {STACK}[2]: entry [0, 1]" in captured.err
    assert EMBEDDING not in report["weights"] and len(report["weights"]) == 7
    stack = report["weights"][STACK]
    assert [row is None for row in stack["matrices"]] == [False, False, True, False]
    assert report["computed"] == 9 and report["stored"] == 0
    assert report["weights"]["model.same.weight"]["matrices"][0]["summary"]["kurtosis"] is None
    for unchanged in ("model.same.weight", "model.mask"):  # equal infinities differ by nan, and yet are equal
        assert "exactly zero" in report["weights"][unchanged]["matrices"][0]["warnings"][0]
    # Again, in words: what was computed is found, what failed is tried again.
    assert main([*command[:3], "--device", "cpu", "--workers", "1"]) == 1
    captured = capsys.readouterr()
    assert "0 computed, 9 from the store" in captured.out
    assert f"dgviz scan: {EMBEDDING} failed" in captured.err


@pytest.mark.slow
def test_a_killed_worker_costs_its_matrix_only(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(size, size, generator=generator) for name, size in (("a.big", 1500), ("b", 40))}
    base = write_checkpoint(tmp_path / "base", tensors)
    tuned = write_checkpoint(tmp_path / "tuned", {name: tensor + tensor.T for name, tensor in tensors.items()})
    before = set(psutil.Process().children())
    results, killed = [], False
    store = SpectrumStore(tmp_path / "store")
    for result in iter_scan(open_pair(base, tuned), store=store, device="cpu", workers=1, heartbeat=0.05):
        if result is None and not killed:
            for child in set(psutil.Process().children()) - before:
                child.kill()
                killed = True
        elif result is not None:
            results.append(result)
    assert killed and [(result.name, result.error is None) for result in results] == [("a.big", False), ("b", True)]
    assert "WorkerDied" in results[0].error and "SIGKILL" in results[0].error


@pytest.mark.slow
def test_closing_ends_every_process_in_the_middle(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randn(2000, 2000, generator=generator)
    base = write_checkpoint(tmp_path / "base", {"w": tensor})
    tuned = write_checkpoint(tmp_path / "tuned", {"w": tensor + tensor.T})
    before = psutil.Process().children()
    scan = iter_scan(open_pair(base, tuned), store=SpectrumStore(tmp_path / "store"), heartbeat=0.01, **CPU)
    while psutil.Process().children() == before:
        assert next(scan) is None
    scan.close()
    assert psutil.Process().children() == before


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"device": "tpu"}, SpectrumError, "'tpu' is not available here"),
        ({"rule": "best"}, ThresholdError, "no threshold rule 'best'"),
        ({"rule": "manual"}, ThresholdError, "needs 'tau'"),
        ({"workers": 0}, DgvizError, "at least 1 worker; got 0"),
    ],
)
def test_what_cannot_be_asked(pair, tmp_path, options, error, complaint):
    before = psutil.Process().children()
    with pytest.raises(error, match=complaint):
        list(iter_scan(pair, **{"store": SpectrumStore(tmp_path), **options}))
    assert psutil.Process().children() == before


# --- as a job -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_as_a_job_it_reports_progress_and_its_result(pair, store, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    shutil.copytree(store.root, cache / "spectra")
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(cache))
    command = [sys.executable, "-m", "dgviz", "scan", str(pair.base.path), str(pair.tuned.path), "--include", "mlp"]
    job = start_job(command, tmp_path / "jobs", "scan", cwd=ROOT)
    deadline = time.monotonic() + 300
    while job.exit_code is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert job.state == "done", job.log_tail()
    assert job.result["weights"] == 3 and job.result["stored"] == 6 and job.result["computed"] == 0
    progress = job.progress()
    assert progress.done == pytest.approx(progress.total) and progress.extra == {"matrices": 6, "stored": 6}
    assert "6 from the store" in (job.directory / "output.txt").read_text()


@pytest.mark.slow
def test_a_cancelled_job_says_so_and_can_be_repeated(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_JOB_DIR", str(tmp_path))
    (tmp_path / "cancel").touch()
    assert main(["scan", str(pair.base.path), str(pair.tuned.path), "--device", "cpu", "--workers", "1"]) == 1
    assert "cancelled; repeat the command" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text())["state"] == "cancelled"
