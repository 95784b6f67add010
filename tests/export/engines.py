"""Inference engines in an environment of their own, build/engines, which `make engines` makes.

That environment sees the packages of .venv behind its own, so that torch is there once. Of llama-cpp-python the
sources are kept: its wheel leaves out the converters of llama.cpp.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("DGVIZ_ENGINES", ROOT / "build" / "engines"))
LINES = [line for line in (ROOT / "tests" / "engines.txt").read_text().splitlines() if line and line[0] != "#"]
PINS = {line.partition("==")[0].partition("[")[0]: line for line in LINES}
"""By package, the line of tests/engines.txt."""
PYTHON = HOME / "bin" / "python"
_SOURCES = HOME / "sources"
_PIP = [PYTHON, "-m", "pip"]


def install() -> None:
    """Install every engine that is not installed yet; of one that fails, keep why."""
    if not PYTHON.exists():
        venv.create(HOME, with_pip=True)
    own = _run([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    (Path(own) / "dgviz.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for package, line in PINS.items():
        done, failed = _record(package, "installed"), _record(package, "failed")
        if done.exists() and done.read_text() == line:
            continue
        failed.unlink(missing_ok=True)
        print(f"{line}: installing in {HOME}", flush=True)
        try:
            what = _fetched(line) if package == "llama-cpp-python" else line
            environment = {**os.environ, "CMAKE_ARGS": "-DLLAVA_BUILD=OFF"}
            _run([*_PIP, "install", what], env=environment)
            done.write_text(line)
        except EngineError as error:
            failed.write_text(str(error))
            print(f"{line}: {error}", file=sys.stderr)


def _fetched(line: str) -> Path:
    """Fetch the source distribution of a package, and return it unpacked."""
    place = _SOURCES / line
    shutil.rmtree(place, ignore_errors=True)
    _run([*_PIP, "download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", place, line])
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(place, filter="data")
    return _unpacked(line)


def _unpacked(line: str) -> Path:
    return next(folder for folder in (_SOURCES / line).iterdir() if folder.is_dir())


def _record(package: str, state: str) -> Path:
    return HOME / f"{package}.{state}"


class EngineError(Exception):
    """A command of another environment that failed, with the last line that it printed."""


def _run(command: list, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        said = [text for text in (done.stderr or done.stdout).splitlines() if text.strip()] or ["it said nothing"]
        raise EngineError(f"`{' '.join(map(str, command[1:4]))} ...` ended with {done.returncode}: {said[-1]}")
    return done.stdout


def why_missing(package: str) -> str:
    """Return why the engine of a package cannot be asked, empty where it can."""
    if not PYTHON.exists():
        return f"there are no engines in {HOME}: run `make engines`"
    failed = _record(package, "failed")
    if package and failed.exists():
        return f"{PINS[package]} cannot be installed here: {failed.read_text()}"
    done = _record(package, "installed")
    if package and not (done.exists() and done.read_text() == PINS[package]):
        return f"{PINS[package]} is not in {HOME}: run `make engines`"
    return ""


def logits(engine: str, model: Path, tokens: list[int], adapter: Path | None = None) -> np.ndarray:
    """Return what an engine makes of tokens, (tokens, vocabulary), in a process of its own."""
    out = model.parent / f"{model.name}-{engine}.npy"
    arguments = [engine, model, out, ",".join(map(str, tokens)), *([adapter] if adapter else [])]
    sources = [_unpacked(PINS["llama-cpp-python"])] if engine == "llama.cpp" else []
    environment = {**os.environ, "PYTHONPATH": "", "DGVIZ_LLAMA": str(*sources)}
    _run([PYTHON, Path(__file__).with_name("ask_engine.py"), *arguments], env=environment)
    return np.load(out)


if __name__ == "__main__":
    install()
