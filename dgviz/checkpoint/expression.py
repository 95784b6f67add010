"""Regular expressions that people type or links carry, by RE2: the time they take is linear in what they search."""

from functools import lru_cache

import re2

from dgviz.errors import PairError


@lru_cache(maxsize=256)
def compile_expression(text: str, ignore_case: bool = False) -> "re2._Regexp":
    """Return a compiled expression, to be searched with.

    Raises
    ------
    PairError
        If it is none that RE2 takes, which knows no look-around and no back-references.
    """
    options = re2.Options()
    options.log_errors, options.case_sensitive = False, not ignore_case
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise PairError(
            f"{text!r} is not a regular expression of RE2 ({reason}); it knows no look-around and no back-references"
        ) from None
