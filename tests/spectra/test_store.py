"""Stored spectra: found again by content, never wrong, never in the way."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dgviz.checkpoint import open_pair
from dgviz.errors import CheckpointError, DgvizError, PairError
from dgviz.spectra import store as store_module
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.model_scan import iter_scan
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import Weight, weights_of
from tests.checkpoints import planted_update, random_tensors, write_checkpoint, write_pair

ROOT = Path(__file__).parents[2]
STACK = "model.layers.2.mlp.experts.gate_up_proj"
KEY = "0123456789abcdef" * 4
S = np.array([3.0, 2.0, 2.0, 0.1, 0.0])
CERTIFICATE = {"route": "deflated-gram", "checks": [{"name": "count", "value": 1e-7}], "warnings": ["é"]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give every test a cache of its own."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- entries --------------------------------------------------------------------------------------------------------


def test_what_was_put_is_got(cache):
    SpectrumStore().put(KEY, S, (5, 9), CERTIFICATE)
    stored = SpectrumStore().get(KEY)  # another object: as after a restart
    assert stored.s.dtype == np.float64 and np.array_equal(stored.s, S)
    assert stored.shape == (5, 9) and stored.certificate == CERTIFICATE
    assert SpectrumStore().get(KEY[::-1]) is None
    assert SpectrumStore(cache / "elsewhere").get(KEY) is None
    (entry,) = (cache / "spectra").glob("*/*")
    assert entry.name == f"{KEY}.safetensors"


def test_a_real_spectrum_survives_to_the_last_bit(tmp_path):
    paired = open_pair(*write_pair(tmp_path))["model.pos"]
    s = torch.linalg.svdvals(compute_delta(Weight(paired), "cpu").double())
    store, key = SpectrumStore(), Weight(paired).key
    store.put(key, s, torch.Size((40, 32)), {"route": "svd"})
    assert np.array_equal(store.get(key).s, s.numpy())


def test_a_summary_is_kept_beside_the_certificate_and_may_come_later(cache):
    store = SpectrumStore()
    store.put(KEY, S, (5, 9), CERTIFICATE)
    before = store.get(KEY)
    assert before.summary == {}
    summary = {"zero_share": 0.25, "kurtosis": None}
    store.put(KEY, before.s, before.shape, before.certificate, summary)
    after = SpectrumStore().get(KEY)
    assert after.summary == summary and after.certificate == CERTIFICATE and np.array_equal(after.s, S)
    (entry,) = (cache / "spectra").glob("*/*")
    entry.write_bytes(entry.read_bytes().replace(b"0.25", b"0.75"))
    assert store.get(KEY) is None


def test_an_entry_written_before_there_were_summaries_is_still_read(cache):
    """Keys have not changed, so neither may the checksum of an entry without a summary."""
    about = {"shape": "[5, 9]", "certificate": '{"route": "old"}'}
    text = "\n".join([KEY, about["shape"], about["certificate"], ""])
    about["digest"] = hashlib.sha256(text.encode() + S.tobytes()).hexdigest()
    (cache / "spectra" / KEY[:2]).mkdir(parents=True)
    save_file({"s": S}, cache / "spectra" / KEY[:2] / f"{KEY}.safetensors", metadata=about)
    assert SpectrumStore().get(KEY).certificate == {"route": "old"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_are_given_as_far_as_they_are_stored(cache, dtype):
    store = SpectrumStore()
    left, right = np.arange(15.0, dtype=dtype).reshape(5, 3), np.arange(27.0, dtype=dtype).reshape(9, 3).T
    assert store.get_factors(KEY, 1) is None
    store.put_factors(KEY, left, right)
    for rank in (1, 3):
        found = store.get_factors(KEY, rank)
        assert np.array_equal(found[0], left[:, :rank]) and np.array_equal(found[1], right[:rank])
        assert found[0].dtype == found[1].dtype == dtype
    assert store.get_factors(KEY, 4) is None
    assert store.get(KEY) is None, "factors alone are no spectrum"
    assert store.size() > left.nbytes + right.nbytes
    store.clear()
    assert store.get_factors(KEY, 1) is None and store.size() == 0


def test_damaged_factors_are_a_miss(cache):
    store = SpectrumStore()
    store.put_factors(KEY, np.ones((5, 2), np.float32), np.ones((2, 9), np.float32))
    (entry,) = (cache / "spectra").glob("*/*")
    sound = entry.read_bytes()
    for i in range(len(sound)):
        entry.write_bytes(sound[:i] + bytes([sound[i] ^ 0x11]) + sound[i + 1 :])
        found = store.get_factors(KEY, 2)
        assert found is None or all((factor == 1).all() for factor in found)
    entry.write_bytes(sound[:-5])
    assert store.get_factors(KEY, 2) is None
    (cache / "spectra" / "ff").mkdir()
    (cache / "spectra" / "ff" / f"{'f' * 64}.factors.safetensors").write_bytes(sound)
    assert store.get_factors("f" * 64, 2) is None


def test_only_factors_that_have_a_product_are_stored():
    for left, right in [(np.ones((5, 2)), np.ones((3, 9))), (np.ones((5, 2)), np.ones((2, 9), np.float32))]:
        with pytest.raises(ValueError, match="have no product"):
            SpectrumStore().put_factors(KEY, left, right)
    assert SpectrumStore().size() == 0


def test_put_replaces():
    store = SpectrumStore()
    store.put(KEY, S, (5, 9), {"route": "first"})
    store.put(KEY, S * 2, (9, 5), {"route": "second"})
    stored = store.get(KEY)
    assert stored.certificate == {"route": "second"} and stored.shape == (9, 5) and np.array_equal(stored.s, 2 * S)


def test_every_damage_is_a_miss_and_is_healed(cache):
    store = SpectrumStore()
    store.put(KEY, S, (5, 9), CERTIFICATE)
    (entry,) = (cache / "spectra").glob("*/*")
    sound = entry.read_bytes()
    for i in range(len(sound)):
        entry.write_bytes(sound[:i] + bytes([sound[i] ^ 0x11]) + sound[i + 1 :])
        found = store.get(KEY)
        # A flipped bit in the padding or in "format" changes nothing that is stored.
        assert found is None or (np.array_equal(found.s, S) and found.certificate == CERTIFICATE)
    for length in range(0, len(sound), 7):
        entry.write_bytes(sound[:length])
        assert store.get(KEY) is None
    data = sound[: -S.nbytes] + bytes(S.nbytes)
    entry.write_bytes(data)
    assert store.get(KEY) is None
    entry.unlink()
    entry.mkdir()
    assert store.get(KEY) is None
    entry.rmdir()
    store.put(KEY, S, (5, 9), CERTIFICATE)
    assert np.array_equal(store.get(KEY).s, S)


def test_an_entry_under_another_key_is_a_miss(cache):
    store = SpectrumStore()
    store.put(KEY, S, (5, 9), CERTIFICATE)
    (entry,) = (cache / "spectra").glob("*/*")
    other = "f" * 64
    (cache / "spectra" / "ff").mkdir()
    shutil.copy(entry, cache / "spectra" / "ff" / f"{other}.safetensors")
    assert store.get(other) is None


def test_a_foreign_file_is_a_miss(cache):
    (cache / "spectra" / KEY[:2]).mkdir(parents=True)
    save_file({"s": S}, cache / "spectra" / KEY[:2] / f"{KEY}.safetensors")
    assert SpectrumStore().get(KEY) is None


@pytest.mark.parametrize(
    ("s", "shape"),
    [
        (S, (5,)),
        (S, (4, 9)),
        (S.reshape(5, 1), (5, 9)),
        (S[::-1], (5, 9)),
        (-S[::-1], (5, 9)),
        (np.array([np.inf, 1]), (2, 2)),
        (np.array([1, np.nan]), (2, 2)),
    ],
)
def test_only_spectra_are_stored(s, shape):
    with pytest.raises(ValueError, match="singular values must be|is not the spectrum of"):
        SpectrumStore().put(KEY, s, shape, {})
    assert SpectrumStore().size() == 0


@pytest.mark.parametrize("key", ["", "../../etc/passwd", KEY.upper(), KEY + "0", KEY[:-1] + "\n"])
def test_keys_are_no_paths(key):
    for call in (SpectrumStore().get, lambda key: SpectrumStore().put(key, S, (5, 9), {})):
        with pytest.raises(ValueError, match="is not a key of spectrum_key"):
            call(key)


def test_size_and_clear(cache):
    store = SpectrumStore()
    assert store.size() == 0
    store.clear()
    store.put(KEY, S, (5, 9), CERTIFICATE)
    store.put("f" * 64, S, (5, 9), CERTIFICATE)
    files = list((cache / "spectra").glob("*/*"))
    assert len(files) == 2 and store.size() == sum(file.stat().st_size for file in files)
    fresh, abandoned = files[0].with_name("a.tmp"), files[0].with_name("b.tmp")
    fresh.write_bytes(b"being written")
    abandoned.write_bytes(b"left behind")
    os.utime(abandoned, (0, 0))
    store.clear()
    assert store.get(KEY) is None and store.size() == len(b"being written")
    assert fresh.exists() and not abandoned.exists()


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DgvizError, match=r"cannot be stored in .*file/below \(Not a directory\).*DGVIZ_CACHE_DIR"):
        SpectrumStore(tmp_path / "file" / "below").put(KEY, S, (5, 9), {})


def test_a_failed_put_leaves_the_old_entry_and_no_rest(cache, monkeypatch):
    store = SpectrumStore()
    store.put(KEY, S, (5, 9), CERTIFICATE)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DgvizError, match="No space left on device"):
        store.put(KEY, 2 * S, (5, 9), CERTIFICATE)
    assert np.array_equal(store.get(KEY).s, S)
    assert len(list((cache / "spectra").glob("*/*"))) == 1


@pytest.mark.slow
def test_many_processes_write_and_read_one_key(tmp_path):
    """Whoever reads meets one whole entry, whichever process wrote it."""
    code = (
        "import sys; import numpy as np; from dgviz.spectra.store import SpectrumStore\n"
        "assert 'torch' not in sys.modules\n"
        "store, mine = SpectrumStore(), int(sys.argv[1])\n"
        f"for _ in range(200):\n"
        f"    store.put({KEY!r}, np.full(500, float(mine)), (500, 500), {{'by': mine}})\n"
        f"    stored = store.get({KEY!r})\n"
        "    assert stored is not None and (stored.s == stored.certificate['by']).all()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(i)], cwd=ROOT) for i in (1, 2, 3)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    assert SpectrumStore().get(KEY).certificate["by"] in (1, 2, 3)


# --- keys -----------------------------------------------------------------------------------------------------------


def test_keys_follow_contents_and_not_names(tmp_path):
    tensors = random_tensors()
    tuned = planted_update(tensors)
    first = open_pair(write_checkpoint(tmp_path / "b", tensors), write_checkpoint(tmp_path / "t", tuned))
    renamed = open_pair(
        write_checkpoint(tmp_path / "b2", {f"other.{name}": tensor for name, tensor in tensors.items()}, shards=2),
        write_checkpoint(tmp_path / "t2", {f"other.{name}": tensor for name, tensor in tuned.items()}),
    )
    keys = {}
    for paired in first.repairable:
        for index in range(4) if paired.name == STACK else [None]:
            keys[paired.name, index] = Weight(paired, index).key
            assert Weight(renamed[f"other.{paired.name}"], index).key == keys[paired.name, index]
    assert len(set(keys.values())) == len(keys) == 9  # five matrices and four experts
    assert all(store_module._KEY.fullmatch(key) for key in keys.values())


def test_keys_change_with_either_side_the_order_and_the_engine(tmp_path, monkeypatch):
    weight = torch.randn(32, 40, generator=torch.Generator().manual_seed(0))
    a, b, c = ({"w": factor * weight} for factor in (1, 2, 3))
    paths = [write_checkpoint(tmp_path / name, tensors) for name, tensors in zip("abc", (a, b, c), strict=True)]
    pairs = [(0, 1), (1, 0), (0, 2), (2, 1)]
    keys = {Weight(open_pair(paths[i], paths[j])["w"]).key for i, j in pairs}
    assert len(keys) == 4
    monkeypatch.setattr(store_module, "ENGINE_VERSION", "another")
    assert Weight(open_pair(paths[0], paths[1])["w"]).key not in keys


def test_a_flat_reading_of_a_stack_has_a_key_of_its_own(tmp_path):
    """The same bytes and shape are one kernel under one name and a stack under another."""
    tensors = {"experts.w": torch.randn(4, 32, 24), "conv.w": torch.randn(32, 24)}
    tuned = planted_update(tensors)
    tuned["conv.w"], tensors["conv.w"] = tuned["experts.w"][1].clone(), tensors["experts.w"][1].clone()
    tensors["conv.k"], tuned["conv.k"] = tensors["experts.w"].clone(), tuned["experts.w"].clone()
    pair = open_pair(write_checkpoint(tmp_path / "b", tensors), write_checkpoint(tmp_path / "t", tuned))
    stack = [Weight(pair["experts.w"], index).key for index in range(4)]
    assert Weight(pair["conv.k"]).key not in stack
    assert Weight(pair["conv.w"]).key == stack[1]  # the same matrix, so the same spectrum


@pytest.mark.parametrize(
    ("name", "index", "complaint"),
    [
        ("new", None, "'new' has no delta: Only in tuned"),
        ("old", None, "'old' has no delta: Only in base"),
        ("model.norm.weight", None, "'model.norm.weight' of shape \\(2048,\\) is not a matrix"),
        ("model.pos", 0, r"'model.pos' of shape \(1, 40, 32\) is one matrix, without an index: index 0 does not fit"),
        (STACK, 4, "is a stack of 4 matrices: index 4 does not fit"),
        (STACK, None, "is a stack of 4 matrices: index None does not fit"),
    ],
)
def test_what_has_no_key(tmp_path, name, index, complaint):
    tensors = random_tensors()
    base = write_checkpoint(tmp_path / "b", tensors | {"old": torch.zeros(32, 32)})
    tuned = write_checkpoint(tmp_path / "t", planted_update(tensors) | {"new": torch.zeros(32, 32)})
    with pytest.raises(PairError, match=complaint):
        _ = Weight(open_pair(base, tuned)[name], index).key


def test_a_vanished_file_has_no_key(tmp_path):
    base, tuned = write_pair(tmp_path)
    pair = open_pair(base, tuned)
    (tuned / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        _ = Weight(pair["model.pos"]).key


# --- one store, several machines ------------------------------------------------------------------------------------


def test_machines_that_agree_on_no_inode_and_no_clock_share_a_store(tmp_path, monkeypatch):
    here = open_pair(*write_pair(tmp_path / "here"))
    there = tmp_path / "there"
    shutil.copytree(tmp_path / "here", there)  # other inodes, the store's too
    for hours, file in enumerate(sorted(path for path in there.rglob("*") if path.is_file())):
        os.utime(file, (file.stat().st_mtime + 3600 * (hours - 1),) * 2)
    found = {result.name: result for result in iter_scan(here, store=SpectrumStore(tmp_path / "store"), device="cpu")}
    shutil.copytree(tmp_path / "store", tmp_path / "mirror")
    now, now_ns = time.time, time.time_ns
    for offset in (-86400, 86400):  # seconds that the other clock goes behind or ahead
        monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / f"cache-{offset}"))
        monkeypatch.setattr(time, "time", lambda offset=offset: now() + offset)
        monkeypatch.setattr(time, "time_ns", lambda offset=offset: now_ns() + offset * 10**9)
        other = open_pair(*(there / side.path.relative_to(tmp_path / "here") for side in (here.base, here.tuned)))
        for root in ("store", "mirror"):
            again = list(iter_scan(other, store=SpectrumStore(tmp_path / root), device="cpu"))
            assert [result.row["stored"] for result in again] == [True] * len(found)
            assert all(result.row["tau"] == found[result.name].row["tau"] for result in again)
        assert [weight.key for weight in weights_of(other)] == [weight.key for weight in weights_of(here)]
