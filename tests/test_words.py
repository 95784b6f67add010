"""Sizes, durations and numbers as people read them."""

import numpy as np
import pytest

from dgviz.words import duration, exact_number, number, size


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [(0, "0 B"), (1000, "1,000 B"), (1024, "1.0 KiB"), (2**20 * 1.5, "1.5 MiB"), (2**40 * 5000, "5,000.0 TiB")],
)
def test_bytes_are_in_the_largest_unit_of_which_there_is_one(nbytes, words):
    assert size(nbytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.031, "0.03 s"), (1.44, "1.4 s"), (42.4, "42 s"), (720, "12 min"), (3 * 3600 + 300, "3 h 5 min")],
)
def test_seconds_are_in_units_of_their_own_size(seconds, words):
    assert duration(seconds) == words


def test_a_number_has_four_digits_and_several_their_range():
    assert [number(value) for value in (None, 2, 0.123456, np.float32(0.5), "inf")] == [
        "",
        "2",
        "0.1235",
        "0.5",
        "inf",
    ]
    assert [number(value) for value in ([3.0, None, 1.5], [2, 2], [None])] == ["1.5 to 3", "2", ""]


def test_an_exact_number_reads_back():
    for value in (1, 0.1, 0.1 + 0.2, 1e-17, 123456789, 2**53, 2**60, float("inf"), -0.25):
        assert float(exact_number(value)) == value
