"""Pictures show the numbers of their run."""

import json
import re
from typing import Any

import numpy as np
import pytest

from sorl import plots
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.runs import run as runs
from sorl.system import pictures


ROWS = [
    {"env": "e", "training_seed": seed, "inference_steps": m, "candidates": n, "successes": s, "episodes": 10}
    | {"data_source": "generated", "data_episodes": 3}
    for seed, m, n, s in [(0, 1, 1, 2), (1, 1, 1, 4), (0, 4, 1, 8), (1, 4, 1, 6), (0, 4, 8, 10), (1, 4, 8, 10)]
]


def test_success_at_every_budget(axes: Any):
    plots.draw_budgets(axes, ROWS)
    one, best = axes.containers
    np.testing.assert_allclose(one.lines[0].get_ydata(), [30.0, 70.0])
    np.testing.assert_allclose(best.lines[0].get_ydata(), [100.0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one sample", "best of 8"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4"]


def test_learning_curves_are_means_over_seeds(axes: Any):
    rows = [
        {"step": step, "seed": seed, "evaluation/success/M4N1": value}
        for step, seed, value in [(10, 0, 0.2), (10, 1, 0.4), (20, 0, 0.6), (20, 1, 1.0)]
    ]
    plots.draw_learning_curves(axes, [*rows, {"step": 20, "seed": 0, "training/q_loss": 1.0}])
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[10, 30], [20, 80]])


def test_the_verifier_of_a_budget_is_named(axes: Any):
    row = {"step": 10, "seed": 1, "evaluation/success/M1N8-min-softmax0.5": 0.2, "evaluation/success/M4N1": 0.4}
    plots.draw_learning_curves(axes, [row])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["1 step, best of 8 by min-softmax0.5", "4 steps"]


def test_without_success_the_return_is_drawn(axes: Any):
    rows = [
        row | {"successes": None, "return": -float(row["inference_steps"]), "return_low": -6.0, "return_high": 0.0}
        for row in ROWS[::2]
    ]
    plots.draw_budgets(axes, rows)
    np.testing.assert_allclose(axes.containers[0].lines[0].get_ydata(), [-1.0, -4.0])
    assert axes.get_ylabel() == "return"
    axes.clear()
    curve = [{"step": step, "seed": 0, "evaluation/return/M1N1": -float(step)} for step in (10, 20)]
    plots.draw_learning_curves(axes, curve)
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[10, -10], [20, -20]])
    assert axes.get_ylabel() == "return"


def test_command_writes_the_picture_or_says_what_is_missing(tmp_path):
    out = tmp_path / "run.png"
    with pytest.raises(FileNotFoundError, match=r"holds no config.json; give the run directory"):
        plots.main(plots.Config(tmp_path, out))
    runs.create(tmp_path, TrainConfig())
    with pytest.raises(FileNotFoundError, match=r"run python -m sorl.evaluate \S+ first\.$"):
        plots.main(plots.Config(tmp_path, out))
    (tmp_path / "evaluation.json").write_text(json.dumps({"rows": ROWS}))
    (tmp_path / "metrics.jsonl").write_text("")
    plots.main(plots.Config(tmp_path, out))
    assert out.read_bytes().startswith(b"\x89PNG")
    plots.main(plots.Config(tmp_path, tmp_path / "missing" / "below" / "run"))
    assert (tmp_path / "missing" / "below" / "run").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"run\.xyz ends in \.xyz, which matplotlib does not write; end it in \.\w+, "):
        plots.main(plots.Config(tmp_path, tmp_path / "run.xyz"))


def test_a_run_on_own_logs_has_nothing_to_draw(tmp_path):
    config = TrainConfig(env=None, data=DataConfig(path=tmp_path / "a.npz"), evaluation=EvaluationConfig(interval=0))
    runs.create(tmp_path / "run", config)
    with pytest.raises(ValueError, match=r"without an environment, so it has no evaluations to draw; [^\n]*\.$"):
        plots.main(plots.Config(tmp_path / "run", tmp_path / "run.png"))


def test_printed_commands_are_quoted_for_the_shell(tmp_path):
    run = tmp_path / "a b; $c"
    runs.create(run, TrainConfig())
    with pytest.raises(FileNotFoundError, match=re.escape(f"sorl.evaluate '{run}' first.")):
        plots.main(plots.Config(run, tmp_path / "run.png"))
    (run / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=re.escape(f"sorl.evaluate '{run}' again.")):
        plots.main(plots.Config(run, tmp_path / "run.png"))


@pytest.mark.parametrize(
    "name", ["$x$ $", r"$\frac$", "_a", "<b>", "ü 机器人", "two\nlines", "\udcff", "a\\$b", "^{", "%"]
)
def test_any_name_is_drawn_literally(axes: Any, tmp_path, name):
    axes.set_title(pictures.plain(name))
    axes.plot([1], [1], label=pictures.plain(name))
    pictures.legend(axes)
    pictures.write_picture(axes.figure, tmp_path / "a.png")
    assert not axes.title.get_parse_math() or "$" not in axes.title.get_text().replace(r"\$", "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": [{"training_seed": 0}]}', '{"rows": 3}', '{"rows": [3]}'])
def test_a_damaged_table_is_one_sentence(tmp_path, content):
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path} [^\n]*; run python -m sorl.evaluate {tmp_path} again\.$"):
        plots.main(plots.Config(tmp_path, tmp_path / "run.png"))
