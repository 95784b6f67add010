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


def see_gpus(device):
    return device, os.environ.get("CUDA_VISIBLE_DEVICES")
