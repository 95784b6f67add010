"""The document has everything that Streamlit's has, and the layout before the first element comes."""

import re
from pathlib import Path

import streamlit

from dgviz.app.document import document, plain_document
from dgviz.app.launch import app_options

STATIC = Path(streamlit.__file__).parent / "static"


def test_streamlits_document_with_our_title_and_style():
    ours, theirs = document(), plain_document()
    added = re.search("<style>.*</style><script>.*?</script>", ours, re.DOTALL)[0]
    assert ours.replace(added, "").replace("<title>dgviz</title>", "<title>Streamlit</title>") == theirs


def test_the_style_has_the_colours_of_both_schemes():
    options = app_options()
    for kind in ("light", "dark"):
        for name in ("backgroundColor", "borderColor"):
            assert options[f"theme.{kind}.{name}"] in document()
    assert "$" not in document().partition("<style>")[2]


def test_what_is_imported_later_is_there():
    later = re.search('"(.*)".split', document())[1].split()
    names = [Path(path).name.partition(".")[0] for path in later]
    assert names == ["PlotlyChart", "DataFrame"]
    assert all((STATIC / path).is_file() for path in later)
