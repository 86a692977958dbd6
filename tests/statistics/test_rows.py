"""Evaluations are read from the metrics of a run."""

import pytest

from sorl.statistics.rows import evaluation_rows
from sorl.statistics.tables import headline, table


def test_returns_are_read_from_the_metrics():
    figures = {"return": -5.0, "return_low": -6.0, "return_high": -4.0, "episode_length": 9.0}
    (found,) = evaluation_rows([{"step": 1, "seed": 7} | {f"evaluation/{k}/M1N1": x for k, x in figures.items()}], 10)
    assert (found["successes"], found["return"], found["return_low"], found["return_high"]) == (None, -5.0, -6.0, -4.0)


def test_evaluations_are_read_from_the_metrics_and_make_the_headline():
    metrics = [
        {"step": step, "seed": 7, "training/q_loss": 1.0}
        | {f"evaluation/{name}/M4N8": value for name, value in zip(FIGURES, (success, -10.0 * step, 5.0), strict=True)}
        for step, success in [(1, 1.0), (2, 0.2), (3, 0.4), (4, 0.6)]
    ]
    rows = evaluation_rows([{"step": 1, "seed": 7, "training/q_loss": 1.0}, *metrics], episodes=10)
    assert [(row["step"], row["training_seed"], row["successes"]) for row in rows] == [
        (1, 7, 10),
        (2, 7, 2),
        (3, 7, 4),
        (4, 7, 6),
    ]
    (found,) = headline(rows)
    assert (found["inference_steps"], found["candidates"], found["steps"]) == (4, 8, [2, 3, 4])
    assert (found["success"], found["return"], found["length"]) == (pytest.approx(0.4), -30.0, 5.0)
    assert table([found]).splitlines()[1].endswith(" -")


def test_a_budget_with_a_verifier_is_one_of_its_own():
    figures = {f"evaluation/{key}/M4N8{end}": 1.0 for key in FIGURES for end in ("", "-min-softmax0.5")}
    rows = evaluation_rows([{"step": 1, "seed": 7} | figures], 10)
    assert [(row["inference_steps"], row["candidates"], row["verifier"], row["successes"]) for row in rows] == [
        (4, 8, None, 10),
        (4, 8, "min-softmax0.5", 10),
    ]
    assert len(headline(rows)) == 2


FIGURES = ("success", "return", "episode_length")
