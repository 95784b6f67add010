"""The worker's own side: `python -m dgviz.jobs.serve FD MODULE NICE WARM` answers calls until its parent is gone."""

import faulthandler
import gc
import importlib
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

from dgviz.jobs.wire import receive_frame, send_frame


def main(arguments: list[str]) -> None:
    """Answer calls one by one."""
    descriptor, module_name, nice = int(arguments[0]), arguments[1], int(arguments[2])
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    # Ctrl-C in the terminal reaches the whole process group; the parent decides, and its end is seen below.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if nice:
        os.nice(nice)
    os.set_inheritable(descriptor, False)  # what the worker starts must not keep the line to the parent open
    channel = socket.socket(fileno=descriptor)
    requests: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(channel, requests), daemon=True).start()
    gc.disable()  # a third of the time that large libraries take to import
    with suppress(Exception):  # warm up; a broken module is reported to whoever calls it
        importlib.import_module(arguments[3])
    gc.freeze()
    gc.enable()
    while True:
        send_frame(channel, _answer(module_name, requests.get()))


def _read_requests(channel: socket.socket, requests: "queue.SimpleQueue[bytearray]") -> None:
    """Queue requests, and end the process as soon as the parent is gone, also in the middle of a computation."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(receive_frame(channel))
    os._exit(0)


def _answer(module_name: str, request: bytearray) -> bytes:
    """Return the pickled reply, ("result", value) or ("failure", what `_describe` says), of one pickled request."""
    try:
        name, arguments = pickle.loads(request)
        function = getattr(importlib.import_module(module_name), name)
        return _dump(("result", function(**arguments)), name)
    except BaseException as error:  # SystemExit too: no call may end the worker
        return pickle.dumps(("failure", _describe(error)))


def _dump(reply: tuple[str, Any], name: str) -> bytes:
    try:
        return pickle.dumps(reply, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise TypeError(f"the result of {name} is a {type(reply[1]).__name__} that cannot be pickled") from error


def _describe(error: BaseException) -> tuple[str, str, str, bytes | None, str]:
    """Return module, name, message, pickled form and traceback, for the parent to rebuild it where it may."""
    pickled = None
    with suppress(Exception):
        pickled = pickle.dumps(error)
    kind = type(error)
    return kind.__module__, kind.__qualname__, str(error), pickled, "".join(traceback.format_exception(error))


if __name__ == "__main__":
    main(sys.argv[1:])
