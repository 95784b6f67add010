"""Many spectra read from one file: the same as from their entries, and never those of an entry that has changed."""

import os
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest

from dgviz.errors import DgvizError
from dgviz.spectra import bound, pack
from dgviz.spectra.store import FEWEST, SpectrumStore, spectrum_key

KEYS = [spectrum_key("base", str(number)) for number in range(FEWEST + 6)]


def put(store, key, seed=0, **summary):
    shape = [(8, 5), (6, 6), (3, 9)][int(key, 16) % 3]
    s = np.sort(np.random.default_rng([int(key[:8], 16), seed]).random(min(shape)))[::-1]
    store.put(key, s, shape, {"route": "test"}, {"kurtosis": 3.0 + seed, "zero_share": float("nan"), **summary})


@pytest.fixture
def store(tmp_path):
    store = SpectrumStore(tmp_path)
    for key in KEYS:
        put(store, key)
    store.get_many(KEYS)
    return store


def packs(store):
    return list((store.root / "packs").iterdir())


def opened(store, monkeypatch, keys=KEYS):
    """Return what is found, its digest, and the keys of the entries that were opened."""
    looked = []
    get = SpectrumStore.get
    with monkeypatch.context() as patch:
        patch.setattr(SpectrumStore, "get", lambda self, key: looked.append(key) or get(self, key))
        return *store.get_many(keys), sorted(looked)


def check(store, found, keys=KEYS):
    assert sorted(found) == sorted(keys)
    for key, spectrum in found.items():
        single = store.get(key)
        assert spectrum.s.tobytes() == single.s.tobytes() and spectrum.shape == single.shape and spectrum.stored
        assert repr(spectrum.summary) == repr(single.summary) and spectrum.certificate == single.certificate
        assert spectrum.energy == single.energy and spectrum.nonzero_shape == single.nonzero_shape


def test_a_second_look_opens_no_entry_and_finds_the_same(store, monkeypatch):
    found, digest, looked = opened(store, monkeypatch)
    assert looked == [] and len(packs(store)) == 1
    check(store, found)
    assert opened(SpectrumStore(store.root), monkeypatch, KEYS[::-1])[1:] == (digest, [])


def test_what_is_said_of_a_spectrum_is_read_when_it_is_asked_for(store, monkeypatch):
    found = store.get_many(KEYS)[0]
    read, parse = [], pack._parse
    monkeypatch.setattr(pack, "_parse", lambda text: read.append(text) or parse(text))
    one = found[KEYS[0]]
    assert (one.s.size, one.energy > 0, one.nonzero_shape, one.name, one.warnings) and read == []
    assert one.certificate == {"route": "test"} and one.certificate is one.certificate and len(read) == 1
    for copy in (pickle.loads(pickle.dumps(found[KEYS[1]])), replace(found[KEYS[1]], name="other")):
        assert repr(copy.summary) == repr(store.get(KEYS[1]).summary) and copy.stored
        assert copy.energy == found[KEYS[1]].energy and copy.nonzero_shape == found[KEYS[1]].nonzero_shape


def test_entries_that_changed_or_are_gone_are_not_served(store, monkeypatch):
    digest = store.get_many(KEYS)[1]
    put(store, KEYS[3], seed=1)
    found, changed, looked = opened(store, monkeypatch)
    assert looked == [KEYS[3]] and found[KEYS[3]].summary["kurtosis"] == 4.0 and changed != digest
    check(store, found)
    file = store.root / KEYS[5][:2] / f"{KEYS[5]}.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)  # in place: the same inode and size
    (store.root / KEYS[7][:2] / f"{KEYS[7]}.safetensors").unlink()
    found, gone, _ = opened(store, monkeypatch)
    assert KEYS[5] not in found and KEYS[7] not in found and gone not in (digest, changed)
    store.clear()
    assert store.get_many(KEYS)[0] == {} and packs(store) == []


def test_what_comes_later_is_packed_with_the_rest(store, monkeypatch):
    for key in KEYS[:20]:
        put(store, key, seed=2)
    assert len(opened(store, monkeypatch)[2]) == 20
    found, _, looked = opened(store, monkeypatch)
    assert looked == [] and len(packs(store)) == 1
    check(store, found)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_pack_is_said_and_made_again(store, damage, monkeypatch, caplog):
    pack = packs(store)[0]
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    found, _, looked = opened(store, monkeypatch)
    assert looked == sorted(KEYS) and "is damaged" in caplog.text
    check(store, found)
    assert opened(store, monkeypatch)[2] == []


def test_a_store_that_cannot_be_written_is_read(store, monkeypatch):
    packs(store)[0].unlink()

    def full(*_):
        raise DgvizError("the disk is full")

    monkeypatch.setattr(SpectrumStore, "_replacing", full)
    check(store, opened(store, monkeypatch)[0])


def test_few_entries_are_not_packed(tmp_path):
    store = SpectrumStore(tmp_path)
    for key in KEYS[:5]:
        put(store, key)
    check(store, store.get_many(KEYS)[0], KEYS[:5])
    assert not (store.root / "packs").exists()


def test_a_packed_entry_that_is_read_counts_as_used(store, monkeypatch):
    for key in KEYS:
        os.utime(store.root / key[:2] / f"{key}.safetensors", (time.time() - 7200,) * 2)
    store.get_many(KEYS)  # their times of modification are others: packed again
    for file in store.root.glob("??/*"):
        os.utime(file, ns=(0, file.stat().st_mtime_ns))
    assert opened(store, monkeypatch)[2] == []
    other = spectrum_key("base", "other")
    put(store, other)
    os.utime(store.root / other[:2] / f"{other}.safetensors", (time.time() - 3600,) * 2)
    size = store.size()
    bound.trim(store.root, size - 1)
    assert store.get(other) is None and store.get_many(KEYS)[0].keys() == set(KEYS)


def test_a_pack_of_another_format_is_not_read(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dgviz.spectra.store.FORMAT", "0")
        patch.setattr("dgviz.spectra.store.pack_spectra", lambda *_: {"values": np.zeros(3)})
        store.get_many(KEYS)
    found, _, looked = opened(store, monkeypatch)
    assert looked == [] and len(packs(store)) == 2
    check(store, found)
