"""What --dry-run tells: the runs, and their cost from a short measurement."""

from sorl.sweep.estimate import cost_of, last_end, shape_of, show
from sorl.sweep.grid import Grid, expand

from .. import synthetic


def test_runs_of_one_shape_are_measured_once_and_members_of_populations_count(tmp_path, capsys):
    synthetic.write_logs(tmp_path / "logs.npz")
    options = f"--data {tmp_path / 'logs.npz'} --agent.hidden-sizes 8 --batch-size 4 --updates 10"
    alone = Grid(("bc",), options=options, set=(("agent.learning-rate", "1e-3", "1e-4"),))
    population = Grid(("bc",), options=f"{options} --population agent.learning-rate 1e-3 1e-4 1e-5")
    show([*expand(alone), *expand(population)], 2, measure=True)
    said = capsys.readouterr()
    assert said.err == "Measuring bc ..\n" * 2
    assert "    2  bc on own logs, agent.learning-rate 1e-4, seed 0: 10 updates; about " in said.out
    assert "3 runs of 5 trainings.\nAbout " in said.out and "of each of 2 shapes on this machine" in said.out


def test_a_run_takes_its_time_however_many_there_may_be_at_once():
    assert [last_end([3.0, 1.0, 1.0, 2.0], jobs) for jobs in (1, 2, 3, 16)] == [7.0, 4.0, 3.0, 3.0]


def test_what_a_number_turns_on_is_a_shape_of_its_own(tmp_path):
    synthetic.write_logs(tmp_path / "logs.npz")
    options = f"--data {tmp_path / 'logs.npz'}"
    weights = Grid(("sorl-plus",), options=options, set=(("agent.cloning-weight", "None", "0.1", "1"),))
    population = Grid(("sorl-plus",), options=f"{options} --population agent.cloning-weight 0.1")
    off, on, also_on, varied = (shape_of(planned.config) for planned in (*expand(weights), *expand(population)))
    assert off != on == also_on == varied


def test_logs_that_stay_on_the_host_are_measured_too(tmp_path):
    synthetic.write_logs(tmp_path / "logs.npz")
    options = f"--data {tmp_path / 'logs.npz'} --data.residence host --agent.hidden-sizes 8 --batch-size 4"
    (planned,) = expand(Grid(("bc",), options=options))
    assert cost_of(planned.config).seconds > 0
