"""The logs of Inspect: ``.json``, or the ``header.json`` inside an ``.eval`` archive.

``eval`` names task and model, ``results.scores`` has a row per scorer, and ``metrics`` in it the numbers, among them
the standard error of the others.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from dgviz.errors import ScoresError
from dgviz.scores.types import Score, ScoreTable, count, finite, objects

_SPREADS = ("stderr", "bootstrap_stderr")
_NO_SCORES = (*_SPREADS, "std", "var")
_HEADER = "header.json"
_MOST = 100_000_000  # bytes of it, unpacked


def is_archive(content: bytes) -> bool:
    """Return whether a file's content is a zip archive."""
    return content.startswith(b"PK\x03\x04")


def read_archive(content: bytes, source: str) -> bytes:
    """Return the header of an ``.eval`` archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(_HEADER) as stream:
            header = stream.read(_MOST + 1)
    except KeyError as error:
        raise ScoresError(
            f"{source} has no {_HEADER}: it is no finished log of Inspect; name a finished .eval or a JSON file"
        ) from error
    except NotImplementedError as error:
        raise ScoresError(
            f"{source} is compressed in a way that Python cannot read here ({error}): "
            f"name what `inspect log dump {source}` prints"
        ) from error
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error) as error:
        raise ScoresError(f"{source} cannot be read as a zip archive ({error}): fetch it again") from error
    if len(header) > _MOST:
        raise ScoresError(f"{source} has a {_HEADER} of more than {_MOST:,} bytes: it is no log of Inspect")
    return header


def is_inspect(content: Mapping[str, Any]) -> bool:
    """Return whether a JSON object looks like a log of Inspect."""
    spec = content.get("eval")
    return isinstance(spec, dict) and {"task", "model"} <= spec.keys() and "status" in content


def parse_inspect(content: Mapping[str, Any], source: str, model: str) -> ScoreTable:
    """Return every metric of every scorer."""
    spec, results = content["eval"], content.get("results")
    if content["status"] != "success" or not isinstance(results, dict):
        raise ScoresError(
            f"{source} is a log of Inspect that ended as {content['status']!r}: finish it by `inspect eval-retry`"
        )
    # A local model is called hf/local; where it lies is among its arguments.
    path = objects(spec).get("model_args", {}).get("model_path")
    scorers = list(_scorers(results))
    scores = []
    for scorer, row, prefix in scorers:
        metrics = {name: finite(item.get("value")) for name, item in objects(row.get("metrics")).items()}
        stderr = next((metrics[name] for name in _SPREADS if metrics.get(name) is not None), None)
        for name, value in metrics.items():
            if name in _NO_SCORES:
                continue
            scores.append(
                Score(
                    model=model or str(path or spec["model"]),
                    benchmark=str(spec["task"]),
                    value=value,
                    stderr=stderr,
                    n=count(row.get("scored_samples")) or count(results.get("completed_samples")),
                    metric=f"{scorer}/{name}" if prefix else name,
                    higher_is_better=True if name in ("accuracy", "mean") else None,
                    conditions=_conditions(spec),
                    source=source,
                )
            )
    if not scores:
        raise ScoresError(f"{source} holds no score: no scorer of this log of Inspect has a metric")
    unknown = dict.fromkeys(score.metric for score in scores if score.higher_is_better is None)
    notes = [f"{source} does not say whether higher is better; taken as higher: {name}" for name in unknown]
    return ScoreTable(tuple(scores), notes=tuple(notes))


def _scorers(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield scorers' names, their rows, and whether metrics need the name before them to be told apart."""
    rows = [row for row in results.get("scores") or [] if isinstance(row, dict)]
    if not rows and isinstance(results.get("metrics"), dict):  # the first version had one scorer
        rows = [{"name": "", "metrics": results["metrics"]}]
    for row in rows:
        reduced = f":{row['reducer']}" if row.get("reducer") and len(rows) > 1 else ""
        yield f"{row.get('name', '')}{reduced}", row, len(rows) > 1


def _conditions(spec: Mapping[str, Any]) -> str:
    """Return task version, limit and epochs: what makes two scores comparable."""
    config = objects(spec).get("config", {})
    said = [("limit", config.get("limit")), ("epochs", config.get("epochs"))]
    parts = [f"{name} {value}" for name, value in said if value is not None and (name, value) != ("epochs", 1)]
    version = spec.get("task_version")
    return ", ".join([*([f"task version {version}"] if version else []), *parts])
