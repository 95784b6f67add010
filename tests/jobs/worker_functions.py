"""What test_jobs.py calls in a worker."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

calls = []


class Refused(ValueError):
    pass


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def remember(value):
    calls.append(value)
    return list(calls)


def echo(value):
    return value


def pid():
    return os.getpid()


def nice():
    return os.nice(0)


def environment(name):
    return os.environ.get(name)


def add_one(array):
    return np.asarray(array) + 1


def refuse(message):
    raise Refused(message)


def raise_unpicklable():
    raise Unpicklable("this", "that")


def raise_exit():
    sys.exit(3)


def raise_foreign():
    """Raise an exception of a package that the parent has not loaded."""

    from tests.jobs import worker_foreign

    raise worker_foreign.ForeignError("far away")


def return_function():
    return lambda: None


def print_everywhere():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return "printed"


def die(code):
    print("about to go", file=sys.stderr, flush=True)
    os._exit(code)


def crash():
    import faulthandler

    faulthandler._sigsegv()


def touch_and_wait(started, until):
    """Create the file `started`, then wait for the file `until`."""
    Path(started).touch()
    while not Path(until).exists():
        time.sleep(0.01)
    return "waited"
