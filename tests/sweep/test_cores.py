"""Attempts that do not know of each other get cores of their own while there are enough."""

import os
import tempfile
from contextlib import ExitStack

import pytest

from sorl.sweep.cores import reserve


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {7, 1, 2, 5}, raising=False)


def test_free_cores_come_first_and_occupied_ones_are_shared_only_if_they_must_be():
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        assert reserve(1, first) == (1,)
        assert reserve(2, second) == (2, 5)
        assert reserve(2, third) == (1, 7)  # only 7 is free
    with ExitStack() as later:
        assert reserve(3, later) == (1, 2, 5)  # all were given back


def test_a_small_machine_gives_all_of_its_cores():
    with ExitStack() as stack:
        assert reserve(9, stack) == (1, 2, 5, 7)


def test_without_binding_no_core_is_chosen(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    with ExitStack() as stack:
        assert reserve(1, stack) == ()
