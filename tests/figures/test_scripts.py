"""The component's JavaScript as a linter reads it."""

import re

from dgviz.figures.figure4.component import script, script_files
from tests.lint_scripts import lint, places_of


def test_the_linter_finds_nothing_and_would_tell_where():
    places = places_of(script_files())
    assert len(places) == len(script().split("\n"))
    assert lint(script(), places) == []
    at = script().split("\n").index("class ModelMap {")
    broken = script().replace("class ModelMap {", "class ModelMap { odd() { return nowhere(1); }")
    (problem,) = lint(broken, places)
    assert "nowhere" in problem and places[at].endswith("model.js:" + places[at].rpartition(":")[2])
    assert problem.startswith(places[at])


def test_names_are_never_read_as_html():
    """Every text goes in as text: no script has a way from a string to elements, or to what is loaded."""
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|document\.write|DOMParser|srcdoc|setHTML"
    ways += r"|\beval\b|new Function|\.src\s*=(?! `data:image/svg)|[\"']src[\"']"
    ways += r"|[\"'](?:xlink:)?href[\"']|\.href\s*=|javascript:"
    assert re.findall(ways, script()) == []
    assert "textContent" in script()
