"""A population in tables and reports: a method for each combination of values, and the score against a value."""

import dataclasses

import numpy as np
import pytest

from sorl.agents import Iql
from sorl.assess.record import PolicyFacts, write_assessment
from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.config.population import Varied
from sorl.policy.seed_record import write_bad_seeds
from sorl.report import __main__ as report
from sorl.report.population import draw_score_against_value
from sorl.report.runs import read_runs
from sorl.report.scores import scores
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog, read_metrics
from sorl.runs.versions import record_versions
from sorl.statistics.rows import evaluation_rows
from sorl.statistics.tables import headline, table

from ..assess.test_trust import GOOD


CUBE = "cube-single-play-singletask-task1-v0"
SUCCESS = {0.5: (0.2, 0.4), 0.9: (0.6, 1.0)}
"""The success of the two seeds for each value of the expectile."""


@pytest.fixture
def run(tmp_path):
    """A run directory as `sorl.train` writes it."""
    config = TrainConfig(
        env=CUBE,
        agent=Iql(),
        evaluation=EvaluationConfig(interval=10, episodes=10),
        seeds=(3, 4),
        population=(Varied("agent.expectile", tuple(SUCCESS)),),
        updates=10,
    )
    directory = tmp_path / "run"
    runs.create(directory, config)
    data = {"source": "generated", "episodes": 9, "path": "-", "sha256": "-"}
    record_versions(directory, config, data)
    name = config.budgets(final=False)[0].name
    with MetricLog(directory, members={number: one.columns() for number, one in config.members.items()}) as log:
        for number, rate in enumerate(rate for rates in SUCCESS.values() for rate in rates):
            figures = {"success": rate, "return": -1.0, "episode_length": 2.0}
            log.write(10, number, {f"evaluation/{key}/{name}": figure for key, figure in figures.items()})
    return directory


def test_means_are_over_the_seeds_of_each_value(run):
    summary = headline(evaluation_rows(read_metrics(run), 10))
    found = [(row["agent.expectile"], row["seeds"], row["success"]) for row in summary]
    assert found == [(0.5, 2, pytest.approx(0.3)), (0.9, 2, pytest.approx(0.8))]
    lines = table(summary).splitlines()
    assert [lines[1], lines[3]] == ["agent.expectile 0.5:", "agent.expectile 0.9:"]
    assert lines[4].split()[2] == "0.800"


def test_each_value_is_a_method_of_the_report(run, tmp_path):
    found = scores(read_runs([run]))
    assert list(found) == ["iql, expectile 0.5", "iql, expectile 0.9"]
    for method, rates in zip(found, SUCCESS.values(), strict=True):
        np.testing.assert_allclose(found[method][CUBE], rates)
    page = report.main(report.Config((run,), out=tmp_path / "report")).read_text()
    assert "Populations" in page and page.count("--run-dir NEW") == 1
    assert (tmp_path / "report" / "population-run-agent.expectile.png").exists()


def test_a_member_that_is_not_counted_is_named_with_its_value(run, tmp_path):
    write_bad_seeds(run, {2: 5})
    page = report.main(report.Config((run,), out=tmp_path / "report")).read_text()
    assert "run (agent.expectile 0.9): not counted, because losses became non-finite: seed 3." in page
    assert page.count("not counted") == 1


def test_an_assessment_is_of_the_value_of_its_member(run):
    write_assessment(run / "assessment.json", dataclasses.replace(GOOD, policy=PolicyFacts("Iql", CUBE, 3, 9, "-", 2)))
    assert [found.method for found in read_runs([run]) if found.assessment is not None] == ["iql, expectile 0.9"]


def test_values_that_agree_in_six_digits_are_not_pooled(run):
    for name in ("config.json", "metrics.jsonl"):
        (run / name).write_text((run / name).read_text().replace("0.5", "0.9000001"))
    found = scores(read_runs([run], ["iql"]))
    assert list(found) == ["iql, agent.expectile 0.9000001", "iql, agent.expectile 0.9"]
    np.testing.assert_allclose(found["iql, agent.expectile 0.9"][CUBE], SUCCESS[0.9])


def test_the_picture_has_each_value_with_its_mean_and_interval(run, axes):
    draw_score_against_value(axes, headline(evaluation_rows(read_metrics(run), 10)), "agent.expectile")
    (line,) = axes.containers
    np.testing.assert_allclose(line.lines[0].get_xydata(), [[0.5, 30.0], [0.9, 80.0]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "0.9"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("agent.expectile", "success (%)")
