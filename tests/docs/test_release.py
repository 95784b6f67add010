"""A release says the same version everywhere."""

import re
from pathlib import Path

import pytest

import dgviz

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("CITATION.cff", r"^version: (.+)$"),
        ("CHANGELOG.md", r"^## (\d[\d.]*) - \d{4}-\d\d-\d\d$"),
        ("README.md", r"version = \{(.+)\}"),
        ("docs/how-to/install.md", r"dgviz-([\d.]+)-py3-none-any\.whl"),
    ],
)
def test_the_version_is_that_of_the_package(name, pattern):
    found = re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert found and found[0] == dgviz.__version__


def test_the_citation_has_the_date_of_the_changelog():
    (dated, *_) = re.findall(
        rf"^## {re.escape(dgviz.__version__)} - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert f'date-released: "{dated}"' in (ROOT / "CITATION.cff").read_text()
