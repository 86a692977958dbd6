"""One attempt at a run: it waits for its turn, and says how the training ended."""

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest

from sorl.sweep import attempt
from sorl.sweep.ledger import last_line
from sorl.system.locks import exclusive


PROGRAM = """
import os, signal, sys, time
from sorl.sweep import attempt

sys.executable, directory, is_signalled = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
sleep = time.sleep

def wait(seconds):
    sleep(0.5)  # the training has ended by now, and nobody has asked for its exit code
    if is_signalled:
        os.kill(os.getpid(), signal.SIGTERM)

attempt.time.sleep = wait
sys.exit(attempt.main(attempt.Attempt(directory, (), ("seed-0",), 1, False)))
"""


def test_an_attempt_has_its_turn_when_no_other_attempt_or_training_is_there(tmp_path):
    with ExitStack() as stack:
        with exclusive(tmp_path / attempt.LOCK):
            assert not attempt._takes_turn(stack, tmp_path)
        with exclusive(tmp_path / ".lock"):
            assert not attempt._takes_turn(stack, tmp_path)
        assert attempt._takes_turn(stack, tmp_path)
        with ExitStack() as other:
            assert not attempt._takes_turn(other, tmp_path)
    with ExitStack() as stack:
        assert attempt._takes_turn(stack, tmp_path)


@pytest.mark.parametrize(
    ("training", "is_signalled", "code", "line"),
    [
        ("echo 'error: it failed.'; exit 2", False, 2, "error: it failed."),
        ("exit 3", True, 3, ""),  # the signal arrives just after the end
        ("kill -9 $$", False, 137, "error: sorl.train was ended by SIGKILL, perhaps because memory ran out."),
    ],
)
def test_an_attempt_records_how_the_training_ended(tmp_path, training, is_signalled, code, line):
    (tmp_path / "log.txt").write_text("Attempt on here\nerror: An earlier attempt failed.\n")
    (tmp_path / "train").write_text(f"#!/bin/sh\n{training}\n")
    (tmp_path / "train").chmod(0o755)
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "train"), str(tmp_path), str(is_signalled)]
    with (tmp_path / "log.txt").open("a") as log:
        assert subprocess.run(words, stdout=log, stderr=log).returncode == code
    record = json.loads((tmp_path / "attempt.json").read_text())
    assert record["exit_code"] == code and record["peak_bytes"] > 0
    assert last_line(tmp_path) == line
