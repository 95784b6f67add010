"""Every command that README.md shows exists, with the options it shows."""

import contextlib
import io
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from dgviz import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# A whole line of a terminal session, or in backticks; prose may say "make" as well.
TARGETS = sorted(set(re.findall(r"(?:^(?:\$ )?|`)make ([a-z]+)(?=$|`|\s+#)", README, flags=re.MULTILINE)))
# A command runs to the end of its line or of its backticks; a trailing backslash continues it.
COMMANDS = sorted(set(re.findall(r"python -m dgviz ([^`\n#|>&]*[^`\n#|>&\s])", README.replace("\\\n", " "))))


@cache
def help_of(subcommand):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        cli.main([subcommand, "--help"])
    assert not ended.value.code, f"there is no command {subcommand}"
    return said.getvalue()


def test_the_two_commands_are_there():
    assert {"app", "test"} <= set(TARGETS)
    assert COMMANDS


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists(target):
    run = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_dgviz_command_exists_with_its_options(command):
    subcommand, *arguments = shlex.split(command.replace("...", ""))
    known = set(re.findall(r"--[a-z0-9][a-z0-9-]*", help_of(subcommand)))
    assert {word.split("=")[0] for word in arguments if word.startswith("--")} <= known


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z0-9-]+)", README))))
def test_an_option_named_in_the_text_is_known_to_some_command(option):
    assert any(option in help_of(command.split()[0]) for command in COMMANDS)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:|#)([^)#\s]+)", README))))
def test_what_it_links_to_exists(link):
    assert (ROOT / link).exists()
