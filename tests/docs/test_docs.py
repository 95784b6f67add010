"""The documents are as the code is: generated pages current, links whole, sessions printing what they show."""

import ast
import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from dgviz.cli import main
from dgviz.cli.options import repair_plan
from dgviz.command import COMMON, GRAMMAR
from tests.docs import generate

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONS = {argument.flag for form in GRAMMAR.values() for argument in (*form.arguments, *COMMON)} | {"--help"}
FOREIGN = {"--server.address", "--server.allowedHosts", "--embedding"}  # of Streamlit, of a benchmark
FOREIGN |= {"--max-lora-rank"}  # of vLLM
FOREIGN |= {"--head", "--port", "--address", "--num-cpus", "--block"}  # of Ray
FOREIGN |= {"--nodes", "--ntasks-per-node", "--cpus-per-task", "--overlap"}  # of Slurm
SLOW = {"reference/json.md"}  # runs every command


def named(path):
    return str(path.relative_to(ROOT))


@cache
def text_of(path):
    return path.read_text(encoding="utf-8")


def fences(path, language):
    """Return the blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in generate.PAGES]
)
def test_a_generated_page_is_current(name):
    if f"numpy=={version('numpy')}" not in (ROOT / "requirements.txt").read_text().splitlines():
        pytest.skip("signatures of another numpy read otherwise")
    stored = text_of(generate.DOCS / name)
    assert stored == generate.PAGES[name](), "run python -m tests.docs.generate"


@pytest.mark.parametrize(("name", "block"), generate.BLOCKS)
def test_a_generated_block_is_current(name, block):
    stored = text_of(generate.DOCS / name)
    made = generate.BLOCKS[name, block]()
    assert stored == generate.put_block(stored, block, made), "run python -m tests.docs.generate"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)", text_of(document)):
        file, _, anchor = target.partition("#")
        if re.fullmatch(r"gallery/[\w-]+\.html", file):
            continue  # built with the site, which looks itself
        linked = (document.parent / file).resolve() if file else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_options_in_sentences_exist(document):
    named_there = set(re.findall(r"`(--[a-z][\w.-]*)", text_of(document)))
    assert named_there <= OPTIONS | FOREIGN


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_make_targets_exist(document):
    # A whole line of a terminal session, or in backticks; prose may say "make" as well.
    targets = re.findall(r"(?:^(?:\$ )?|`)make ([a-z]+)(?=$|`|\s+#)", text_of(document), flags=re.MULTILINE)
    for target in dict.fromkeys(targets):
        run = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_paths_of_the_code_exist(document):
    for path in re.findall(r"`((?:dgviz|tests|docs)/[\w./-]+)`", text_of(document)):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m (tests\.[\w.]+)", text_of(document)):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_python_and_json_can_be_read(document):
    for block in fences(document, "python"):
        compile(block, named(document), "exec")
    for block in fences(document, "json"):
        json.loads(block)


def test_every_page_is_listed():
    listed = text_of(ROOT / "docs" / "README.md")
    pages = [path for path in DOCUMENTS if path.parent != ROOT and path.name != "README.md"]
    assert [named(path) for path in pages if f"({path.relative_to(ROOT / 'docs')})" not in listed] == []


# --- sessions -------------------------------------------------------------------------------------------------------

TUTORIAL = ROOT / "docs" / "tutorial.md"


def sessions(path):
    """Yield the commands of a page's terminal sessions with the lines shown below each, in order."""
    for block in fences(path, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.split("\n")
            yield command, tuple(line for line in shown if line not in ("", "..."))


def run(command, folder):
    """Return what a command prints; dgviz itself runs in this process, which has torch in memory already."""
    typed = re.match(r"python -m dgviz ([^|]*)(?:\| (?:head|tail|grep) .*)?$", command)
    if typed is None:
        words = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
        return subprocess.run(["bash", "-c", words], cwd=folder, check=True, capture_output=True, text=True).stdout
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(shlex.split(typed[1])) == 0, command
    return out.getvalue()


def same(shown, printed):
    """Say whether two lines are the same, but for durations and the last digits of numbers."""
    (words, numbers), (other_words, other_numbers) = map(parted, (shown, printed))
    return words == other_words and numbers == pytest.approx(other_numbers, rel=2e-3)


def parted(line):
    """Return a line without its numbers, and the numbers."""
    line = re.sub(r"[\d.]+ (s|min|h)( [\d.]+ min)?$", "TIME", line.rstrip())
    number = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    return re.sub(r"\s+", " ", re.sub(number, "#", line)), [float(found) for found in re.findall(number, line)]


def test_sessions_of_the_readme_are_of_the_tutorial():
    assert set(sessions(ROOT / "README.md")) <= set(sessions(TUTORIAL))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_options_of_a_repair_in_sentences_are_run_as_written(document):
    # such as `--rule manual --rule-param tau=0.1`: values are there and within their range
    for text in re.findall(r"`(--(?:rule|method|shrinker|dtype|format) [^`]+)`", text_of(document)):
        alone = text.count(" ") == 1  # may need a parameter that its sentence speaks of
        if not re.search(r"\b[A-Z]+\b|\|", text) and not (alone and text.startswith("--rule")):
            repair_plan(GRAMMAR["repair"].parser().parse_args(shlex.split(f"BASE TUNED OUT {text}")))


@pytest.mark.slow
def test_sessions_of_the_tutorial_print_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "session"
    folder.mkdir()
    for command, shown in sessions(TUTORIAL):
        if command.startswith("source "):
            continue
        printed = run(command, folder).split("\n")
        for line in shown:
            assert any(same(line, other) for other in printed), f"{command} does not print {line!r}, but {printed}"


# --- troubleshooting ------------------------------------------------------------------------------------------------


def messages():
    """Return the texts of the code, what is filled in left out."""
    for file in (ROOT / "dgviz").rglob("*.py"):
        for node in ast.walk(ast.parse(text_of(file))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)


def test_messages_that_are_explained_are_those_of_the_code():
    known = "\n".join(messages())
    said = re.split(r"^\| the message says .*$", text_of(ROOT / "docs" / "troubleshooting.md"), flags=re.MULTILINE)
    rows = [row for part in said[1:] for row in re.findall(r"^\| ([^|]+) \|", part.split("\n\n")[0], re.MULTILINE)]
    phrases = [phrase.strip(" .") for row in rows for phrase in re.split(r";|\.\.\.", row)]
    assert len(phrases) > 50
    assert [phrase for phrase in phrases if len(phrase) > 5 and phrase not in known and phrase != "---"] == []
