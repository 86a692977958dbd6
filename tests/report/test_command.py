"""The report: scores, and a self-contained page."""

import dataclasses
import html.parser
import json
import shlex
import sys

import numpy as np
import pytest

from sorl.agents import Bc, Sorl
from sorl.config import presets
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.policy.seed_record import write_bad_seeds
from sorl.report import __main__ as report, pictures
from sorl.report.page import STYLE, Page
from sorl.report.paper_table import paper_rows, protocol
from sorl.report.runs import read_runs
from sorl.report.scores import scores
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog
from sorl.statistics.aggregates import interquartile_mean

from .. import synthetic
from ..reaching import forget_environment
from .made_up import CUBE, SCENE, make_run


def test_scores_are_means_of_the_last_three_evaluations_of_each_seed(tmp_path):
    found = scores(read_runs([make_run(tmp_path / "run")]))
    assert list(found) == ["sorl"] and list(found["sorl"]) == [CUBE]
    np.testing.assert_allclose(found["sorl"][CUBE], [0.5, 0.7])


def test_runs_of_one_method_count_together_but_not_twice(tmp_path):
    one = make_run(tmp_path / "one", seeds=(1,), final=(0.4,))
    other = make_run(tmp_path / "other", seeds=(2,), final=(0.8,))
    np.testing.assert_allclose(scores(read_runs([one, other]))["sorl"][CUBE], [0.4, 0.8])
    with pytest.raises(ValueError, match="given twice"):
        read_runs([one, one])
    again = make_run(tmp_path / "again", seeds=(1,), final=(0.4,))
    with pytest.raises(ValueError, match=r"are both sorl on cube-single\S* with seed 1; give one"):
        read_runs([one, again])
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        read_runs([tmp_path])


class Reader(html.parser.HTMLParser):
    """Reads a page: its text and the sources of its pictures; checks that every element is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.sources, self.words = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read_page(path):
    page = Reader(path.read_text())
    assert page.open == [] and all(source.startswith(("data:", "#")) for source in page.sources)
    return page, " ".join(page.words)


def test_the_page_holds_every_section_and_needs_nothing_beside_it(tmp_path):
    made = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", env=SCENE),
        make_run(tmp_path / "c", final=(0.1, 0.3), agent=Bc()),
        make_run(tmp_path / "d", final=(0.3, 0.3), agent=Sorl(discretization_steps=4, backprop_steps=2)),
        make_run(tmp_path / "e", final=(0.3, 0.2), agent=Bc(hidden_sizes=(16,)), env=SCENE, seeds=(5, 6)),
    ]
    pairs = [_pair(m, n) for m in (1, 4) for n in (1, 8)]
    (made[0] / "scaling.json").write_text(json.dumps({"pairs": pairs}))
    (tmp_path / "runtime.json").write_text(json.dumps(RUNTIME))
    out = report.main(report.Config(tuple(made), out=tmp_path / "report", runtime=(tmp_path / "runtime.json",)))
    page, words = read_page(out)
    pictures = sorted(path.name for path in out.parent.glob("*.png"))
    assert len([source for source in page.sources if source.startswith("data:image/png;base64,")]) == len(pictures)
    for name in (f"curves-{CUBE}", f"score-{SCENE}", "improvement", f"backprop-steps-{CUBE}", "scaling-a", "runtime-0"):
        assert f"{name}.png" in pictures
    assert "3 methods on 2 tasks" in words and "python -m sorl.train --config" in words
    # Seeds 0.5 and 0.7 of sorl with 4 jumps against 0.1 and 0.3 of bc on the only task that both have: always better.
    assert "probability" in words and "1.000" in words and "0.600" in words
    assert f"python -m sorl.report {made[0]}" in words


def test_tasks_without_success_are_scored_by_the_return_and_left_out_of_the_mean_over_tasks(tmp_path):
    made = [make_run(tmp_path / "a"), make_run(tmp_path / "b", env=SCENE)]
    directory = tmp_path / "c"
    data = DataConfig(path=tmp_path / "logs.npz")
    config = TrainConfig(env="gymnasium:Pendulum-v1", agent=Bc(), data=data, evaluation=EvaluationConfig(interval=10))
    runs.create(directory, config)
    with MetricLog(directory) as log:
        for step, mean in ((10, -400.0), (20, -300.0), (30, -200.0), (40, -100.0)):
            figures = {"return": mean, "return_low": mean - 20, "return_high": mean + 10, "episode_length": 200.0}
            log.write(step, 0, {f"evaluation/{key}/M1N1": figure for key, figure in figures.items()})
    row = {"training_seed": 0, "inference_steps": 1, "candidates": 1, "successes": None, "episodes": 10}
    ends = {"return": -100.0, "return_low": -120.0, "return_high": -90.0}
    (directory / "evaluation.json").write_text(json.dumps({"rows": [row | ends]}))
    found = read_runs([*made, directory])
    np.testing.assert_allclose(scores(found)["bc"]["gymnasium:Pendulum-v1"], [-200.0])
    _, words = read_page(report.main(report.Config((*made, directory), out=tmp_path / "report")))
    assert "gymnasium:Pendulum-v1: the environment reports no success, so the score is the return" in words
    assert "-200 -220 .. -190" in words and "not reported" in words
    assert "Over the 2 tasks with success" in words
    assert (tmp_path / "report" / "curves-gymnasium-Pendulum-v1.png").exists()


def test_a_success_that_is_not_reported_counts_as_none_where_another_run_has_one(tmp_path):
    data = DataConfig(path=tmp_path / "logs.npz")
    agents = {"never": Bc(), "late": Sorl(discretization_steps=4, backprop_steps=4)}
    for name, agent in agents.items():
        evaluation = EvaluationConfig(interval=10, episodes=10)
        config = TrainConfig(env="gymnasium:Pendulum-v1", agent=agent, data=data, evaluation=evaluation)
        budget = config.budgets(final=False)[0]
        runs.create(tmp_path / name, config)
        with MetricLog(tmp_path / name) as log:
            for step in (10, 20, 30):
                judged = {"success": 0.3} if (name, step) == ("late", 30) else {}
                figures = judged | {"return": -1.0, "episode_length": 2.0}
                log.write(step, 0, {f"evaluation/{key}/{budget.name}": value for key, value in figures.items()})
        row = {"training_seed": 0, "inference_steps": budget.inference_steps, "candidates": 1, "episodes": 10}
        table = [row | {"successes": None, "return": -1.0}]
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"rows": table}))
    found = read_runs([tmp_path / name for name in agents])
    assert [[row["successes"] for row in run.evaluations] for run in found] == [[0, 0, 0], [0, 0, 3]]
    assert [run.table[0]["successes"] for run in found] == [0, 0]
    assert {name: own["gymnasium:Pendulum-v1"].tolist() for name, own in scores(found).items()} == {
        "bc": [0.0],
        "sorl": [pytest.approx(0.1)],
    }
    (alone,) = read_runs([tmp_path / "never"])
    assert [row["successes"] for row in [*alone.evaluations, *alone.table]] == [None] * 4
    page = report.main(report.Config(tuple(tmp_path / name for name in agents), out=tmp_path / "report"))
    assert "reports no success" not in page.read_text()


def test_runs_with_values_that_the_rewards_do_not_allow_are_named(tmp_path):
    run = make_run(tmp_path / "run")
    _, words = read_page(report.main(report.Config((run,), out=tmp_path / "report")))
    assert "rewards allow" not in words
    with MetricLog(run, resume_step=100) as log:
        for step, excesses in ((50, (0.0, 0.4)), (60, (0.5, 0.0)), (70, (0.6, 0.0))):
            for seed, excess in zip((1, 2), excesses, strict=True):
                log.write(step, seed, {"training/value_excess": excess})
    _, words = read_page(report.main(report.Config((run,), out=tmp_path / "report")))
    left = "values left the range that the data's rewards allow at update"
    assert f"{run}, seed 1: {left} 60 and are outside it in the last row: do not trust this policy." in words
    assert f"{run}, seed 2: {left} 50, and came back." in words


def test_a_picture_shows_an_interval_only_where_the_table_beside_it_has_one(tmp_path, monkeypatch):
    drawn, lone = {}, {"seeds": (1,), "final": (0.5,)}
    monkeypatch.setattr(pictures, "estimates", lambda axes, rows, label, *_: drawn.update({label: rows}))
    made = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", env=SCENE, **lone),
        make_run(tmp_path / "c", agent=Bc()),
        make_run(tmp_path / "d", env=SCENE, agent=Bc(), final=(0.2, 0.9)),
    ]
    report.main(report.Config(tuple(made), out=tmp_path / "report"))
    means = drawn["interquartile mean of success (%)"]
    assert means["sorl"] == (pytest.approx(1.7 / 3), None, None)  # one seed of scene says nothing of others
    assert means["bc"] == pytest.approx(interquartile_mean([np.array([0.5, 0.7]), np.array([0.2, 0.9])]))
    assert drawn["probability (%)"] == {"sorl > bc": (0.5, None, None)}


def test_over_several_tasks_there_is_an_interquartile_mean(tmp_path):
    made = [make_run(tmp_path / "a", final=(0.2, 0.4)), make_run(tmp_path / "b", env=SCENE, final=(0.5, 0.9))]
    _, words = read_page(report.main(report.Config(tuple(made), out=tmp_path / "report")))
    assert "interquartile mean of all scores" in words and "0.450" in words  # of 0.2 | 0.4, 0.5 | 0.9


def test_seeds_that_agree_have_wilsons_interval_beside_the_published_scores(tmp_path):
    made = make_run(tmp_path / "a", final=(0.5, 0.5)), make_run(tmp_path / "b", env=SCENE, final=(0.7, 0.7))
    rows = {row.environment: row.cells() for row in paper_rows(read_runs(made))}
    # Two seeds, three evaluations of the same 20 episodes: 20 of 40, and 28 of 40.
    assert rows["cube-single-play"][3:5] == ["0.500", "0.352 .. 0.648"]
    assert rows["scene-play"][3:5] == ["0.700", "0.546 .. 0.819"]


def test_scores_of_the_paper_are_read_at_its_budget_and_interval():
    config = presets.paper(CUBE)
    assert config.budgets(final=False)[0].name == "M4N1" and protocol(config, {"source": "official"}) == "paper"
    evaluation = dataclasses.replace(config.evaluation, interval=10_000, inference_steps=(1, 4))
    other = dataclasses.replace(config, evaluation=evaluation)
    assert protocol(other, {"source": "official"}) == "every-10000-updates+M1N1"


def test_a_lone_seed_has_wilsons_interval_and_a_run_without_evaluations_none(tmp_path):
    lone = make_run(tmp_path / "lone", seeds=(1,), final=(0.5,))
    _, words = read_page(report.main(report.Config((lone,), out=tmp_path / "report")))
    assert "0.500" in words and "0.299 .. 0.701" in words  # of 10 in 20
    bare = make_run(tmp_path / "bare")
    for name in ("metrics.jsonl", "evaluation.json", "scaling.json"):
        (bare / name).unlink(missing_ok=True)
    (bare / "checkpoints" / "30").mkdir(parents=True)
    _, words = read_page(report.main(report.Config((bare,), out=tmp_path / "report")))
    assert "None of the runs was evaluated during training" in words


def test_updates_are_those_that_were_made_and_failed_starts_are_left_out(tmp_path, capsys):
    made, failed = make_run(tmp_path / "made"), tmp_path / "failed"
    runs.create(failed, TrainConfig(seeds=(0,)))
    (made / "checkpoints" / "77777").mkdir(parents=True)
    _, words = read_page(report.main(report.Config((failed, made), out=tmp_path / "report")))
    assert "1 method on 1 task" in words and "77777" in words
    assert f"{failed} is left out: it was started but never trained.\n" in capsys.readouterr().out
    with pytest.raises(ValueError, match="None of the runs was ever trained"):
        report.main(report.Config((failed,), out=tmp_path / "report"))


def test_odd_and_equal_names_are_no_obstacle(tmp_path):
    odd = ["a b; <c> $x$ ü", "n" * 150, "\udcff", "x/same", "y/same"]
    made = [make_run(tmp_path / name, seeds=(i,), final=(0.5,)) for i, name in enumerate(odd)]
    page, words = read_page(report.main(report.Config(tuple(made), out=tmp_path / "report")))
    pictures = list((tmp_path / "report").glob("*.png"))
    assert len([source for source in page.sources if source.startswith("data:image/png")]) == len(pictures)
    assert "'" + str(made[0] / "config.json") + "'" in words


@pytest.mark.parametrize(
    ("name", "bad"),
    [("logs.npz", ()), ("$a_{ <b> & ü 机.npz", (1,)), (r"$\frac$.npz", (1, 2)), ("_a\nb.npz", ())],
)
def test_a_run_on_own_logs_has_a_page_without_empty_halves(tmp_path, name, bad):
    data = DataConfig(path=tmp_path / name)
    config = TrainConfig(env=None, data=data, evaluation=EvaluationConfig(interval=0), seeds=(1, 2), updates=40)
    run, other = tmp_path / name[:-4], make_run(tmp_path / "b" / name[:-4], env=SCENE)
    runs.create(run, config)
    with MetricLog(run) as log:
        for seed in config.seeds:
            log.write(10, seed, {"training/q_loss": 1.0})
    write_bad_seeds(run, dict.fromkeys(bad, 20))
    (run / "policy-seed-1.sorl").touch()
    for made in ((run,), (run, other)):
        page, words = read_page(report.main(report.Config(made, out=tmp_path / "report")))
        shown = " ".join(text for text in page.words if text != STYLE)
        assert ": ." not in shown and "nan" not in shown
    _, words = read_page(report.main(report.Config((run,), out=tmp_path / "report")))
    assert "None of the runs has an environment, so none was evaluated." in words
    assert "sorl.scaling" not in words and f"sorl.policy {shlex.quote(str(run))} --latency-ms" in words


def test_runs_of_evaluations_at_several_candidates_alone_are_drawn(tmp_path):
    run = make_run(tmp_path / "run")
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    (run / "evaluation.json").write_text(json.dumps({"rows": [row for row in rows if row["candidates"] == 8]}))
    (run / "versions.json").write_text('{"data": []}')
    out = tmp_path / "missing" / "report"
    read_page(report.main(report.Config((run,), out=out)))
    assert [path.name for path in out.glob("steps-*.png")]


def test_ablations_without_a_point_are_not_drawn(tmp_path):
    # The evaluations are at four steps and one sample, of which the table has no row.
    agents = [Sorl(discretization_steps=4, backprop_steps=k, hidden_sizes=(8 * k,)) for k in (2, 4)]
    made = [make_run(tmp_path / str(i), agent=agent, budgets=(8,)) for i, agent in enumerate(agents)]
    report.main(report.Config(tuple(made), out=tmp_path / "report"))
    assert not [*(tmp_path / "report").glob("backprop-*.png"), *(tmp_path / "report").glob("width-*.png")]
    drawn = [make_run(tmp_path / f"drawn{i}", agent=agent) for i, agent in enumerate(agents)]
    report.main(report.Config(tuple(drawn), out=tmp_path / "drawn"))
    assert [*(tmp_path / "drawn").glob("backprop-*.png")] and [*(tmp_path / "drawn").glob("width-*.png")]


def test_a_file_of_no_times_is_one_sentence(tmp_path):
    path = tmp_path / "runtime.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=rf"^{path} has no command, decisions, machine, [^\n]*runtime.py\.$"):
        report.main(report.Config((make_run(tmp_path / "run"),), out=tmp_path / "report", runtime=(path,)))


def test_what_is_no_run_is_one_sentence(tmp_path):
    policy, file, empty = tmp_path / "policy-seed-0.sorl", tmp_path / "file", tmp_path / "empty"
    policy.touch()
    file.touch()
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=f"^{policy} is a policy file; give the run directory that it is in.$"):
        read_runs([policy])
    with pytest.raises(ValueError, match=f"^{policy} is not a sorl-policy file; give one that sorl wrote.$"):
        runs.load_run(policy)  # which takes a policy file, but not an empty one
    for path, said in (
        (file, "is a file; give the run directory that sorl.train printed."),
        (empty, "holds no config.json; give the run directory that sorl.train printed."),
    ):
        for read in (runs.load_run, lambda path: read_runs([path])):
            with pytest.raises(FileNotFoundError, match=f"^{path} {said}$"):
                read(path)
    with pytest.raises(FileNotFoundError, match=f"^There is no directory {tmp_path / 'none'}; give the run directory"):
        runs.load_run(tmp_path / "none")


def test_what_stands_on_the_page_is_escaped_and_numbers_are_set_right():
    page = Page("a < b & c")
    page.section("<script>")
    page.table(["<i>"], [["<b>", "1.5", "+0.1", "-x"]])
    shown = page.html()
    assert "<script>" not in shown and "<b>" not in shown and "a &lt; b &amp; c" in shown
    assert shown.count('<td class="number">') == 2


def test_nothing_is_not_reported(tmp_path):
    with pytest.raises(ValueError, match="No run is given"):
        report.Config(())
    logs = make_run(tmp_path / "run")
    forget_environment(logs)
    with pytest.raises(ValueError, match="None of the runs has an environment to film; name one with --film-env"):
        report.main(report.Config((logs,), out=tmp_path / "report", film=True))
    with pytest.raises(ValueError, match="nothing is filmed; add --film"):
        report.Config((logs,), film_env="gymnasium:Pendulum-v1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            (name, content)
            for name in ("versions.json", "evaluation.json", "scaling.json")
            for content in ("", "{", "[]")
        ),
        ("evaluation.json", '{"rows": [{"episodes": 3}]}'),
        ("scaling.json", '{"pairs": [{"episodes": 3}]}'),
        ("scaling.json", '{"pairs": 3}'),
    ],
)
def test_a_damaged_file_of_a_run_is_one_sentence(tmp_path, name, content):
    path = make_run(tmp_path / "run") / name
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path} [^\n]*\.$"):
        read_runs([path.parent])


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="matplotlib"):
        report.main(report.Config((make_run(tmp_path / "run"),), out=tmp_path / "report"))


def _pair(steps, candidates):
    score = synthetic.score(steps, candidates)
    latency = {"latency_ms": 1.0 * steps, "latency_p95_ms": 2.0 * steps}
    return score | latency | {"seeds": 2, "episodes": 9, "remark": ""}


RUNTIME = {
    "machine": {"device": "cpu"},
    "command": ["benchmarks/runtime.py", "--out", "a b.json"],
    "settings": {"agent": "Sorl", "layers": 2, "width": 8, "batch_size": 4},
    "updates": [{"backprop_steps": k, "seeds": 1, "milliseconds": 1.0 * k} for k in (1, 2)],
    "decisions": [
        {"batch": batch, "inference_steps": m, "candidates": n, "milliseconds": 0.1 * m * n}
        for batch in (1, 64)
        for m in (1, 2)
        for n in (1, 8)
    ],
}
