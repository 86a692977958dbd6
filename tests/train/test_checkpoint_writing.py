"""Checkpoints stay whole and quiet, whatever happens while they are written."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sorl.train.checkpoints import CheckpointError, Checkpoints


def test_a_reader_leaves_a_running_training_alone(tmp_path):
    with Checkpoints(tmp_path) as writer:
        writer.save(1, {"x": jnp.ones(2)})
        writer.wait()
        unfinished = tmp_path / "2.orbax-checkpoint-tmp"
        unfinished.mkdir()
        with Checkpoints(tmp_path, read_only=True) as reader:
            assert reader.steps() == [1]
            assert reader.restore({"x": jnp.zeros(2)})["x"].tolist() == [1.0, 1.0]
        assert unfinished.is_dir()
    with Checkpoints(tmp_path) as writer:
        writer.save(2, {"x": jnp.zeros(2)})
    assert not unfinished.exists()
    with pytest.raises(CheckpointError, match="no such directory"):
        Checkpoints(tmp_path / "elsewhere", read_only=True)


_FILL_THE_DISK = textwrap.dedent(
    """
    import gc, resource, sys
    import numpy as np
    from sorl.train.checkpoints import CheckpointError, Checkpoints

    state = {str(i): np.random.default_rng(i).normal(size=2000) for i in range(3)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    try:
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(1, state)
    except CheckpointError as error:
        print(error)
    gc.collect()
    """
)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    command = [sys.executable, "-c", _FILL_THE_DISK, str(tmp_path / "checkpoints")]
    # The limit would hold for the file that counts coverage too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert re.fullmatch(r"The last checkpoint in .*checkpoints was not saved \(.*\); .*\.\n", ended.stdout)
    assert ended.stderr == ""


def test_a_save_that_fails_is_told_by_wait_and_by_the_next_save(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory)
    checkpoints.save(1, {"w": jnp.ones(2)})
    checkpoints.wait()
    shutil.rmtree(directory)
    directory.write_text("a file where the directory was")
    with pytest.raises(CheckpointError, match=r"2 in .* was not saved \(.*Not a directory"):
        checkpoints.save(2, {"w": jnp.ones(2)})
        checkpoints.wait()
    directory.unlink()
    directory.mkdir()
    checkpoints.close()
    checkpoints.close()


def test_saving_is_quiet(tmp_path, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 4):
            checkpoints.save(step, {"w": jnp.ones(2)}, {"success": 1.0} if step == 2 else None)
        checkpoints.restore({"w": jnp.ones(2)})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        checkpoints.restore({"w": jnp.ones(2)})
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


_SAVE_IN_A_LOOP = textwrap.dedent(
    """
    import sys
    import numpy as np
    from sorl.train.checkpoints import Checkpoints

    def state(step):
        return {str(i): np.full((50, 100), float(step * 10 + i), np.float32) for i in range(5)}

    with Checkpoints(sys.argv[1]) as checkpoints:
        latest = checkpoints.latest_step()
        step = 0 if latest is None else latest
        if latest is not None:
            restored = checkpoints.restore(state(0))
            assert all((restored[name] == value).all() for name, value in state(latest).items()), "inconsistent"
        print(step, flush=True)
        while True:
            step += 1
            checkpoints.save(step, state(step), {"success": float(step % 7)} if step % 3 == 0 else None)
            print(step, flush=True)
    """
)


@pytest.mark.slow
def test_a_process_killed_at_random_moments_leaves_whole_checkpoints(tmp_path):
    directory = tmp_path / "checkpoints"
    generator = np.random.default_rng(0)
    reached = []
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE_IN_A_LOOP, str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": ""},  # killed, it may leave half a program
        )
        assert process.stdout is not None
        for _ in range(generator.integers(4, 12)):  # each save waits for the one before: at least two are whole
            assert re.fullmatch(r"\d+\n", process.stdout.readline()), process.communicate()[1]
        time.sleep(generator.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        reached.append(check_all_checkpoints(directory))
    assert reached == sorted(reached) and reached[-1] > 10


def check_all_checkpoints(directory: Path) -> int:
    """Every checkpoint that is offered is whole, the latest and the best among them; returns the latest step."""
    with Checkpoints(directory, read_only=True) as checkpoints:
        template: Any = {str(i): np.zeros((50, 100), np.float32) for i in range(5)}
        for step in checkpoints.steps():
            restored = checkpoints.restore(template, step)
            assert [np.unique(restored[str(i)]).tolist() for i in range(5)] == [[step * 10.0 + i] for i in range(5)]
        latest, best = checkpoints.latest_step(), checkpoints.best_step()
    assert latest is not None
    scored = [step for step in range(1, latest + 1) if step % 3 == 0]
    expected = max(scored, key=lambda step: (step % 7, step)) if scored else None
    assert best == expected
    return latest
