"""A film strip shows the frames of the same episode that an evaluation plays, for each number of steps."""

import numpy as np
import pytest

from sorl import load_run
from sorl.agents import Budget
from sorl.environments import named
from sorl.report.film_strip import film_strip, play_strip

from ..reaching import CUBE, Reaching, forget_environment, make_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "OgbenchEnvironment", Reaching)
    # A frame tells how many steps the episode has taken.
    monkeypatch.setattr(Reaching, "render", lambda self: np.full((4, 4, 3), getattr(self, "taken", 0), np.uint8))
    monkeypatch.setenv("MUJOCO_GL", "disable")
    return make_run(tmp_path / "run")


@pytest.mark.parametrize("episode", [0, 3])
def test_frames_go_from_the_first_step_to_the_last(run, episode):
    strip = play_strip(load_run(run), Budget(2), episode)
    assert strip.steps == [1, 2, 3, 4][: len(strip.steps)] and 1 <= len(strip.frames) <= 4
    assert [frame.max() for frame in strip.frames] == strip.steps
    assert strip.success or strip.steps[-1] == 4


def test_a_row_for_each_number_of_steps(run, tmp_path):
    path = film_strip(run, (1, 2), 0, tmp_path / "film.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    # A run on logs alone is filmed in the environment that is named.
    forget_environment(run)
    assert film_strip(run, (1, 2), 0, tmp_path / "named.png", CUBE).read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="The film's episode is 50; give one from 0 to 49"):
        film_strip(run, (1,), 50, tmp_path / "film.png")
