"""The variants of the ablation are those that they are named, and its table says what intervals decide."""

import dataclasses
import shlex

import ablate
import pytest

from sorl.agents import SorlPlus
from sorl.policy.seed_record import write_bad_seeds
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog
from sorl.train.cli import parse


@pytest.mark.parametrize("level, preset", [("cpu", "quickstart"), ("gpu", "paper")])
def test_each_variant_turns_on_what_it_names_alone(level, preset):
    config = ablate.Config(level=level, variants=("expected max of 4, cloned", "weighted cloning", "Fql, ten heads"))
    made = {}
    for name, words in config.agents.items():
        given = shlex.split(f"agent:{words} {config.common} --data.sparse-rewards")
        made[name] = parse([*given, "--env", ablate.TASKS[0], "--preset", preset])[0]
    plain = made["Sorl"].agent
    cloned, weighted = (made[name].agent for name in ("expected max of 4, cloned", "weighted cloning"))
    assert (cloned.backup_candidates, cloned.use_q_loss, cloned.cloning_weight) == (4, False, None)
    assert (weighted.backup_candidates, weighted.use_q_loss, weighted.cloning_weight) == (1, True, 0.01)
    assert plain.q_coefficient == weighted.q_coefficient and plain.discount == weighted.discount
    assert made["Fql, ten heads"].agent.critic_heads == 10
    for found in made.values():
        assert found.data.sparse_rewards and found.updates == (60_000 if level == "cpu" else 1_000_000)
        assert found.evaluation.interval == found.updates // 6


def test_a_variant_helps_or_hurts_where_the_intervals_do_not_overlap():
    def row(variant, low, mean, high, task="a"):
        ends = {"headline_low": low, "headline": mean, "headline_high": high}
        return {"variant": variant, "task": task, "rewards": "default"} | ends

    rows = [
        row("Sorl", 0.2, 0.3, 0.4),
        row("better", 0.5, 0.6, 0.7),
        row("worse", 0.0, 0.1, 0.15),
        row("like it", 0.3, 0.45, 0.6),
        row("unknown", None, 0.9, None),
        row("alone", 0.1, 0.2, 0.3, task="b"),
    ]
    found = ablate.compared(rows)
    assert [row["decision"] for row in found] == ["-", "helps", "hurts", "unclear", "unclear"]
    assert found[1]["difference"] == pytest.approx(0.3)
    # A run that still has updates to make decides nothing.
    plain, better = (rows[0] | {"finished": True}), (rows[1] | {"finished": False})
    assert [row["decision"] for row in ablate.compared([plain, better])] == ["-", "not finished"]
    plain, better = (rows[0] | {"finished": False}), (rows[1] | {"finished": True})
    decided = [row["decision"] for row in ablate.compared([plain, better])]
    assert decided == ["not finished", "Sorl is not finished"]


def test_success_by_budget_is_over_all_seeds_and_has_a_table_where_there_are_several():
    def result(successes, episodes, steps, kind="after training"):
        return {"kind": kind, "steps": steps, "candidates": 1, "successes": successes, "episodes": episodes}

    results = [result(1, 10, 1), result(2, 30, 1), result(5, 10, 4), result(9, 10, 4, "last three evaluations")]
    assert ablate.by_budget(results) == {"1, 1": 0.075, "4, 1": 0.5}
    rows = [{"variant": "Sorl", "budgets": {"1, 1": 0.075, "4, 1": 0.5}}, {"variant": "a", "budgets": {"4, 1": 1.0}}]
    assert ablate.budget_lines(rows) == [
        "| success after training at M^inf, N | 1, 1 | 4, 1 |",
        "|---|---|---|",
        "| Sorl | 0.07 | 0.50 |",
        "| a | - | 1.00 |",
        "",
    ]
    assert ablate.budget_lines(rows[1:]) == []


def test_success_by_seed_has_each_kind_of_evaluation_and_each_budget():
    def result(seed, successes, steps, kind="after training"):
        return {"seed": seed, "kind": kind, "steps": steps, "candidates": 1, "successes": successes, "episodes": 10}

    results = [result(2, 1, 1), result(1, 3, 1), result(1, 5, 4), result(1, 9, 4, "last three evaluations")]
    assert ablate.by_seed(results) == {
        "after training": {"1, 1": [0.3, 0.1], "4, 1": [0.5]},
        "last three evaluations": {"4, 1": [0.9]},
    }


def test_a_variant_has_only_the_switches_that_it_names():
    settings = {"discount", "q_coefficient", "q_aggregation"}  # which Sorl has too
    switches = {name for found in SorlPlus.published.settings.values() for name in found.fields} - settings
    assert {name.replace("_", "-") for name in switches} == ablate.OFF.keys()
    for task in ablate.TASKS:
        words = ablate.one_at_a_time("sorl-plus --agent.n-step 3").split()
        agent = parse(["--env", task, f"agent:{words[0]}", *words[1:]])[0].agent
        assert isinstance(agent, SorlPlus)
        assert all(getattr(agent, name) == getattr(SorlPlus(), name) for name in switches)


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="There is no variant 'magic'; give some of Sorl, "):
        ablate.Config(variants=("magic",))


def test_no_updates_or_episodes_are_refused_rather_than_taken_for_the_default():
    with pytest.raises(ValueError, match="updates is 0; give a whole number from 1 to"):
        ablate.Config(updates=0)
    with pytest.raises(ValueError, match="episodes is 0; give a whole number from 1 to"):
        ablate.Config(episodes=0)


def test_without_time_nothing_starts_and_the_table_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate.subprocess, "Popen", lambda *_: pytest.fail("a run was started"))
    config = ablate.Config(
        level="gpu", variants=("one jump: Q loss",), tasks=ablate.TASKS[:1], sparse_tasks=(), minutes=0, out=tmp_path
    )
    assert ablate.main(config) == []
    assert "2 runs are not finished" in capsys.readouterr().out
    assert "level gpu, --updates 1000000 --data.episodes 1000" in (tmp_path / "ablate.md").read_text()


def test_finished_runs_with_other_options_are_not_taken_for_these(tmp_path):
    config = ablate.Config(level="gpu", variants=(), tasks=ablate.TASKS[:1], sparse_tasks=(), minutes=0, out=tmp_path)
    run = tmp_path / "default" / ablate.TASKS[0] / "Sorl"
    words = f"--preset paper --env {ablate.TASKS[0]} {config.common} --matmul-precision tensorfloat32 --seeds 0 1 2 3"
    runs.create(run, parse(words.split())[0])
    (run / "evaluation.json").touch()
    assert ablate.main(config) == []
    with pytest.raises(
        ValueError, match=r"The run in \S*Sorl has other options \(evaluation.interval, updates\); give"
    ):
        ablate.main(dataclasses.replace(config, updates=10))


def test_a_seed_whose_losses_became_non_finite_is_left_out(tmp_path, capsys):
    config = ablate.Config(
        level="gpu", variants=(), tasks=ablate.TASKS[:1], sparse_tasks=(), minutes=0, seeds=(0, 1), out=tmp_path
    )
    run = tmp_path / "default" / ablate.TASKS[0] / "Sorl"
    words = f"--preset paper --env {ablate.TASKS[0]} {config.common} --matmul-precision tensorfloat32 --seeds 0 1"
    runs.create(run, parse(words.split())[0])
    with MetricLog(run) as log:
        for seed, success in ((0, 0.8), (1, 0.0)):
            figures = {"success": success, "return": -1.0, "episode_length": 2.0}
            log.write(10, seed, {f"evaluation/{name}/M4N1": value for name, value in figures.items()})
    write_bad_seeds(run, {1: 12})
    (run / "evaluation.json").touch()
    (row,) = ablate.main(config)
    assert (row["headline"], row["seeds"]) == (0.8, 1)
    assert "Sorl on cube-double-play-singletask-task2-v0, seed 1, is left out: its losses" in capsys.readouterr().out
    write_bad_seeds(run, {0: 12, 1: 12})
    assert ablate.main(config) == []


def test_a_run_that_is_evaluated_at_other_steps_has_a_row_at_the_first_of_its_budgets(tmp_path):
    options = "--evaluation.inference-steps 1 4 --evaluation.candidates 2"
    config = ablate.Config(
        level="gpu",
        variants=(),
        tasks=ablate.TASKS[:1],
        sparse_tasks=(),
        minutes=0,
        seeds=(0,),
        options=options,
        out=tmp_path,
    )
    run = tmp_path / "default" / ablate.TASKS[0] / "Sorl"
    words = f"--preset paper --env {ablate.TASKS[0]} {config.common} --matmul-precision tensorfloat32 --seeds 0"
    runs.create(run, parse(words.split())[0])
    with MetricLog(run) as log:
        for budget, success in (("M1N2", 0.8), ("M4N2", 0.2)):
            figures = {"success": success, "return": -1.0, "episode_length": 2.0}
            log.write(10, 0, {f"evaluation/{name}/{budget}": value for name, value in figures.items()})
    (run / "evaluation.json").touch()
    (row,) = ablate.main(config)
    assert (row["budget"], row["headline"]) == ("1, 2", 0.8)


def test_a_run_beyond_its_time_is_asked_to_save_and_is_resumed_by_the_same_command(tmp_path, monkeypatch):
    started = []

    class Process:
        def __init__(self, words):
            started.append(words)
            self.ended = False

        def wait(self, timeout=None):
            if timeout is not None and not self.ended:
                raise ablate.subprocess.TimeoutExpired("train", timeout)
            return 0

        def poll(self):
            return 0 if self.ended else None

        def terminate(self):
            self.ended = True

    monkeypatch.setattr(ablate.subprocess, "Popen", Process)
    assert not ablate.finish(["agent:sorl", "--seeds", "0"], tmp_path, ablate.time.monotonic())
    assert started[0][2:] == ["sorl.train", "agent:sorl", "--seeds", "0", "--run-dir", str(tmp_path), "--quiet"]
    (tmp_path / "config.json").touch()
    assert ablate.finish(["agent:sorl", "--seeds", "0"], tmp_path, float("inf"))
    assert started[1][2:] == ["sorl.train", "--resume", "--run-dir", str(tmp_path), "--quiet"]


def test_a_run_that_lost_a_seed_is_finished_once_it_has_its_table(tmp_path, monkeypatch):
    class Process:
        def __init__(self, words):
            pass

        def wait(self, timeout=None):
            return 1

        def poll(self):
            return 1

    monkeypatch.setattr(ablate.subprocess, "Popen", Process)
    with pytest.raises(RuntimeError, match="ended with exit code 1; its output says why"):
        ablate.finish(["agent:sorl"], tmp_path, float("inf"))
    (tmp_path / "evaluation.json").touch()
    assert ablate.finish(["agent:sorl"], tmp_path, float("inf"))
