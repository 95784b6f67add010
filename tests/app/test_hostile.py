"""Names that somebody else has chosen: of tensors, folders, models and benchmarks, and whatever a link says."""

import dataclasses
import re

import pytest
import torch

from dgviz.app.family import join_others
from dgviz.app.messages import code_span, plain
from dgviz.app.recents import note_opened
from dgviz.app.state import View
from dgviz.checkpoint import open_pair
from dgviz.figures.style import as_text
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.app.pages import open_at
from tests.checkpoints import write_checkpoint

HOST = "elsewhere.invalid"
NAME = (
    f'![x](http://{HOST}/p)<a href="http://{HOST}">*y*</a><img src=x>:red[z]$a$`b` http://{HOST} www.{HOST} a@{HOST}'
)
FOLDER = NAME.replace("/", "_")
PAGES = ("open", "workbench", "evidence", "workbench?plan=open")
PAGES += tuple(
    f"workbench?show={show}" for show in ("spectrum", "rules", "methods", "model", "family", "model-rules")
)
MARKED = ("body", "label", "help", "text", "caption")
"""Fields that the browser reads as Markdown, of all elements but those of `LITERAL`."""
LITERAL = ("Text", "Code", "Json")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Base and two fine-tunes with such names; every spectrum is stored."""
    folder, generator = tmp_path_factory.mktemp("pair"), torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    base = {f"model.layers.{number}.{NAME}.weight": noise(64, 48) for number in range(2)}
    paths = [write_checkpoint(folder / f"{FOLDER}-base", base)]
    for side in ("tuned", "other"):
        moved = {name: value + 0.1 * noise(64, 48) + noise(64, 1) @ noise(1, 48) for name, value in base.items()}
        paths.append(write_checkpoint(folder / f"{FOLDER}-{side}", moved, {"architectures": [NAME]}))
        for weight in weights_of(open_pair(paths[0], paths[-1])):
            OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    return paths


def fields(message, path=""):
    """Yield every text of a message by its path."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value
        values = values.values() if hasattr(values, "values") else values
        for item in values if hasattr(values, "__iter__") else ():
            if isinstance(item, str):
                yield f"{path}.{field.name}", item
            elif hasattr(item, "ListFields"):
                yield from fields(item, f"{path}.{field.name}")


def elements(node):
    """Yield the kind of every element with its texts."""
    if getattr(node, "proto", None) is not None:
        yield from ((type(node).__name__, path, text) for path, text in fields(node.proto))
    for child in getattr(node, "children", {}).values():
        yield from elements(child)


def read_as_marks(text):
    """Return what Markdown would make more of than text."""
    text = re.sub(r"(?<!\\)(`+)(?!`).+?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)  # code
    return re.findall(r"(?<!\\)\[[xz]|(?<!\\)<(?:a|img)|http://|(?i:www\.)|\w@\w|(?<!\\)\$a", text)


def shown(app):
    """Return what the browser would not show as text."""
    found = []
    for kind, path, text in elements(app._tree):
        field = path.rpartition(".")[2]
        if field == "spec" and HOST in text:
            found += [(kind, path, tag) for tag in re.findall(r"<(?:a|img|script)\b", text)]
        elif field in MARKED and (kind not in LITERAL or field == "help"):
            found += [(kind, path, mark, text) for mark in read_as_marks(text)]
    return found


def test_the_check_finds_what_it_looks_for():
    assert len(read_as_marks(NAME)) >= 7 and read_as_marks(plain(NAME)) == [] == read_as_marks(code_span(NAME))
    assert read_as_marks("`one` `" + NAME.partition("`")[2]) and not read_as_marks(code_span("`" + NAME))
    assert re.findall("<(?!b>)", as_text(f"<b>{NAME}</b>")) == ["</b>"[0]] and "&lt;a href" in as_text(NAME)


@pytest.mark.parametrize("page", PAGES)
def test_names_in_a_checkpoint_are_shown_as_text(pair, page):
    base, tuned, other = pair
    weight = f"model.layers.1.{NAME}.weight"
    note_opened(str(base), str(other))
    app = open_at(page, base=base, tuned=tuned, weight=weight, others=join_others([str(other)]), tau="0.5")
    assert any(HOST in text for _, _, text in elements(app._tree)) and shown(app) == []


def test_names_in_scores_are_shown_as_text(tmp_path):
    rows = [f'{model},"{bench}",{score}' for model, score in (("base", 0.5), ("tuned", 0.4), ("spy", 0.45))
            for bench in ("target", NAME.replace('"', '""'))]  # fmt: skip
    quoted = NAME.replace('"', '""')
    (tmp_path / "scores.csv").write_text("\n".join(["model,benchmark,score", *rows]).replace("spy", f'"{quoted}"'))
    app = open_at("evidence", base="none")
    app.segmented_control(key="scores-source").set_value("path").run()
    app.text_input(key="scores-path").set_value(str(tmp_path / "scores.csv")).run()
    assert not app.exception and any(HOST in text for _, _, text in elements(app._tree)) and shown(app) == []


LINKS = (NAME, "\x00\x1b[31m\u202e", "nan", "1e999", "[" * 5000, '{"a":' * 500, "%7C|:,:", "x" * 10**6)
FIELDS = [
    field.name for field in dataclasses.fields(View) if field.name not in ("base", "tuned", "others", "show", "plan")
]


@pytest.mark.parametrize("value", LINKS, ids=range(len(LINKS)))
def test_whatever_a_link_says_is_shown_as_text_and_survived(pair, value):
    base, tuned, _ = pair
    for view in ({"plan": "open", **dict.fromkeys(FIELDS, value)}, {"show": value, "plan": value, "others": value}):
        app = open_at("workbench", base=base, tuned=tuned, **view)
        assert shown(app) == []
    assert shown(open_at("open", base=value, tuned=value, show=value)) == []
