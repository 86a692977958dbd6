"""Films show the episodes that are evaluated, where there is a renderer."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from sorl import evaluate_policy
from sorl.agents import Budget
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.serial import SerialEnvironments
from sorl.evaluate import video

from .made_up import CUBE, hand


def test_films_show_the_episodes_that_were_evaluated(tmp_path, monkeypatch):
    frames = iter(np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8))
    monkeypatch.setattr(OgbenchEnvironment, "render", lambda self: next(frames))
    monkeypatch.setattr(video, "_suffix", lambda: ".gif")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    options: Any = {"budget": Budget(noise_scale=0.0), "episodes": 4, "seed": 2}
    (path,) = video.record(hand(), CUBE, tmp_path / "films", label="steady-", **options)
    played = evaluate_policy(hand(), SerialEnvironments(CUBE), **options)
    assert [path] == list((tmp_path / "films").iterdir()) == [tmp_path / "films" / "steady-episode0.gif"]
    assert imageio.improps(path).shape[0] == played.lengths[0]
    assert imageio.immeta(path)["duration"] == 50


FILM = """
import pathlib, sys
from sorl.agents import Budget
from sorl.evaluate.video import record
from tests.evaluate.made_up import CUBE, hand

try:
    record(hand(), CUBE, pathlib.Path(sys.argv[1]), budget=Budget(noise_scale=0.0), episodes=1)
except RuntimeError as error:
    print(error)
"""


def film(directory, renderer):
    root = pathlib.Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root)])
    variables = {**os.environ, "PYTHONPATH": paths, "MUJOCO_GL": renderer}
    command = [sys.executable, "-W", "ignore", "-c", FILM, str(directory)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=True).stdout


def test_a_missing_renderer_is_one_clear_sentence(tmp_path):
    assert film(tmp_path, "disable").startswith(
        "MuJoCo cannot render off screen here (MUJOCO_GL=disable: AttributeError: "
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_films_are_rendered_where_there_is_a_renderer(tmp_path):
    said = film(tmp_path, "egl")
    if said.startswith("MuJoCo cannot render off screen here (MUJOCO_GL=egl"):
        pytest.skip(said)
    (path,) = tmp_path.iterdir()
    frames = imageio.imread(path)
    assert frames.shape[1:] == (320, 320, 3) and 20 < len(frames) < 100
    assert frames[0].std() > 10 and np.any(frames[0] != frames[-1])
