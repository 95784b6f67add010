"""Damaged score files of every kind: whatever is wrong in one, it is read or refused in one line."""

import copy
import json
import os
import random

import pytest

from dgviz.demo import demo_scores
from dgviz.errors import DgvizError
from dgviz.repair.plan import RepairPlan, parse_plan
from dgviz.scores import choose_scores, parse_scores
from dgviz.scores.recovery.study import study_arguments
from tests.checkpoint.test_fuzz import damage_json
from tests.scores.test_score_files import INSPECT, LIGHTEVAL, REFERENCE
from tests.scores.test_scores import CURRENT, LAST_YEAR

CSV = "model,benchmark,score,stderr,n\nbase,arc,0.5,0.1,10\ntuned,arc,0.6,0.1,10\n"
CELL = {"name": "a", "base": "b", "tuned": "t", "on_task": "x", "repaired": {"r": "m"}}
STUDY = {"cells": [CELL], "cohorts": {"c": ["x"]}, "lower_is_better": ["y"]}
KINDS = {"current": CURRENT, "last year": LAST_YEAR, "lighteval": LIGHTEVAL, "inspect": INSPECT}
KINDS |= {"demo": demo_scores(), "reference": REFERENCE, "study": STUDY, "csv": CSV, "plan": RepairPlan().to_json()}


def damaged(kind: str, choose: random.Random) -> bytes:
    """Return the bytes of a file of one kind with something wrong in it: a value, or a few bytes."""
    value = KINDS[kind]
    if kind != "csv" and choose.random() < 0.8:
        for _ in range(choose.randrange(1, 3)):
            value = damage_json(copy.deepcopy(value), choose)
            if not isinstance(value, dict):
                break
        return json.dumps(value).encode()
    data = bytearray(value.encode() if kind == "csv" else json.dumps(value).encode())
    for _ in range(choose.randrange(1, 4)):
        place = choose.randrange(len(data))
        data[place : place + choose.choice([0, 1, 1, 5])] = choose.randbytes(choose.choice([0, 1, 1, 3]))
    return bytes(data[: choose.choice([None, None, len(data) // 2])])


def read(kind: str, data: bytes) -> str:
    """Read a file as pages and commands do; return what was said, empty if it was read."""
    try:
        if kind == "plan":
            parse_plan(data, "plan.json")
        elif kind == "study":
            try:
                content = json.loads(data)
            except (ValueError, RecursionError):
                return "no JSON"
            study_arguments(content, "study.json")
        else:
            choose_scores(parse_scores(data, f"scores.{'csv' if kind == 'csv' else 'json'}", "model", "folder"))
    except DgvizError as error:
        assert str(error) and "\n" not in str(error)
        return str(error)
    return ""


def fuzz(first: int, count: int) -> int:
    """Read so many damaged files; return how many were refused."""
    refused = 0
    for seed in range(first, first + count):
        choose = random.Random(seed)
        kind = choose.choice(list(KINDS))
        data = damaged(kind, choose)
        try:
            refused += bool(read(kind, data))
        except Exception as error:
            raise AssertionError(f"seed {seed}, {kind}: {data[:3000]!r}") from error
    return refused


def test_sound_files_are_read():
    for kind, value in KINDS.items():
        assert read(kind, value.encode() if kind == "csv" else json.dumps(value).encode()) == "", kind


def test_damaged_score_files_are_read_or_refused_in_one_line():
    assert 50 < fuzz(0, 400) < 350


@pytest.mark.soak
def test_many_damaged_score_files():
    count = int(os.environ.get("DGVIZ_FUZZ_INPUTS", "20000"))
    print(f"{count} inputs, {fuzz(10**6, count)} refused")
