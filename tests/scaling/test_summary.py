"""The summary of a grid of budgets, against numbers computed by hand, and pictures that show these numbers."""

import numpy as np
import pytest

from sorl.scaling.pictures import draw_pareto_front, draw_score_against_candidates, draw_score_against_steps
from sorl.scaling.summary import best_pair, grid_table, pareto_front, sizes, summarise_grid
from sorl.statistics.intervals import wilson_interval
from sorl.statistics.rows import BUDGET_FIELDS


def record(steps, candidates, success_by_seed, milliseconds=1.0):
    """A finished pair with these outcomes of each training seed's episodes."""
    budget = dict.fromkeys(BUDGET_FIELDS) | {"inference_steps": steps, "candidates": candidates}
    rows = [
        budget
        | {"training_seed": seed, "successes": sum(success), "episodes": len(success)}
        | {"return": -10.0 * (seed + 1), "length": 20.0 * (seed + 1), "steps_per_second": 1000.0}
        | {"outcomes": {"success": [bool(one) for one in success]}}
        for seed, success in enumerate(success_by_seed)
    ]
    latency = [
        {"batch_size": 1, "median_ms": milliseconds, "p95_ms": 2 * milliseconds, "calls": 20},
        {"batch_size": 64, "median_ms": 4 * milliseconds, "p95_ms": 5 * milliseconds, "calls": 20},
    ]
    return {"rows": rows, "latency": latency}


def test_one_seed_is_compared_episode_by_episode():
    one, four, best = summarise_grid([record(1, 1, [[0, 1]]), record(4, 1, [[1, 1]], 2.0), record(4, 8, [[1, 0]], 8.0)])
    assert (one["success"], one["success_low"], one["success_high"]) == (0.5, *wilson_interval(1, 2))
    assert (one["difference"], one["difference_low"], one["difference_high"]) == (0.0, 0.0, 0.0)
    # Episode by episode 1, 0: resamples have means 0, 1/2, 1/2, 1, each end with probability 1/4.
    assert (four["difference"], four["difference_low"], four["difference_high"]) == (0.5, 0.0, 1.0)
    # Against one step 1, -1, and against one candidate of as many steps 0, -1.
    assert (best["difference"], best["difference_low"], best["difference_high"]) == (0.0, -1.0, 1.0)
    assert (best["gain"], best["gain_low"], best["gain_high"]) == (-0.5, -1.0, 0.0)
    assert (one["gain"], four["gain"]) == (None, None)
    assert (best["latency_ms"], best["latency_p95_ms"]) == (8.0, 16.0)
    assert (best["batch_latency_ms"], best["batch_latency_p95_ms"], best["batch_size"]) == (32.0, 40.0, 64)
    assert best["candidates_per_second"] == 64 * 8 / 0.032


def test_several_seeds_are_compared_seed_by_seed():
    one, two = summarise_grid([record(1, 1, [[0, 0], [1, 1]]), record(2, 1, [[1, 0], [1, 1]])])
    # Seeds gain 1/2 and 0: a standard error of 1/4, and with two seeds 12.7 of them.
    assert (two["difference"], two["difference_low"], two["difference_high"]) == (0.25, -1.0, 1.0)
    assert (two["success"], two["interval"]) == (0.75, "student")
    assert (one["seeds"], one["episodes"], one["return"], one["length"]) == (2, 2, -15.0, 30.0)


def test_pairs_that_hurt_are_named_with_the_reason():
    pairs = summarise_grid(
        [
            record(1, 1, [10 * [1, 1, 0, 0]]),
            record(8, 1, [10 * [0, 0, 0, 0]]),  # fewer steps do better
            record(4, 1, [10 * [1, 1, 1, 1]]),
            record(1, 8, [10 * [1, 0, 0, 0]]),  # candidates hurt
            record(8, 8, [10 * [1, 0, 0, 0]]),  # candidates help, but not enough
            record(4, 8, [10 * [1, 1, 1, 0]]),  # better than one step, worse than one candidate
            record(2, 8, [10 * [0, 1, 0, 0]]),  # one candidate of as many steps was not played
            record(16, 1, [[1, 0, 0, 0, *9 * [1, 1, 0, 0]]]),  # one episode less is no evidence
        ]
    )
    remarks = {sizes(pair): pair["remark"] for pair in pairs}
    candidates, steps = "best of N hurts here", "more steps hurt here"
    assert remarks == {(1, 1): "", (8, 1): steps, (4, 1): "", (1, 8): candidates, (16, 1): ""} | {
        (8, 8): steps,
        (4, 8): candidates,
        (2, 8): candidates,
    }
    text = grid_table(pairs)
    assert "(1, 8): best of N hurts here (-0.250 (" in text and ") against (1, 1))." in text
    assert "(4, 8): best of N hurts here (+0.250 (" in text and ") against (4, 1))." in text
    assert sizes(best_pair(pairs)) == (4, 1)


@pytest.mark.parametrize(("episodes", "remark"), [(1, ""), (5, ""), (6, "best of N hurts here")])
def test_a_few_episodes_that_agree_are_no_evidence(episodes, remark):
    pairs = summarise_grid([record(1, 1, [episodes * [1]]), record(1, 8, [episodes * [0]])])
    assert (pairs[1]["difference_high"], pairs[1]["remark"]) == (-1.0, remark)


def test_table_has_a_line_for_each_pair():
    header, line, *_ = grid_table(summarise_grid([record(1, 1, [[0, 1]], 0.5), record(2, 4, [[1, 1]], 2.0)])).split(
        "\n"
    )
    low, high = wilson_interval(1, 2)
    assert "against (1, 1)" in header and "p95 (64)" in header
    interval = [f"{low:.3f}", "..", f"{high:.3f}"]
    difference = ["+0.000", "(+0.000", "..", "+0.000)"]
    assert line.split() == ["1", "1", "0.500", *interval, *difference, "-10.0", "20.0"] + [
        "0.50,",
        "1.00",
        "2.00,",
        "2.50",
        "32000",
    ]


def test_the_best_does_no_harm_and_is_the_fastest_of_equals():
    harmful = record(1, 1, [[1, 1]]), record(8, 1, [[1, 0]])
    assert sizes(best_pair(summarise_grid(harmful))) == (1, 1)
    equals = record(1, 1, [[0, 0]]), record(2, 1, [[1, 1]], 3.0), record(4, 1, [[1, 1]], 2.0)
    assert sizes(best_pair(summarise_grid(equals))) == (4, 1)


FRONT = summarise_grid(
    [
        record(1, 1, [[0, 0, 1, 0]], 1.0),
        record(2, 1, [[0, 1, 1, 0]], 2.0),
        record(2, 4, [[1, 0, 0, 0]], 3.0),  # beaten
        record(4, 1, [[1, 1, 0, 0]], 4.0),  # equalled by a faster one
        record(4, 4, [[1, 1, 1, 1]], 8.0),
    ]
)


def test_pareto_front():
    assert [sizes(pair) for pair in pareto_front(FRONT)] == [(1, 1), (2, 1), (4, 4)]
    assert [sizes(pair) for pair in pareto_front(FRONT[::-1])] == [(1, 1), (2, 1), (4, 4)]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_success_is_drawn_against_steps_and_against_candidates(axes):
    draw_score_against_steps(axes, FRONT)
    assert legend(axes) == ["one sample", "best of 4"]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 25], [1, 50], [2, 50]])
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[1, 25], [2, 100]])
    low, high = wilson_interval(1, 4)
    band = axes.collections[0].get_paths()[0].vertices
    assert {100 * low, 100 * high} <= set(band[band[:, 0] == 0.0][:, 1])
    axes.clear()
    draw_score_against_candidates(axes, FRONT)
    assert legend(axes) == ["one step", "2 steps", "4 steps"]
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[0, 50], [2, 25]])


def test_the_front_and_the_chosen_pair_are_drawn_against_latency(axes):
    draw_pareto_front(axes, FRONT)
    front, star = (next(line for line in axes.lines if line.get_label() == name) for name in legend(axes)[:2])
    np.testing.assert_allclose(front.get_xydata(), [[1, 25], [2, 50], [8, 100]])
    np.testing.assert_allclose(star.get_xydata(), [[8, 100]])
    assert star.get_label() == "chosen: (4, 4)"


def returned(record):
    """The same outcomes, but no success is reported: the returns are -10 at a failure and -5 at a success."""
    for row in record["rows"]:
        returns = [-5.0 if one else -10.0 for one in row["outcomes"]["success"]]
        ends = {"return": float(np.mean(returns)), "return_low": min(returns), "return_high": max(returns)}
        row |= {"successes": None, "outcomes": {"success": None, "returns": returns}} | ends
    return record


def test_without_success_pairs_are_compared_by_their_returns(axes):
    one, two = summarise_grid([returned(record(1, 1, [[0, 1]])), returned(record(2, 1, [[1, 1]], 2.0))])
    assert (one["success"], one["return"], one["return_low"], one["return_high"]) == (None, -7.5, -10.0, -5.0)
    assert (two["difference"], two["difference_low"], two["difference_high"]) == (2.5, 0.0, 5.0)
    assert sizes(best_pair([one, two])) == (2, 1)
    assert [sizes(pair) for pair in pareto_front([one, two])] == [(1, 1), (2, 1)]
    header, line, *_ = grid_table([one, two]).split("\n")
    assert "return, 95 % interval" in header and "success" not in header
    assert line.split()[2:6] == ["-7.5", "-10", "..", "-5"]
    draw_score_against_steps(axes, [one, two])
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, -7.5], [1, -5]])
    assert axes.get_ylabel() == "return" and axes.get_ylim()[0] < -9
    axes.clear()
    draw_pareto_front(axes, [one, two])
    star = next(line for line in axes.lines if line.get_label() == "chosen: (2, 1)")
    np.testing.assert_allclose(star.get_xydata(), [[2, -5]])
