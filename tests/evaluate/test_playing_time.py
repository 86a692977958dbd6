"""What is said before an evaluation: how many episodes, and for how long if that is known."""

import json

import pytest

from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.evaluate.playing_time import amount, duration, measured_speed


def test_counts_and_time():
    assert amount(8, 1, 50, 0.45) == "8 budgets x 1 seed x 50 episodes: 400 episodes, about 3 minutes"
    assert amount(1, 3, 1, None) == "1 budget x 3 seeds x 1 episode: 3 episodes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 second"), (89.0, "89 seconds"), (90.0, "2 minutes"), (3600.0, "60 minutes"), (9000.0, "2.5 hours")],
)
def test_durations_have_a_fitting_unit(seconds, text):
    assert duration(seconds) == text


def test_the_speed_is_that_of_the_last_evaluation(tmp_path):
    evaluation = EvaluationConfig(episodes=20, inference_steps=(1, 4), candidates=(1,))
    config = TrainConfig(seeds=(0, 1), evaluation=evaluation)
    assert measured_speed(tmp_path, config) is None
    rows = [{"step": 1, "updates_per_second": 3.0}, {"step": 2, "evaluation_seconds": 7.0}]
    rows += [{"step": 3, "evaluation_seconds": 40.0}, {"step": 3, "checkpoint_seconds": 1.0}]
    (tmp_path / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert measured_speed(tmp_path, config) == 40.0 / 80  # two seeds, two budgets, 20 episodes
    (tmp_path / "timings.jsonl").write_text("damaged\n")
    assert measured_speed(tmp_path, config) is None
