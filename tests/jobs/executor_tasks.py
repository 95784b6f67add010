"""What test_executor.py has carried out."""

import os
import signal
import time
from dataclasses import dataclass


@dataclass
class Add:
    number: int

    def __call__(self, device, other):
        return device, self.number + other


class Counted:
    def __init__(self):
        self.calls = 0

    def __call__(self, device):
        self.calls += 1
        return device, self.calls


def power(device, base, exponent):
    return device, base**exponent


def fail(device, why):
    raise ValueError(why)


def process_of(device):
    return os.getpid()


def die(device):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(device, mark):
    mark.touch()
    while True:
        time.sleep(1)


def count_up(device, number):
    yield from range(number)


def mark_and_wait(device, folder, number):
    """Leave a mark of this attempt, and wait for leave to go on."""
    (folder / f"{number}-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    return number


def vanish(device, folder, times, after):
    """Count to five; in the first attempts, wait for nothing after some, which takes up no core of a cluster."""
    for number in range(5):
        if number == after:
            wait_for_nothing(folder / "stream", times)
        yield number


def vanish_at_once(device, folder, times):
    wait_for_nothing(folder / "call", times)
    return "back"


def wait_for_nothing(mark, times):
    """Wait for what never comes, unless this was done often enough."""
    import ray

    attempts = len(mark.read_text()) if mark.exists() else 0
    if attempts < times:
        mark.write_text("x" * (attempts + 1))
        ray.get(ray.remote(sleep).options(num_cpus=0).remote(3600))


def sleep(seconds):
    time.sleep(seconds)


def see_gpus(device):
    return device, os.environ.get("CUDA_VISIBLE_DEVICES")
