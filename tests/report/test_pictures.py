"""What the pictures of a report draw, against numbers computed by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sorl.agents import Fql, Sorl, SorlPlus
from sorl.config import presets
from sorl.report import pictures
from sorl.report.run import ReportedRun
from sorl.statistics.measures import RETURN, SUCCESS


def run_of(agent, method, successes, *, budgets=((1, 1), (2, 1)), **options):
    """A run of one seed, which succeeded in so many of 50 episodes at each budget."""
    config = presets.quickstart(agent=agent)
    config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, **options))
    table = [
        {"training_seed": 0, "inference_steps": m, "candidates": n, "successes": successes, "episodes": 50}
        for m, n in budgets
    ]
    return ReportedRun(Path("run"), config, {}, [], table, [], method=method)


def lines_of(axes: Any) -> dict[str, list[list[float]]]:
    """The points of each line, by its label."""
    return {found.get_label(): found.lines[0].get_xydata().tolist() for found in axes.containers}


def test_scores_are_written_in_percent_and_returns_with_their_digits(axes):
    for measure, expected in ((SUCCESS, ["42", "10"]), (RETURN, ["0.42", "0.1"])):
        axes.clear()
        pictures.estimates(axes, {"bc": (0.1, None, None), "sorl": (0.42, 0.3, 0.5)}, "score", measure)
        assert [text.get_text() for text in axes.texts] == expected


def test_steps_are_compared_at_the_fewest_candidates_that_a_method_was_evaluated_with(axes):
    runs = [
        run_of(Sorl, "sorl", 10, budgets=((1, 8), (4, 8), (1, 3), (4, 3))),
        run_of(Sorl, "sorl", 20, budgets=((1, 8), (4, 8))),
        run_of(Sorl, "fql", 30, budgets=((1, 3), (2, 1))),
    ]
    pictures.score_against_steps(axes, runs)
    assert lines_of(axes) == {"sorl, best of 3": [[0.0, 20.0], [2.0, 20.0]], "fql": [[1.0, 60.0]]}


@pytest.mark.parametrize("option", ["backprop steps", "agent.backprop-steps", "agent.backprop_steps"])
def test_methods_are_apart_in_the_ablation_of_backprop_steps(axes, option):
    runs = [
        run_of(Sorl, f"sorl, {option} 2", 50, backprop_steps=2),
        run_of(SorlPlus, "sorl-plus", 0, backprop_steps=2),
        run_of(Sorl, f"sorl, {option} 1", 25, backprop_steps=1),
        run_of(Sorl, f"sorl, {option} 1, q coefficient 9", 10, backprop_steps=1),
        run_of(Fql, "fql", 5),
    ]
    pictures.backprop_steps_ablation(axes, runs)
    one, most = "$M^{inf}$ = 1", "$M^{inf}$ = $M^{BTT}$"
    assert lines_of(axes) == {
        **{f"sorl, {label}": [[0.0, 50.0], [1.0, 100.0]] for label in (one, most)},
        **{f"sorl, q coefficient 9, {label}": [[0.0, 20.0]] for label in (one, most)},
        **{f"sorl-plus, {label}": [[1.0, 0.0]] for label in (one, most)},
    }


def test_the_ablation_of_one_method_names_only_the_budgets(axes):
    runs = [run_of(Sorl, f"sorl, backprop steps {most}", 25 * most, backprop_steps=most) for most in (2, 1)]
    pictures.backprop_steps_ablation(axes, runs)
    assert set(lines_of(axes)) == {"$M^{inf}$ = 1", "$M^{inf}$ = $M^{BTT}$"}


def test_each_method_has_its_own_bars(axes):
    runs = [
        run_of(Sorl, "sorl, backprop steps 2", 50, backprop_steps=2),
        run_of(SorlPlus, "sorl-plus", 10, backprop_steps=2),
        run_of(Sorl, "sorl, backprop steps 1", 25, backprop_steps=1),
    ]
    pictures.budget_bars(axes, runs)
    # At M^inf 1, from left to right; the bars are 0.8 / 3 wide.
    bars = sorted((bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches)[:3]
    np.testing.assert_allclose(bars, [[-0.8 / 3, 50.0], [0.0, 100.0], [0.8 / 3, 20.0]], atol=1e-9)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["sorl, $M^{BTT}$ 1", "sorl, $M^{BTT}$ 2", "sorl-plus, $M^{BTT}$ 2"]


def test_methods_are_apart_in_the_ablation_of_the_width(axes):
    own = presets.quickstart(agent=Sorl).budgets(final=False)[0]
    budgets = ((own.inference_steps, own.candidates),)
    runs = [
        run_of(Sorl, f"sorl, hidden sizes {text}, q coefficient {q}", successes, budgets=budgets, hidden_sizes=sizes)
        for text, sizes, q, successes in (
            ("8x8", (8, 8), 1.0, 10),
            ("16", (16,), 1.0, 20),
            ("8x8", (8, 8), 2.0, 30),
            ("8", (8,), 2.0, 40),
        )
    ]
    pictures.width_ablation(axes, runs)
    # Two methods of the same width and other numbers of layers are two points.
    assert lines_of(axes) == {
        "sorl, q coefficient 1.0": [[3.0, 20.0], [4.0, 40.0]],
        "sorl, q coefficient 2.0": [[3.0, 60.0], [3.0, 80.0]],
    }
