"""Static types of the package, the tests and the benchmarks, as a test so that a core works beside pyright's one."""

import subprocess
import sys
from pathlib import Path

import pytest


pytestmark = pytest.mark.slow


def test_pyright_finds_no_error():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
