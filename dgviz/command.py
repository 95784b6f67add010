"""A dgviz command as a value, and the command line's grammar as data.

Pages, messages and cards print a `Command`, jobs run one, and the command line reads its arguments by the same
`GRAMMAR`, so that what is printed can be typed. Texts in braces, as in ``{rules}``, are filled in by whoever knows
the names that are registered.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from dgviz.errors import CommandError
from dgviz.files import PAGE, PICTURE, check_ending
from dgviz.words import exact_number, near

_MODULE = "python", "-m", "dgviz"
# As it was started: by its own name there need not be a `python` that has it.
_START = ("dgviz",) if Path(sys.argv[0]).name == "dgviz" else _MODULE
_ONE_SLASH = re.compile(r"\A(hf|https?|s3|gs):/(?!/)")


@dataclass(frozen=True)
class Argument:
    """One argument of a command.

    Attributes
    ----------
    flag : str
        ``base`` for one that is told by its position, ``--rule-param`` for one that is told by its name.
    metavar, help : str
        What the help calls it and says of it.
    kind : type
        bool for a switch, else str, int or float; of `form` ``"pairs"`` what the values are.
    default : any
        What a command that leaves it out means.
    form : str
        ``"one"`` value; an ``"optional"`` position; ``"many"`` by repeating it, or at one position; a ``"list"`` with
        commas between; ``"pairs"`` NAME=VALUE by repeating it.
    choices : tuple of str
        The only values there are, where they are few.
    required : bool
        Whether an argument with a name must be given.
    instead : str
        Name of the set of arguments of which only one can be given.
    short : str
        Another flag of one letter.
    writes : tuple of str
        Of one that names a file to be written: what its name may end in; ``/`` of a folder.
    """

    flag: str
    metavar: str | None = None
    help: str = ""
    kind: type = str
    default: Any = None
    form: Literal["one", "optional", "many", "list", "pairs"] = "one"
    choices: tuple[str, ...] | None = None
    required: bool = False
    instead: str = ""
    short: str = ""
    writes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The attribute of the parsed options."""
        return self.flag.lstrip("-").replace("-", "_")

    @property
    def flags(self) -> list[str]:
        """What it can be told by."""
        return [*filter(None, (self.short, self.flag))]

    @property
    def positional(self) -> bool:
        """Whether it is told by its position."""
        return not self.flag.startswith("-")

    @property
    def needed(self) -> bool:
        """Whether a command without it is none."""
        return self.required or (self.positional and self.form != "optional")

    def normal(self, value: Any) -> Any:
        """Return a value as parsing gives it; None for one that says nothing or the default."""
        if value is None or value is False or value == "" or value == () or value == [] or value == {}:
            return None
        if self.form == "pairs":
            return {name: _number(item) if self.kind is float else str(item) for name, item in dict(value).items()}
        if self.form in ("many", "list"):
            value = tuple(map(_text, value.split(",") if isinstance(value, str) else value))
        elif self.kind is not bool:
            value = _text(value) if isinstance(value, Path) else self.kind(value)
        return None if value == self.default else value

    def words(self, value: Any) -> list[str]:
        """Return the words that give a normal value."""
        if self.kind is bool:
            return [self.flag]
        if self.form == "pairs":
            given = [f"{name}={_text(item)}" for name, item in value.items()]
        elif self.form == "list":
            given = [",".join(value)]
        else:
            given = [_text(item) for item in (value if self.form == "many" else [value])]
        if self.positional:
            return given
        return [word for text in given for word in _named(self.flag, text)]

    def add_to(self, parser: Any, fill: Mapping[str, str]) -> None:
        """Add the argument to a parser of the command line."""
        text = self.help
        for name, words in fill.items():
            text = text.replace("{" + name + "}", words)
        options: dict[str, Any] = {"help": text.replace("%", "%%")}
        if self.kind is bool:
            parser.add_argument(*self.flags, action="store_true", **options)
            return
        options |= {"metavar": self.metavar, "default": self.default, "choices": self.choices, "type": self.kind}
        if self.form == "pairs":
            options |= {"action": _Pairs, "default": {}, "type": str}
        elif self.form == "list":
            options["type"] = _listed
        elif self.form == "many":
            options |= {"nargs": "+"} if self.positional else {"action": "append", "default": []}
        elif self.form == "optional":
            options["nargs"] = "?"
        if self.required:
            options["required"] = True
        parser.add_argument(*self.flags, **options)


@dataclass(frozen=True)
class Form:
    """What a command takes.

    Attributes
    ----------
    name, help : str
        What is typed and what it does.
    group : str
        Under which heading the help lists it.
    arguments : tuple of Argument
        In the order in which a command is printed.
    """

    name: str
    help: str
    group: str
    arguments: tuple[Argument, ...]

    def outputs(self, options: argparse.Namespace) -> list[Path]:
        """Return the files and folders to be written that options name.

        Raises
        ------
        ExportError
            If the name of a file ends in something else than what is written to it.
        """
        found = []
        for argument in self.arguments:
            given = getattr(options, argument.name) if argument.writes else None
            if given:
                path = Path(given).expanduser()
                found.append(path if argument.writes == _FOLDER else check_ending(path, argument.writes))
        return found

    def parser(self, fill: Mapping[str, str] | None = None, notes: str = "") -> argparse.ArgumentParser:
        """Return the command line's parser of this command.

        The names in braces are filled into its help, and notes stand below it.
        """
        about = self.help[0].upper() + self.help[1:] + "."
        kind = argparse.RawDescriptionHelpFormatter
        parser = _Parser(prog=f"dgviz {self.name}", description=about, epilog=notes or None, formatter_class=kind)
        self.add_to(parser, fill or {})
        return parser

    def add_to(self, parser: argparse.ArgumentParser, fill: Mapping[str, str]) -> None:
        """Add all arguments to a parser, those of one section of the help beside each other."""
        sections: dict[str, Any] = {}
        sets: dict[str, Any] = {}
        for argument in (*self.arguments, *COMMON):
            title = "what it takes" if argument.positional else SECTIONS.get(argument.flag, "options")
            place = sections.get(title) or sections.setdefault(title, parser.add_argument_group(title))
            if argument.instead:
                place = sets.get(argument.instead) or sets.setdefault(
                    argument.instead, place.add_mutually_exclusive_group()
                )
            argument.add_to(place, fill)


class _Parser(argparse.ArgumentParser):
    """A parser that complains by an exception."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint, with options like one that there is not."""
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        known = [flag for action in self._actions for flag in action.option_strings]
        alike = near(unknown[1], known) if unknown else ""
        raise CommandError(f"{message}{f'{alike} See' if alike else '; see'} {self.prog} --help")


class _Pairs(argparse.Action):
    """Collects NAME=VALUE."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add one pair to those before it."""
        name, equals, value = values.partition("=")
        if not (name and equals):
            parser.error(f"{option_string} takes NAME=VALUE; got {values!r}")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), name: value})


def _listed(text: str) -> tuple[str, ...]:
    """Return the items of a list with commas between."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _number(value: Any) -> Any:
    """Return a number, also one that is given as text; text that is none as it is."""
    for kind in (int, float) if isinstance(value, str) else ():
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _text(value: Any) -> str:
    """Return a value as it is typed; numbers read back as they are, and addresses get the slash that paths lose."""
    return exact_number(value) if isinstance(value, int | float) else _ONE_SLASH.sub(r"\1://", str(value))


def _named(flag: str, text: str) -> list[str]:
    """Return an option and its value as words: one word where the value would pass for an option."""
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


@dataclass(frozen=True)
class Command:
    """A dgviz command.

    Parameters
    ----------
    name : str
        One of `GRAMMAR`.
    **given : any
        Its arguments by name, dashes as underscores: text, paths, numbers, sequences, mappings for NAME=VALUE. What
        is None, empty, False or as by default is left out.

    Examples
    --------
    >>> command = Command("scan", base="a b", tuned="c", rule="flip_pa", rule_param={"seed": 123456789})
    >>> print(command)
    python -m dgviz scan 'a b' c --rule flip_pa --rule-param seed=123456789
    >>> Command.parse(str(command)) == command
    True
    """

    name: str
    given: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, name: str, /, **given: Any) -> None:
        arguments = {argument.name: argument for argument in find_form(name).arguments}
        unknown = given.keys() - arguments.keys()
        if unknown:
            raise CommandError(f"{name} has no argument {sorted(unknown)[0]!r}; it takes {', '.join(arguments)}")
        normal = {key: argument.normal(given.get(key)) for key, argument in arguments.items()}
        lacking = [key for key, argument in arguments.items() if argument.needed and normal[key] is None]
        if lacking:
            raise CommandError(f"{name} needs {', '.join(lacking)}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "given", {key: value for key, value in normal.items() if value is not None})

    @classmethod
    def parse(cls, words: str | Sequence[str]) -> Self:
        """Return the command that was typed, with or without ``python -m dgviz`` before it.

        Parameters
        ----------
        words : str or sequence of str
            As typed at a shell, or split already.

        Raises
        ------
        CommandError
            If there is no such command, or it does not take these arguments.
        """
        words = shlex.split(words) if isinstance(words, str) else list(words)
        if words[1:3] == ["-m", "dgviz"]:
            words = words[3:]
        elif words[:1] == ["dgviz"]:
            words = words[1:]
        if not words:
            raise CommandError("no command is named; see dgviz --help")
        form = find_form(words[0])
        given = vars(form.parser().parse_args(words[1:]))
        return cls(words[0], **{argument.name: given[argument.name] for argument in form.arguments})

    @property
    def words(self) -> list[str]:
        """The command's name and arguments, a word each."""
        form = find_form(self.name)
        given = [(argument, self.given[argument.name]) for argument in form.arguments if argument.name in self.given]
        positions = [word for argument, value in given if argument.positional for word in argument.words(value)]
        options = [word for argument, value in given if not argument.positional for word in argument.words(value)]
        if any(word.startswith("-") for word in positions):
            return [self.name, *options, "--", *positions]
        return [self.name, *positions, *options]

    @property
    def start(self) -> list[str]:
        """What starts it as a process of its own."""
        return [sys.executable, *_MODULE[1:], *self.words]

    def __str__(self) -> str:
        """Return it as one types it at a shell, in the way that this process was started."""
        return shlex.join([*_START, *self.words])

    @property
    def lasting(self) -> str:
        """What is written into files: the same however this process was started."""
        return shlex.join([*_MODULE, *self.words])


def option(flag: str, value: Any = None) -> str:
    """Return one option as one types it at a shell: ``--exclude 'a b'``.

    Raises
    ------
    CommandError
        If no command has it.
    """
    known = (argument for form in GRAMMAR.values() for argument in (*form.arguments, *COMMON))
    if not any(argument.flag == flag for argument in known):
        raise CommandError(f"no command takes {flag}")
    return shlex.join([flag] if value is None else _named(flag, _text(value)))


def find_form(name: str) -> Form:
    """Return what the command of that name takes."""
    if name not in GRAMMAR:
        alike = near(name, GRAMMAR)
        hint = f"{alike} See" if alike else f"; there are {', '.join(GRAMMAR)}; see"
        raise CommandError(f"there is no command {name!r}{hint} dgviz --help")
    return GRAMMAR[name]


def overview() -> str:
    """Return every command by group, a line each."""
    width = max(map(len, GRAMMAR))
    lines: list[str] = []
    for group in dict.fromkeys(form.group for form in GRAMMAR.values()):
        own = [form for form in GRAMMAR.values() if form.group == group]
        lines += [f"{group}:", *(f"  {form.name:{width}}  {form.help}" for form in own), ""]
    return "\n".join(lines)


def _switch(flag: str, help: str, **more: Any) -> Argument:
    return Argument(flag, help=help, kind=bool, default=False, **more)


_BASE = Argument("base", "BASE", "checkpoint before fine-tuning")
_TUNED = Argument("tuned", "TUNED", "checkpoint after fine-tuning")
_NAMES = (
    Argument("--include", "RE", "repair only tensors whose name matches"),
    Argument("--exclude", "RE", "keep tuned's bytes of tensors whose name matches"),
)
_FORCE = _switch(
    "--force",
    "repair although base and tuned have nothing in common, or tensors that differ in shape have to stay tuned's",
)
_JSON = _switch("--json", "machine-readable result on standard output")
_DEVICE = Argument("--device", "D", "auto, cpu, cuda, cuda:1 ...", default="auto")
_WORKERS = Argument("--workers", "N", "processes; default one per GPU, or core where the work is worth it", kind=int)
_RAY = Argument("--ray", "ADDRESS", "compute on a Ray cluster: HOST:PORT, auto for this node's, local to start one")
_DTYPE = Argument("--dtype", help="of the output", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
_RULE = (
    Argument("--rule", "R", "threshold rule: {rules}", default="dg_hard"),
    Argument("--rule-param", "K=V", "a parameter of the rule, e.g. scale=1.2", kind=float, form="pairs"),
)
_PLAN = (
    Argument("--plan", "FILE", "take the plan from there: one of its own, or an export's dgviz.json"),
    Argument(
        "--override",
        "O",
        "what some weights get instead, e.g. 'layers=3-7: factor=0.47' or 'lm_head: keep=tuned'; later ones win",
        form="many",
    ),
)
_METHOD = (
    Argument("--method", "M", "repair method: {methods}", default="dg_hard"),
    Argument("--param", "K=V", "a parameter of the method, e.g. alpha=0.5", kind=float, form="pairs"),
    Argument("--shrinker", "S", "of kept values: {shrinkers}", default="hard"),
)
_LIST = "methods with commas between, each with its settings: wise_ft:alpha=0.3,dg_hard:shrinker=frobenius"
_METHODS = Argument("--methods", "LIST", f"{_LIST}; default: all", form="list")
_SAVE = Argument("--save", "FILE", "also write the result there, as JSON", writes=(".json",))
_EVALUATE = (
    Argument("--tasks", "A,B", "tasks or groups, by the harness's names", default=(), form="list"),
    Argument("--backend", "B", "{backends} (default hf)", default="hf"),
    Argument("--task-path", "DIR", "folder of task files of your own; they may hold code"),
    Argument("--limit", "N", "only N examples of every task, to try out", kind=int),
    Argument("--shots", "N", "worked examples; default the task's own", kind=int),
    _switch("--chat", "put questions through the chat template"),
    Argument("--batch-size", "N", "default 1; or auto", default="1"),
    Argument("--model-arg", "K=V", "of the harness's model, e.g. dtype=bfloat16 or enforce_eager=true", form="pairs"),
    Argument("--gen-arg", "K=V", "of its generation, e.g. temperature=0", form="pairs"),
    _DEVICE,
)
_METRIC = Argument(
    "--metric", "BENCHMARK=METRIC", "which metric of several is meant; A+B is their mean", form="pairs"
)
_PAIR = (_BASE, _TUNED)
_FOLDER = ("/",)
COMMON = (
    _switch("--quiet", "no bars, notes and warnings on standard error; errors are said", short="-q"),
    Argument(
        "--log-level",
        "L",
        "error, warning (default), info: a line per step in place of bars, or debug: also where an error came from",
        default="warning",
        choices=("error", "warning", "info", "debug"),
    ),
)
"""What every command takes: how much it says on the way, which is no part of the command as a value."""
SECTIONS = (
    dict.fromkeys(("--include", "--exclude", "--weight"), "which tensors")
    | dict.fromkeys(("--rule", "--rule-param", "--rules"), "threshold")
    | dict.fromkeys(("--method", "--methods", "--param", "--shrinker"), "method")
    | dict.fromkeys(("--plan", "--override"), "plan")
    | dict.fromkeys(("--device", "--workers", "--machines", "--on", "--line"), "where it is computed")
    | dict.fromkeys(("--json", "--csv", "--save", "--out", "--files", "--figure", "--tables"), "what is written")
    | {argument.flag: "what is said on the way" for argument in COMMON}
)
"""Under which heading of a command's help an option stands; the others are its own."""
_SHOWN = (*_NAMES, _JSON)


def _forms(group: str, *forms: tuple[str, str, Iterable[Argument]]) -> dict[str, Form]:
    return {name: Form(name, help, group, tuple(arguments)) for name, help, arguments in forms}


GRAMMAR: dict[str, Form] = {
    **_forms(
        "Open and look",
        (
            "fetch",
            "a model of the Hugging Face Hub, into its cache",
            (
                Argument("model", "ORG/NAME[@REVISION]", "hub id; the revision is a branch, tag or commit"),
                _switch("--plan", "only show what would be fetched"),
                _JSON,
            ),
        ),
        ("inspect", "what would happen to every tensor of a pair", (*_PAIR, *_SHOWN)),
        (
            "plan",
            "how long a scan and a repair of a pair will take, and what they need, from its headers alone",
            (
                *_PAIR,
                *_SHOWN,
                Argument("--on", "P", "cpu: this machine's cores, measured (default); h100: on paper", default="cpu"),
                Argument("--workers", "N", "processes or GPUs of a machine; default one per core, or one", kind=int),
                Argument(
                    "--machines", "N", "alike, with one store, each with its part of the pair", kind=int, default=1
                ),
                Argument(
                    "--line", "SIZE", "bytes a second to and from the pair, e.g. 100MB (default 1GB)", default="1GB"
                ),
            ),
        ),
        (
            "spectrum",
            "singular values and threshold of one weight's update",
            (
                *_PAIR,
                Argument("tensor", "TENSOR", "name of a tensor in both checkpoints; TENSOR[3] is one of a stack"),
                Argument(
                    "--figure", "FILE", "also draw Figure 4 of it there, .svg or .png", default="", writes=PICTURE
                ),
                Argument("--lens", "DIRECTIONS", "read these, as in 1-3+20, through base's vocabulary", default=""),
                *_SHOWN,
                *_RULE,
                *_PLAN,
                _DEVICE,
            ),
        ),
        (
            "scan",
            "spectrum and figures of every weight's update, into the store",
            (
                *_PAIR,
                *_SHOWN,
                *_RULE,
                *_PLAN,
                _DEVICE,
                Argument("--workers", "N", "processes; default one per core, or one per GPU", kind=int),
                _RAY,
            ),
        ),
        (
            "noise",
            "noise per class of weight and per third of the depth, after a scan",
            (*_PAIR, *_SHOWN, *_RULE, *_PLAN, _DEVICE, _switch("--csv", "the same as CSV on standard output")),
        ),
        (
            "thresholds",
            "threshold rules side by side over the model, after a scan",
            (
                *_PAIR,
                *_SHOWN,
                Argument(
                    "--rules",
                    "LIST",
                    "rules with commas between, each with its settings: dg_hard:scale=1.2,energy:fraction=0.8,"
                    "mp_edge:shrinker=frobenius; there are {rules}",
                    default=("dg_hard", "reference", "mp_edge", "energy"),
                    form="list",
                ),
                *_PLAN,
            ),
        ),
        (
            "report",
            "verdict, map, tables, Figure 4 and plan as one file to read, print and send; scans first",
            (
                *_PAIR,
                Argument("--out", "FILE", "the report, one HTML file", short="-o", required=True, writes=PAGE),
                Argument(
                    "--weight", "NAME", "draw Figure 4 of it; default: the three of the largest update", form="many"
                ),
                Argument("--evidence", "FILE", "scores that recovery --json has assessed, as a part of it"),
                Argument("--against", "FILE", "another report's --save: also say what differs"),
                Argument(
                    "--files",
                    "DIR",
                    "also write figures as SVG and PNG, tables as CSV and Parquet, there",
                    writes=_FOLDER,
                ),
                *_SHOWN,
                *_RULE,
                *_PLAN,
                _DEVICE,
                Argument("--workers", "N", "processes of the scan", kind=int),
                _SAVE,
            ),
        ),
        (
            "family",
            "several tuned checkpoints of one base side by side; scans first",
            (
                _BASE,
                Argument("tuned", "TUNED", "checkpoints after fine-tuning, two or more", form="many"),
                Argument("--names", "LIST", "what to call them, with commas between; default: folders"),
                Argument("--include", "RE", "compare only tensors whose name matches"),
                Argument("--exclude", "RE", "leave out tensors whose name matches"),
                *_RULE,
                *_PLAN,
                _DEVICE,
                Argument("--workers", "N", "processes of the scans, as for scan", kind=int),
                _switch("--json", _JSON.help, instead="output"),
                _switch("--csv", "the figures of every checkpoint as CSV", instead="output"),
                _SAVE,
            ),
        ),
    ),
    **_forms(
        "Repair",
        (
            "repair",
            "write the repaired checkpoint",
            (
                *_PAIR,
                Argument("out", "OUT", "output folder, new or empty"),
                *_RULE,
                *_PLAN,
                *_METHOD,
                *_NAMES,
                _DTYPE,
                Argument("--format", help="{formats}", default="full", choices=("full", "lora", "factors")),
                _FORCE,
                _switch("--allow-code", "carry *.py files over; they are never run here"),
                _switch("--check-logits", "compare the output's logits however much memory it takes"),
                Argument(
                    "--base-name", "ORG/NAME", "what base is called on the hub, for card and adapter", default=""
                ),
                Argument("--push-to", "ORG/NAME", "upload the finished output to the hub", default=""),
                _switch("--private", "with --push-to: visible to its members only"),
                _DEVICE,
                _WORKERS,
                _RAY,
                _JSON,
            ),
        ),
        (
            "repair-all",
            "several methods' checkpoints in one read of the pair",
            (
                *_PAIR,
                Argument("directory", "DIR", "a folder in it for every method, named after it"),
                *_SHOWN,
                Argument("--methods", "LIST", _LIST, form="list", required=True),
                *_PLAN,
                _FORCE,
                _DTYPE,
                _DEVICE,
                _WORKERS,
                _RAY,
            ),
        ),
        (
            "compare-methods",
            "measure what every method would write, and write nothing",
            (*_PAIR, *_SHOWN, _METHODS, *_PLAN, _DTYPE, _DEVICE, _WORKERS, _RAY, _SAVE),
        ),
        (
            "sweep",
            "measure methods at every strength; writes no checkpoint",
            (
                *_PAIR,
                *_SHOWN,
                _METHODS,
                *_PLAN,
                _DTYPE,
                _DEVICE,
                _WORKERS,
                _RAY,
                Argument("--parameter", "P", "strength to sweep; default: the first of each method"),
                Argument(
                    "--evaluate",
                    help="score every point: demo, for checkpoints of the demo",
                    choices=("demo",),
                    instead="scores",
                ),
                Argument(
                    "--scores",
                    "PATH",
                    "scores of your own (as `recovery` takes them; may be given several times) of base, tuned and of "
                    "models named as the points are; with --on-task",
                    form="many",
                    instead="scores",
                ),
                Argument("--on-task", "BENCHMARK", "with --scores: the target; the mean of the others is held out"),
                _SAVE,
            ),
        ),
        (
            "fit",
            "a plan fitted to texts that base and tuned write themselves (experimental)",
            (
                *_PAIR,
                Argument(
                    "out", "PLAN", "JSON file of the plan; a run that was stopped goes on from it", writes=(".json",)
                ),
                Argument("--keep", "PERCENT", "of the target (default 95)", kind=float, default=95.0),
                _switch("--split", "two scales a matrix, above and below DG-Hard's tau, in place of one"),
                Argument("--seed", "N", "of the texts", kind=int, default=0),
                Argument("--samples", "N", "texts of either side (default 48)", kind=int, default=48),
                Argument("--length", "N", "tokens of a text (default 96)", kind=int, default=96),
                Argument("--steps", "N", "of Adam at the first strength (default 50)", kind=int, default=50),
                Argument("--mask-token", "N", "of a masked model whose config does not say it", kind=int),
                _DEVICE,
                _JSON,
            ),
        ),
        (
            "push",
            "upload a finished output to the Hugging Face Hub",
            (
                Argument("out", "OUT", "what repair has written"),
                Argument("repository", "ORG/NAME", "a new or empty repository"),
                _switch("--private", "visible to its members only"),
                _JSON,
            ),
        ),
    ),
    **_forms(
        "Judge",
        (
            "evaluate",
            "score a checkpoint on benchmarks, for `recovery`",
            (
                Argument("model", "MODEL", "checkpoint with its tokenizer"),
                *_EVALUATE,
                Argument("--name", "NAME", "what to call the model; default its folder", default=""),
                Argument("--out", "DIR", "folder of results (default results)", default="results"),
                _JSON,
            ),
        ),
        (
            "calibrate",
            "train, repair and score the pairs that the forecast is made from; takes long",
            (
                Argument("directory", "DIR", "of the pairs and their table; what a stopped run left there goes on"),
                Argument("--pairs", "RE", "only pairs whose name matches"),
                Argument("--methods", "", "every repair method, on the pairs that lie there", kind=bool),
                Argument("--workers", "N", "processes, of one thread each", kind=int, default=1),
                _RAY,
                Argument("--steps", "N", "at most so many steps of every training, to try it out", kind=int),
                Argument(
                    "--fits", "SEEDS", "instead judge `fit` on the language models, with so many seeds", kind=int
                ),
                _JSON,
            ),
        ),
        (
            "layer-masks",
            "repair only parts of the layers, score each and tabulate; goes on where it was stopped",
            (
                *_PAIR,
                Argument(
                    "directory", "DIR", "of scores and tables; what a stopped run left there goes on", writes=_FOLDER
                ),
                Argument("--on-task", "BENCHMARK", "what fine-tuning was for", default=""),
                *_EVALUATE,
                Argument(
                    "--scorer",
                    "COMMAND",
                    "your own, in place of --tasks: {model} is the checkpoint's folder, {out} the one for its scores",
                    default="",
                ),
                _METRIC,
                Argument("--masks", "LIST", "only these; default: thirds, classes, and all but each", form="list"),
                _switch("--keep", "keep the checkpoints that were scored"),
                *_RULE,
                *_PLAN,
                *_METHOD,
                *_NAMES,
                _FORCE,
                _DTYPE,
                _JSON,
            ),
        ),
        (
            "study",
            "a study that names what is to be scored: the paper's as a file, and what of it is missing",
            (
                Argument("study", "FILE", "study file, for `recovery --study`"),
                Argument("--scores", "SCORES", "what there is, as `recovery` takes it", form="many"),
                _switch("--new", "write the paper's study there, to be filled in"),
                _JSON,
            ),
        ),
        (
            "recovery",
            "what a repair healed and preserved, from benchmark scores",
            (
                Argument(
                    "scores",
                    "SCORES",
                    "lm-evaluation-harness results, CSV or scores.json, or a folder of them; NAME=PATH names the "
                    "model",
                    form="many",
                ),
                Argument("--base", "NAME", "model before fine-tuning", default=""),
                Argument("--tuned", "NAME", "model after fine-tuning", default=""),
                Argument("--on-task", "BENCHMARK", "what fine-tuning was for; CELL=BENCHMARK", form="many"),
                Argument("--repaired", "NAME", "a repaired model; default all other models", form="many"),
                Argument("--study", "FILE", "JSON that names cells, cohorts and directions"),
                Argument("--cell", "NAME", "only this cell; default all", form="many"),
                _METRIC,
                Argument("--cohort", "NAME=A,B", "benchmarks or cells looked at together", form="pairs"),
                Argument("--lower-is-better", "BENCHMARK", "of which less is better", form="many"),
                Argument("--benchmarks", "A,B", "only these, members of groups included", default=(), form="list"),
                Argument(
                    "--tolerance",
                    "T",
                    "difference that counts as none, in units of the score (default 0.01); BENCHMARK=T for one of "
                    "them",
                    form="many",
                ),
                Argument("--z", "Z", "at least so many standard errors (default 1.96)", kind=float, default=1.96),
                Argument("--average", "A", "over benchmarks: {averages}", default="mean"),
                Argument("--combine", "C", "of two sides: {combinations}", default="harmonic"),
                Argument("--tables", "DIR", "also write the paper's tables (CSV, LaTeX, Markdown) and figures there"),
                Argument("--bootstrap", "N", "replicates (default 2000)", kind=int, default=2000),
                Argument("--seed", "N", "of the bootstrap", kind=int, default=0),
                _JSON,
            ),
        ),
    ),
    **_forms(
        "Start",
        (
            "app",
            "open the dashboard in the browser",
            (
                Argument("base", "BASE", "base checkpoint to open it on (default: the demo)", form="optional"),
                Argument("tuned", "TUNED", "its fine-tuned descendant", form="optional"),
                Argument("--port", "N", "port to listen on (default: the first free one from 8501)", kind=int),
                Argument("--address", "IP", "address to listen at, e.g. 0.0.0.0 in a container", default="127.0.0.1"),
                _switch("--no-browser", "print the address and open no browser"),
                Argument(
                    "--allow-host", "NAME", "a host name that browsers reach it by, without the port", form="many"
                ),
                _switch("--no-token", "let in whoever reaches the port: for a proxy in front that knows its people"),
                Argument(
                    "--frame-ancestors", "ORIGIN", "with --no-token: the origin whose pages may embed it", default=""
                ),
            ),
        ),
        (
            "cache",
            "what is remembered of earlier work, and how much of it",
            (
                Argument(
                    "action",
                    "ACTION",
                    "show (default) how much there is, clear spectra and hashes, or limit the spectra to SIZE",
                    default="show",
                    form="optional",
                    choices=("show", "clear", "limit"),
                ),
                Argument("size", "SIZE", "with limit: bytes, or 500MB, 50GiB, 2TB", form="optional"),
                _JSON,
            ),
        ),
        (
            "completion",
            "a script that completes commands and options in a shell",
            (Argument("shell", "SHELL", "bash, zsh or tcsh", choices=("bash", "zsh", "tcsh")),),
        ),
        (
            "demo",
            "write the built-in pair out",
            (
                Argument("directory", "DIR", "new or empty folder"),
                _switch("--train", "train the checkpoints again instead of copying them", instead="content"),
                _switch("--scores", "score the checkpoints and all repairs again", instead="content"),
                _switch("--figure4", "one 8192 x 3072 weight with 30 planted directions", instead="content"),
                _JSON,
            ),
        ),
    ),
}
"""Every command by its name, in the order of the help."""
