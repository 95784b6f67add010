"""The document has everything that Streamlit's has, and the layout before the first element comes."""

import re

from dgviz.app.document import document, plain_document
from dgviz.app.launch import app_options


def test_streamlits_document_with_our_title_and_style():
    ours, theirs = document(), plain_document()
    style = re.search("<style>.*</style>", ours, re.DOTALL)[0]
    assert ours.replace(style, "").replace("<title>dgviz</title>", "<title>Streamlit</title>") == theirs


def test_the_style_has_the_colours_of_both_schemes():
    options = app_options()
    for kind in ("light", "dark"):
        for name in ("backgroundColor", "borderColor"):
            assert options[f"theme.{kind}.{name}"] in document()
    assert "$" not in document().partition("<style>")[2]
