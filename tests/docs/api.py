"""What packages export, from their docstrings, and the rooms of the code in a line each."""

import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType

import dgviz

SECTIONS = "Parameters", "Returns", "Yields", "Raises", "Attributes", "Examples", "Notes", "See Also", "References"
LEFT_OUT = "dgviz.app"
"""Entry points of a page each, not an interface."""


def packages() -> Iterator[str]:
    """Yield the names of all packages, rooms before what is in them."""
    yield from (found.name for found in pkgutil.walk_packages(dgviz.__path__, "dgviz.") if found.ispkg)


def first_line(name: str) -> str:
    """Return the first line of a module's docstring, from its source: nothing is imported."""
    spec = importlib.util.find_spec(name)
    return _literals(re.match(r'[a-z]*"""(.*?)(?:"""|\n)', spec.loader.get_source(name))[1])


def rooms() -> str:
    """Return every package and every module beside them, in a line each."""
    named = [found.name for found in pkgutil.iter_modules(dgviz.__path__, "dgviz.") if not found.ispkg]
    names = [name for name in sorted([*packages(), *named]) if not name.endswith("__main__")]
    shown = [
        (f"{'  ' * name.count('.')}{name.rpartition('.')[2]}{_suffix(name)}", first_line(name)) for name in names
    ]
    width = max(len(name) for name, _ in shown)
    return "```\ndgviz/\n" + "\n".join(f"{name:{width}}  {line}" for name, line in shown) + "\n```"


def _suffix(name: str) -> str:
    return "/" if importlib.util.find_spec(name).submodule_search_locations else ".py"


def api_page() -> str:
    """Return what every package exports; of one that exports nothing, its modules."""
    parts = [
        "What the packages' `__init__` export is the interface between rooms; other modules are imported by their "
        "own name. [Design](design.md) says which room may import which."
    ]
    for name in ("dgviz", *packages()):
        if name.startswith(LEFT_OUT):
            continue
        module = importlib.import_module(name)
        parts.append(f"## {name}\n\n{inspect.getdoc(module)}")
        if name != "dgviz":  # whose modules are in the design
            parts.append("\n".join(f"- `{found.name}`: {first_line(found.name)}" for found in _modules(module)))
        parts += [_export(module, public) for public in getattr(module, "__all__", ())]
    return "\n\n".join(filter(None, parts))


def _modules(package: ModuleType) -> list[pkgutil.ModuleInfo]:
    return [found for found in pkgutil.iter_modules(package.__path__, package.__name__ + ".") if not found.ispkg]


def _export(module: ModuleType, name: str) -> str:
    """Return one export: its signature and docstring; a value has a line of its own."""
    value = getattr(module, name)
    if inspect.ismodule(value):
        return f"### {name}\n\n{inspect.getdoc(value)}"
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f"### {name}\n\n`{type(value).__name__}` in `{module.__name__}`."
    signature = f"{name}{_signature(value)}"
    parts = [f"### {name}", f"```\n{signature}\n```", render(inspect.getdoc(value) or "")]
    for method, member in vars(value).items() if inspect.isclass(value) else ():
        member = getattr(member, "__func__", member)
        if inspect.isfunction(member) and not method.startswith("_") and member.__doc__:
            parts.append(f"**{method}**`{_signature(member)}`: {inspect.getdoc(member).split(chr(10) * 2)[0]}")
    return "\n\n".join(parts)


def _signature(value: object) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(...)"
    text = re.sub(r"\b(?:[a-z_]\w*\.)+([A-Z]\w*)", r"\1", str(signature))  # annotations without their modules
    return re.sub(r" at 0x[0-9a-f]+", "", text).replace("'", "")


def render(docstring: str) -> str:
    """Return a numpydoc docstring as Markdown."""
    head, *rest = re.split(rf"^({'|'.join(SECTIONS)})\n-+\n", docstring, flags=re.MULTILINE)
    parts = [_literals(head.strip())]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        body = body.strip("\n")
        parts.append(f"**{title}**")
        if title == "Examples":
            parts.append(f"```pycon\n{body}\n```")
        elif title in ("Notes", "See Also", "References"):
            parts.append(_literals(body))
        else:
            parts.append("\n".join(map(_entry, re.split(r"\n(?=\S)", body))))
    return "\n\n".join(filter(None, parts))


def _entry(text: str) -> str:
    """Return one parameter, or whatever a section lists, as an item of a list."""
    head, _, body = text.partition("\n")
    return f"- `{head}`" + (f": {_literals(' '.join(textwrap.dedent(body).split()))}" if body.strip() else "")


def _literals(text: str) -> str:
    return text.replace("``", "`")
