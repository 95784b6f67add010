"""The store's limit: what was used longest ago goes, what is in use stays, whoever writes."""

import json
import os
import time

import numpy as np
import pytest

from dgviz.cli import main
from dgviz.errors import CommandError
from dgviz.spectra import bound
from dgviz.spectra.store import SpectrumStore, spectrum_key
from dgviz.words import count_bytes

S = np.arange(1000.0)[::-1]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    return SpectrumStore()


def put(store, number, hours=0.0):
    """Store a spectrum as somebody did so many hours ago."""
    key = spectrum_key("base", str(number))
    store.put(key, S, (1000, 1000), {"route": "test"})
    file = store.root / key[:2] / f"{key}.safetensors"
    os.utime(file, (time.time() - 3600 * hours,) * 2)
    return key


def test_what_was_used_longest_ago_goes_first(store, caplog):
    keys = [put(store, number, hours=30 - number) for number in range(20)]
    entry = store.size() / 20
    assert store.get(keys[0]) is not None  # used: now the newest
    bound.set_limit(store.root, int(10.5 * entry))
    kept = [number for number, key in enumerate(keys) if store.get(key) is not None]
    assert kept == [0, *range(12, 20)]
    assert "limit of" in caplog.text and "dgviz cache limit" in caplog.text


def test_writers_hold_to_the_limit(store):
    put(store, 0)
    entry = store.size()
    bound.set_limit(store.root, 10 * entry)
    for number in range(1, 60):
        put(store, number, hours=60 - number)
        assert store.size() <= 12 * entry
    assert store.get(spectrum_key("base", "59")) is not None


def test_a_damaged_limit_keeps_nobody_from_storing_and_is_said(store, capsys):
    store.root.mkdir(parents=True)
    (store.root / "limit.json").write_text('{"bytes": "many"}')
    key = put(store, 0)
    assert store.get(key) is not None
    assert main(["cache"]) == 2
    assert "set the limit again" in capsys.readouterr().err
    assert main(["cache", "limit", "1GB"]) == 0


def test_the_command_shows_clears_and_sets(store, capsys):
    put(store, 0)
    assert main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["limit"] == bound.DEFAULT_LIMIT
    assert found["parts"]["spectra"] == store.size() > 8000
    assert main(["cache", "limit", "5 MiB"]) == 0
    assert "spectra may take 5.0 MiB" in capsys.readouterr().out
    assert main(["cache", "clear", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert store.size() == 0 and found["limit"] == 5 * 2**20
    for words in (["limit"], ["show", "3GB"], ["limit", "lots"]):
        assert main(["cache", *words]) == 2


@pytest.mark.parametrize(
    ("text", "nbytes"), [("0", 0), ("4096", 4096), ("500MB", 5 * 10**8), ("1.5 GiB", 3 * 2**29), ("2tb", 2 * 10**12)]
)
def test_sizes_are_read(text, nbytes):
    assert count_bytes(text) == nbytes


def test_what_is_no_size_is_refused():
    for text in ("", "much", "-1", "1 PB", "1e9"):
        with pytest.raises(CommandError, match="is no size"):
            count_bytes(text)
