"""What a process of an executor does: it keeps the tasks that it was given, and carries them out by number."""

from collections.abc import Callable
from typing import Any

UNKNOWN = "unknown task"
_tasks: dict[int, Callable[..., Any]] = {}


def perform(
    number: int, arguments: tuple[Any, ...], keywords: dict[str, Any], task: Callable[..., Any] | None = None
) -> tuple[str, Any]:
    """Return what a task makes of its arguments; or that it is not known here, and must be sent along once."""
    if task is not None:
        _tasks[number] = task
    if number not in _tasks:
        return UNKNOWN, None
    return "done", _tasks[number](*arguments, **keywords)
