"""The command line of `python -m sorl.generate`."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tyro

from sorl.generate import Config, main


def _run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "sorl.generate", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
    )


def test_options_are_read():
    config = tyro.cli(Config, args=["scene-play-v0", "--episodes", "7", "--seed", "2", "--workers", "1"])
    assert config == Config("scene-play-v0", episodes=7, seed=2, workers=1)


def test_the_set_is_made_in_the_directory_asked_for(tmp_path, capsys):
    directory = main(Config("pointmaze-medium-stitch-singletask-task2-v0", episodes=1, workers=1, out=tmp_path))
    assert directory == tmp_path
    with np.load(tmp_path / "pointmaze-medium-stitch-v0.npz") as file:
        assert file["observations"].shape == (201, 2)
    said = capsys.readouterr()
    assert said.out == f"pointmaze-medium-stitch-v0, generated, 1 + 1 episodes: {tmp_path}\n"
    assert "generating pointmaze-medium-stitch-v0: 100%" in said.err


@pytest.mark.slow
def test_the_default_directory_is_our_own(tmp_path):
    done = _run("pointmaze-medium-stitch-v0", "--episodes", "1", "--workers", "1", XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == 0
    expected = tmp_path / "sorl" / "generated" / "pointmaze-medium-stitch-v0-1-episodes-seed-0"
    assert (expected / "pointmaze-medium-stitch-v0-val.npz").exists()


@pytest.mark.slow
def test_a_refusal_is_one_sentence():
    done = _run("cube-singel-play-v0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No data set that can be generated is named 'cube-singel-play-v0'; ")
    assert done.stderr.count("\n") == 1
