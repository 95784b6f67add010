"""The figures of all matrices, kept: the same as computed anew, and only where nothing they depend on has changed."""

import json
import shutil
import time

import pytest
import torch

from dgviz.checkpoint import inspect_pair, open_pair
from dgviz.checkpoint.fingerprint import content_hash, is_hashed
from dgviz.errors import DgvizError
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import matrix_row
from dgviz.spectra.model_scan import iter_scan
from dgviz.spectra.store import FEWEST, SpectrumStore
from tests.checkpoints import planted_update, write_checkpoint


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A pair of many matrices, one of which training has left alone, and the store of a scan."""
    folder = tmp_path_factory.mktemp("many")
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{layer:02d}.w": torch.randn(40, 33, generator=generator) for layer in range(FEWEST + 1)}
    tuned = planted_update(base) | {"layers.00.w": base["layers.00.w"]}
    paths = [write_checkpoint(folder / side, own, {"a": 1}) for side, own in (("base", base), ("tuned", tuned))]
    pair, store = open_pair(*paths), SpectrumStore(folder / "store")
    sides = [side for tensor in pair.tensors for side in (tensor.base, tensor.tuned)]
    while not all(map(is_hashed, sides)):  # of files written a moment ago no content is remembered
        time.sleep(0.1)
        [content_hash(side) for side in sides]
    assert not any(result.kept for result in scan(pair, store))
    return pair, store


def scan(pair, store, plan=None):
    plan = plan or RepairPlan()
    return list(iter_scan(pair, device="cpu", workers=1, store=store, own=plan.rule_of))


def figures(row):
    """All of a row but the seconds, as reports hold it."""
    return json.loads(json.dumps({name: value for name, value in row.items() if name != "seconds"}))


def test_a_repeated_scan_reads_what_it_would_find(scanned):
    pair, store = scanned
    results = scan(pair, store)
    assert len(results) == FEWEST + 1 and all(result.kept for result in results)
    for result in results:
        spectrum = result.weight.find_spectrum(store)
        assert figures(result.row) == figures(matrix_row(spectrum, *RepairPlan().rule_of(result.weight)))


def test_other_settings_have_rows_of_their_own(scanned):
    pair, store = scanned
    for plan in (RepairPlan(rule="mp_edge"), RepairPlan(rule="fixed_rank")):
        first, again = scan(pair, store, plan), scan(pair, store, plan)
        assert not any(result.kept for result in first) and all(result.kept for result in again)
        assert {row.name: figures(row.row) for row in first} == {row.name: figures(row.row) for row in again}


def test_without_an_entry_or_with_another_nothing_is_taken_over(scanned, tmp_path):
    pair, store = scanned
    copied = SpectrumStore(shutil.copytree(store.root, tmp_path / "store"))
    key = next(result for result in scan(pair, store) if result.name == "layers.07.w").weight.key
    (file,) = copied.root.rglob(f"{key}.safetensors")
    file.unlink()
    results = {result.name: result for result in scan(pair, copied)}
    assert not any(result.kept for result in results.values())
    assert not results["layers.07.w"].row["stored"] and results["layers.08.w"].row["stored"]
    assert all(result.kept for result in scan(pair, copied))


def test_another_content_is_another_row(scanned, tmp_path):
    pair, store = scanned
    tuned = shutil.copytree(pair.tuned.path, tmp_path / "tuned")
    file = tuned / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 0x11  # a mantissa bit of the last tensor
    file.write_bytes(data)
    changed = open_pair(pair.base.path, tuned)
    assert content_hash(changed.tensors[-1].tuned) != content_hash(pair.tensors[-1].tuned)
    results = scan(changed, store)
    assert not any(result.kept for result in results)
    assert [result.name for result in results if not result.row["stored"]] == [changed.tensors[-1].name]


def test_a_pair_without_a_matrix_is_scanned_too(tmp_path):
    values = {"base": 1.0, "tuned": 2.0}
    sides = [write_checkpoint(tmp_path / side, {"norm": torch.full((8,), x)}, {"a": 1}) for side, x in values.items()]
    assert scan(inspect_pair(*sides), SpectrumStore(tmp_path / "store")) == []


def test_settings_that_do_not_fit_a_matrix_are_its_own_error(scanned):
    pair, store = scanned
    plan = RepairPlan()

    def own(weight):
        if weight.name == "layers.03.w":
            raise DgvizError("a rank of 99 does not fit")
        return plan.rule_of(weight)

    results = list(iter_scan(pair, device="cpu", workers=1, store=store, own=own))
    assert {result.name: result.error for result in results if result.error} == {
        "layers.03.w": "a rank of 99 does not fit"
    }
    assert len(results) == FEWEST + 1 and all(result.row["stored"] for result in results if not result.error)


def test_a_failure_of_the_store_is_told_of_every_matrix(scanned, monkeypatch):
    pair, store = scanned

    def fail(self, question):
        raise OSError("input/output error")

    monkeypatch.setattr(SpectrumStore, "get_arrays", fail)
    errors = [result.error for result in scan(pair, store)]
    assert len(errors) == FEWEST + 1 and set(errors) == {"OSError: input/output error"}
