"""The validation of `sorl.assess` counts what it says, and its page shows what it found."""

import json
import re
from pathlib import Path

import assess_validation
import pendulum_logs
import pytest


ROOT = Path(__file__).parents[2]


def row(policy, success, **measures):
    every = dict.fromkeys([*assess_validation.MEASURES, "own Q's rank correlation"])
    return {"policy": policy, "budget": "M1N1", "success": success, "return": -1.0} | every | measures


def test_correlations_are_over_the_policies_that_have_a_measure():
    name, own = "fitted value at first states", "own critic's value"
    rows = [
        row("bc-1", 0.0, **{name: 9.0}),
        row("sorl-1", 0.1, **{name: 1.0, own: 3.0}),
        row("sorl-2", 0.5, **{name: 2.0, own: 2.0}),
        row("sorl-3", 0.7, **{name: 3.0, own: 1.0}),
    ]
    found = {line["measure"]: line for line in assess_validation.correlations(rows)}
    # Ranks 1, 2, 3, 4 against 4, 1, 2, 3: 1 - 6 (9 + 1 + 1 + 1) / (4 * 15).
    assert found[name] == {"measure": name, "all": pytest.approx(-0.2), "all n": 4, "SORL": 1.0, "SORL n": 3}
    assert (found[own]["all"], found[own]["all n"]) == (pytest.approx(-1.0), 3)
    assert found["own Q's rank correlation"]["all"] is None
    assert f"{name:<44}   -0.20    4    1.00    3" in assess_validation.text(list(found.values()))


def test_the_page_shows_the_correlations_of_the_file():
    found = json.loads((ROOT / "benchmarks/results/assess_validation.json").read_text())
    page = (ROOT / "docs/assess.md").read_text()
    shown = re.findall(r"^\| [^|]+ \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    tables = zip(*(found[task]["correlations"] for task in ("pendulum", "cube")), strict=True)
    expected = [
        tuple("-" if one["all n"] == one["SORL n"] and g == "all" else f"{one[g]:.2f}" for one in both for g in GROUPS)
        for both in tables
    ]
    assert sorted(expected) == sorted(line for line in shown if set("".join(line)) - set("-"))


GROUPS = ("all", "SORL")


@pytest.mark.parametrize(
    "observation, torque",
    [
        ([-1.0, 0.0, 1.0], 2.0),  # it hangs, with too little energy: with the motion
        ([-1.0, 0.0, -1.0], -2.0),
        ([0.0, 1.0, 8.0], -2.0),  # too much energy: against it
        ([1.0, 0.0, 0.5], -1.5),  # near the top: -3 times the speed
    ],
)
def test_the_controller_of_the_pendulum(observation, torque):
    assert pendulum_logs.torque(observation) == pytest.approx(torque)
