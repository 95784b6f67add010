"""The figures of all matrices of a pair, kept beside their spectra: a scan repeated reads all of them at once.

They are found again for as long as every spectrum is the one they were made from, the settings are the same, and so
is the code that makes them: all of that is part of the name under which they are kept.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dgviz import rmt, words
from dgviz.spectra.pack import text_array
from dgviz.spectra.store import SpectrumStore


def digest_code(*sources: ModuleType | str) -> str:
    """Return a digest of code: of files, of modules, and of all that is in packages."""
    files: list[Path] = []
    for source in sources:
        path = Path(source if isinstance(source, str) else source.__file__)
        files += sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_CODE = digest_code(rmt, words, __file__)  # when this is imported, as the code itself is


class KeptRows:
    """The rows of a pair's matrices as `dgviz.rmt.assess.matrix_row` returns them.

    Parameters
    ----------
    store : SpectrumStore
        Where the spectra lie.
    keys : sequence of str or None
        Of the matrices' spectra; with a None nothing is kept.
    settings : iterable
        For each matrix what its row depends on besides, names included; told apart by their `repr`.
    """

    def __init__(self, store: SpectrumStore, keys: Sequence[str | None], settings: Iterable[Any]) -> None:
        self._store = store
        digest = "" if None in keys else store.digest(keys)
        self._question = json.dumps([_CODE, digest, list(map(repr, settings)), keys]) if digest else ""

    def read(self) -> list[dict[str, Any]] | None:
        """Return the rows, in order; None where they are not kept."""
        arrays = self._store.get_arrays(self._question) if self._question else None
        return None if arrays is None else json.loads(arrays["rows"].tobytes())

    def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows of matrices whose spectra are all stored by now."""
        if self._question:
            stored = [row | {"stored": True, "seconds": 0.0} for row in rows]
            self._store.put_arrays(self._question, {"rows": text_array(stored)}, len(rows))
