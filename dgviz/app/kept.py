"""What the server keeps of answers, for all its sessions together: bounded in bytes, used longest ago goes first.

Streamlit's caches are bounded by the number of entries, and one may be a number or the spectra of a whole model.
"""

import dataclasses
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

LIMIT = 2**30
"""Bytes of all answers together."""
_EACH = 512  # bytes of an answer beside its contents, and of any single value
_LOOKED_AT = 100  # items of a long collection that are weighed


class Keeper:
    """Answers by their questions, up to so many bytes; safe to use from many threads."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._weights: dict[Hashable, int] = {}
        self._lock = threading.RLock()
        self._asked: dict[Hashable, threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all answers now."""
        with self._lock:
            for key, answer in self._answers.items():
                if key not in self._weights or _grows(answer):
                    self._weights[key] = weigh(answer)
            return sum(self._weights.values())

    def answer(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what is kept under a key, or make it once, whoever else asks meanwhile."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
            turn = self._asked.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._answers:
                    return self._answers[key]
            try:
                answer = make()
            finally:
                with self._lock:
                    self._asked.pop(key, None)
            with self._lock:
                self._answers[key] = answer
                while len(self._answers) > 1 and self.nbytes > self.limit:
                    oldest, _ = self._answers.popitem(last=False)
                    self._weights.pop(oldest, None)
            return answer

    def forget(self, key: Hashable) -> None:
        """Drop one answer."""
        with self._lock:
            self._answers.pop(key, None)
            self._weights.pop(key, None)


KEEPER = Keeper()
"""That of this server."""


class Kept(Protocol):
    """A function whose answers are kept."""

    def __call__(self, *question: Any) -> Any:
        """Return the answer."""
        ...

    def clear(self, *question: Any) -> None:
        """Forget one answer."""
        ...


def kept(function: Callable[..., Any]) -> Kept:
    """Keep a function's answers; arguments whose names begin with an underscore tell no question from another."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]

    def key(question: tuple) -> Hashable:
        told = (identity(value) for name, value in zip(names, question, strict=False) if not name.startswith("_"))
        return (function.__module__, function.__qualname__, *told)

    @functools.wraps(function)
    def answer(*question: Any, **named: Any) -> Any:
        question += tuple(named[name] for name in names[len(question) :] if name in named)
        return KEEPER.answer(key(question), lambda: function(*question))

    answer.clear = lambda *question: KEEPER.forget(key(question))
    return answer


def identity(value: Any) -> Hashable:
    """Return what tells an argument from others: contents, of values that are made of values too."""
    if dataclasses.is_dataclass(value):
        fields = (identity(getattr(value, field.name)) for field in dataclasses.fields(value))
        return (type(value).__qualname__, *fields)
    if isinstance(value, Mapping):
        return ("mapping", *((identity(key), identity(item)) for key, item in sorted(value.items(), key=repr)))
    if isinstance(value, list | tuple):
        return tuple(map(identity, value))
    return value


def _grows(answer: Any) -> bool:
    return isinstance(answer, Future) or hasattr(answer, "kept_bytes")


def weigh(value: Any) -> int:
    """Return the bytes that a value holds, estimated; an object may tell its own as `kept_bytes`.

    Of a long collection every so many items are looked at, and stand for the others.
    """
    total, waiting, seen = float(_EACH), [(value, 1.0)], set()
    while waiting:
        item, times = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        own, parts = _own_bytes(item), _parts(item)
        total += times * (own + 64)
        chosen = parts[:: max(1, len(parts) // _LOOKED_AT)]
        waiting += ((part, times * len(parts) / len(chosen)) for part in chosen)
    return int(total)


def _own_bytes(item: Any) -> int:
    """Return the bytes that a value holds beside its parts."""
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, bytes | bytearray | str):
        return len(item)
    return getattr(item, "kept_bytes", 0)


def _parts(item: Any) -> Sequence[Any]:
    """Return what a value is made of, where it does not say itself what it holds."""
    if hasattr(item, "kept_bytes"):
        return ()
    if isinstance(item, Future):
        return (item.result(),) if item.done() and item.exception() is None else ()
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    if isinstance(item, list | tuple):
        return item
    if isinstance(item, set | frozenset):
        return [*item]
    return [*vars(item).values()] if dataclasses.is_dataclass(item) else ()
