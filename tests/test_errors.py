"""Messages for terminals, logs and pages: names in them cannot act, add a line, or make them endless."""

import json
import pickle

import pytest

from dgviz.app.messages import plain
from dgviz.cli import main
from dgviz.errors import CheckpointError, printable
from dgviz.files import pretty_json, read_json, write_json
from tests.checkpoints import write_pair

ACTING = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\u2066\udcff"
"""A title, a cleared screen, a line of its own, colours, text turned round, and what no text can hold."""


def test_what_acts_is_escaped_and_the_rest_is_left():
    assert printable("layers.0 é 模型 a\\b") == "layers.0 é 模型 a\\b"
    shown = printable(ACTING)
    assert shown.isprintable() and shown.isascii()
    assert shown == r"\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\u2066\udcff"
    shown.encode()
    assert plain(ACTING).isprintable()


def test_errors_are_one_printable_line_through_a_pickle_too():
    error = CheckpointError(f"tensor {ACTING} is odd")
    assert str(error) == f"tensor {printable(ACTING)} is odd" == str(pickle.loads(pickle.dumps(error)))


def test_length_is_capped_and_both_ends_stay():
    shown = str(CheckpointError(f"the tensor {'x' * 10**6} is odd: save the model again"))
    assert len(shown) < 2100
    assert shown.startswith("the tensor xxx") and shown.endswith("save the model again")
    assert "characters ...]" in shown


@pytest.mark.parametrize("command", ["inspect", "repair", "scan"])
def test_no_output_of_a_command_acts(tmp_path, capsys, monkeypatch, command):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "a\x1b[2J\nb\udcff"
    try:
        base, tuned = write_pair(folder, config={"name": "\x1b[31m"})
    except OSError:
        pytest.skip("this file system takes text only")
    out = [str(tmp_path / "out\x1b[2J")] if command == "repair" else []
    assert main([command, str(base), str(tuned), *out]) == 0
    assert main([command, str(base), str(folder / "gone\x1b[2J"), *out]) == 2
    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\x9b", "\udcff"} & set(said)
    assert "\\x1b[2J" in said


def test_names_that_are_no_text_are_written_as_json(tmp_path):
    value = {"name": "\udcff"}
    assert json.loads(pretty_json(value)) == value
    write_json(tmp_path / "state.json", value)
    assert read_json(tmp_path / "state.json") == value
