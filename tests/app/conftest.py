"""Tests that run pages take most of the time: make check leaves them out."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if hasattr(getattr(item, "module", None), "open_at"):
            item.add_marker(pytest.mark.slow)
