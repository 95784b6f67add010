"""Commands as values: what they print is read back as they are, whatever is in them."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dgviz.command import GRAMMAR, Command, option
from dgviz.errors import CommandError
from dgviz.words import exact_number

PLACES = ["plain", "with space", 'it\'s "quoted"', "-dash", "--flag=x", "semi;colon$HOME\\n", "ünïcode", "a=b", "x,y"]
NUMBERS = [123456789, 2**31, 0.1 + 0.2, 1e-17, -1e-3, 5e-324, 1e308, float("inf"), 0, 1.0]


def example(form, text, number):
    """Return a command that gives every argument the form allows together."""
    given, sets = {}, set()
    for argument in form.arguments:
        if argument.instead in sets:
            continue
        sets |= {argument.instead} - {""}
        if argument.form == "pairs":
            value = {"a": number if argument.kind is float else text, "b": 1 if argument.kind is float else "c"}
        elif argument.form in ("many", "list"):
            value = [text.replace(",", "") if argument.form == "list" else text, "second"]
        elif argument.kind is bool:
            value = True
        elif argument.choices:
            value = argument.choices[-1]
        else:
            value = text if argument.kind is str else argument.kind(min(number, 2**53))
        given[argument.name] = value
    return Command(form.name, **given)


@pytest.mark.parametrize("form", GRAMMAR.values(), ids=GRAMMAR)
def test_every_command_is_read_back_from_what_it_prints(form):
    for text, number in zip(PLACES + PLACES, NUMBERS, strict=False):
        command = example(form, text, number)
        assert Command.parse(str(command)) == command
        assert Command.parse(command.start) == command
        assert Command.parse(f"dgviz {shlex.join(command.words)}") == command


def test_numbers_are_printed_as_they_are():
    command = Command("scan", base="b", tuned="t", rule="flip_pa", rule_param={"seed": 123456789, "scale": 0.1 + 0.2})
    assert str(command).endswith("--rule flip_pa --rule-param seed=123456789 --rule-param scale=0.30000000000000004")
    assert [float(exact_number(number)) for number in NUMBERS] == NUMBERS
    assert [exact_number(number) for number in (1.0, 0.5, 123456789.0, 1e-17)] == ["1", "0.5", "123456789", "1e-17"]


def test_another_number_is_another_command():
    one, other = (Command("scan", base="b", tuned="t", rule_param={"seed": seed}) for seed in (123456789, 123457000))
    assert one != other and Command.parse(str(one)) != Command.parse(str(other))


def test_defaults_and_nothing_are_left_out():
    command = Command(
        "repair", base=Path("b"), tuned="t", out="o", rule="dg_hard", include=None, push_to="", private=False
    )
    assert str(command) == "python -m dgviz repair b t o"
    assert command == Command("repair", base="b", tuned=Path("t"), out="o", dtype="auto")
    assert command == Command.parse("dgviz repair b t o --format full --device auto")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Command("polish"), "no command 'polish'"),
        (lambda: Command("scan", base="b"), "scan needs tuned"),
        (lambda: Command("scan", base="b", tuned="t", out="o"), "scan has no argument 'out'"),
        (lambda: Command.parse("scan b t --seed 1"), "unrecognized arguments: --seed"),
        (lambda: Command.parse("python -m dgviz"), "no command is named"),
        (lambda: option("--polish"), "no command takes --polish"),
    ],
)
def test_what_is_no_command_is_said(make, message):
    with pytest.raises(CommandError, match=message):
        make()


def test_an_option_is_quoted_for_a_shell():
    text = option("--exclude", "^a\\.b (c)$")
    assert shlex.split(text) == ["--exclude", "^a\\.b (c)$"]
    assert option("--exclude", "-x") == "--exclude=-x" and option("--chat") == "--chat"


def test_a_command_starts_as_a_process(tmp_path):
    command = Command("demo", directory=tmp_path / "it's here", json=True)
    done = subprocess.run(command.start, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command.start[0] == sys.executable and (tmp_path / "it's here" / "base").is_dir()


@pytest.mark.parametrize(("name", "typed"), [("dgviz", "dgviz scan a b"), ("pytest", "python -m dgviz scan a b")])
def test_a_command_is_printed_as_this_one_was_started_and_written_as_anybody_can(name, typed):
    shown = "scan = Command('scan', base='a', tuned='b'); print(scan); print(scan.lasting)"
    code = f"import sys; sys.argv = ['/bin/{name}', 'app']; from dgviz.command import Command; {shown}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [typed, "python -m dgviz scan a b"]
