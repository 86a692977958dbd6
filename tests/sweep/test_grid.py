"""What a grid means: its runs, their directories, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from sorl.agents import AGENTS, PAPERS_METHODS
from sorl.config import presets
from sorl.config.options import read_config
from sorl.environments.names import matching
from sorl.runs.sweeps import read_plan
from sorl.sweep import __main__ as sweep, results, run
from sorl.sweep.grid import Grid, expand, settings_digest, with_joined_options
from sorl.sweep.plan import CONFIG, read_grid, write_plan

from .. import own_agent


TASK = "cube-single-play-singletask-task1-v0"
SMALL = Grid(agents=("bc",), envs=(TASK,), preset="quickstart")


def test_patterns_mean_numbered_tasks_and_beginnings_five():
    assert len(matching("cube-*")) == 4 * 2 * 5 and "cube-single-play-singletask-v0" not in matching("cube-*")
    assert matching("scene-play") == [f"scene-play-singletask-task{n}-v0" for n in (1, 2, 3, 4, 5)]
    assert matching("scene-play-singletask-v0") == ["scene-play-singletask-v0"]
    with pytest.raises(ValueError, match="No environment is named 'cube-singel-\\*'; the nearest known names are cube"):
        matching("cube-singel-*")


def test_every_agent_environment_group_of_seeds_and_value_is_a_run():
    grid = Grid(
        agents=("bc", "fql --agent.distillation-coefficient 2"),
        envs=(TASK, "scene-play-singletask-task2-v0"),
        seeds=(0, 1, 2),
        group=2,
        set=(("agent.discount", "0.9", "0.99"),),
        preset="quickstart",
        options="--updates 30",
    )
    with pytest.raises(ValueError, match="There is no option --agent.discount"):
        expand(grid)  # behaviour cloning has none
    runs = expand(dataclasses.replace(grid, agents=grid.agents[1:]))
    assert len(runs) == 2 * 2 * 2
    assert [one.run.seeds for one in runs] == [(0, 1)] * 4 + [(2,)] * 4
    assert runs[1].run.directory == f"fql_agent.distillation-coefficient_2/{TASK}/agent.discount=0.99/seeds-0-1"
    assert runs[1].run.settings == {"agent.discount": "0.99"} and runs[1].run.updates == 30
    first, last = runs[1].config, runs[-1].config
    assert (first.agent.discount, first.agent.distillation_coefficient) == (0.99, 2.0)  # pyright: ignore
    assert (last.env, last.seeds, last.data.episodes) == ("scene-play-singletask-task2-v0", (2,), 100)


def test_the_settings_are_those_of_train_and_switches_and_lists_are_values():
    values = (("agent.critic-sees-steps", "True", "False"), ("agent.hidden-sizes", "8 8", "16"))
    runs = expand(Grid(envs=(TASK,), preset="quickstart", set=values))
    usual = presets.quickstart(TASK)
    assert [(one.config.agent.critic_sees_steps, one.config.agent.hidden_sizes) for one in runs] == [  # pyright: ignore
        (sees, sizes) for sees in (True, False) for sizes in ((8, 8), (16,))
    ]
    assert runs[0].config == dataclasses.replace(
        usual, agent=dataclasses.replace(usual.agent, hidden_sizes=(8, 8), critic_sees_steps=True)
    )
    assert runs[0].run.source == "the quickstart's: generated data, small networks, few updates."
    (published,) = expand(Grid(envs=(TASK,)))
    assert published.config == presets.paper(TASK) and "published success 97 %" in published.run.source
    (bare,) = expand(Grid())
    assert bare.config == presets.quickstart()


def test_the_papers_sweep_is_eleven_methods_forty_tasks_and_eight_seeds():
    config = sweep.parse(["paper", "--group", "4", "--agents", "bc"])
    assert (config.grid.envs, config.grid.seeds, config.grid.preset) == (("paper",), tuple(range(8)), "paper")
    assert len(sweep.parse(["paper"]).grid.agents) == len(PAPERS_METHODS) == 11
    runs = expand(config.grid)
    assert len(runs) == 40 * 2 and {one.config.updates for one in runs} == {1_000_000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": ("sor",)}, "There is no agent 'sor' \\(do you mean 'sorl'\\?\\); give some of sorl, "),
        (
            {"envs": ("cube-singel-play",)},
            "No environment is named 'cube-singel-play'; the nearest known names are cube",
        ),
        (
            {"set": (("agent.larning-rate", "1"),)},
            "There is no option --agent.larning-rate \\(do you mean '--agent.le",
        ),
        ({"set": (("agent.learning-rate", "fast"),)}, "--agent.learning-rate: 'fast' is not a number"),
        ({"set": (("updates", "10", "10"),)}, "Two runs of the sweep are bc on cube.*, updates 10, seed 0; give"),
        ({"options": "--data 'my logs.npz"}, r"cannot be split into words \(no closing quotation\); quote them"),
        (
            {"options": "--seeds 3 --run-dir x"},
            "The options '--seeds 3 --run-dir x' set what the sweep sets itself; leave devices, directories, "
            "configurations, environments and seeds out",
        ),
        ({"options": "--seeds 3 4"}, "The options '--seeds 3 4' set what .* environments and seeds out"),
        ({"options": "--devices 2"}, "The options '--devices 2' set what .*; leave devices, "),
        ({"options": "--seeds=0"}, "The options '--seeds=0' set what .* environments and seeds out"),
        ({"agents": ("bc --seeds 3 4",)}, "The options '--seeds 3 4' set what .* environments and seeds out"),
        ({"agents": ("bc --run-dir x",)}, "The options '--run-dir x' set what .* environments and seeds out"),
        ({"set": (("updates", "10 --seeds 3"),)}, "The options '--updates 10 --seeds 3' set what .* and seeds out"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_name(change, message):
    with pytest.raises(ValueError, match=message):
        expand(dataclasses.replace(SMALL, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set": (("updates",),)}, "--set updates has no value"),
        ({"set": (("seeds", "1"),)}, "--set seeds is set by the sweep itself"),
        ({"agents": ()}, "at least one agent and one seed"),
        ({"group": 0}, "group is 0"),
        ({"seeds": (0, 1, 0), "group": 2}, "The seeds are 0, 1, 0; give each once"),
        ({"agents": ("sorl", "bc", "sorl")}, "The agents are sorl, bc, sorl; give each once"),
        ({"envs": ("scene-play", "scene-play")}, "The envs are scene-play, scene-play; give each once"),
        ({"set": ((),)}, "--set has no option; name it without dashes before its values"),
        ({"set": (("agent.rate", "1"), ("updates", "1"), ("agent.rate", "2"))}, "--set agent.rate is given more than"),
        ({"set": (("batch_size", "1"), ("batch-size", "2"))}, "--set batch-size is given more than once"),
    ],
)
def test_a_grid_without_runs_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_two_values_of_the_same_setting_are_refused():
    with pytest.raises(ValueError, match="updates 10, seed 0 and .*updates 010, seed 0 have the same settings; give"):
        expand(dataclasses.replace(SMALL, set=(("updates", "10", "010"),)))


def test_a_switch_is_on_or_off():
    with pytest.raises(ValueError, match="^--set data.sparse-rewards is 'maybe'; give True or False"):
        expand(dataclasses.replace(SMALL, set=(("data.sparse-rewards", "True", "maybe"),)))


def test_values_of_options_that_are_no_switches_may_be_true_and_false():
    runs = expand(dataclasses.replace(SMALL, set=(("evaluation.overlap", "None", "True", "False"),)))
    assert [run.config.evaluation.overlap for run in runs] == [None, True, False]
    runs = expand(dataclasses.replace(SMALL, set=(("data.sparse-rewards", "True", "False"),)))
    assert [run.config.data.sparse_rewards for run in runs] == [True, False]


def test_a_file_does_not_choose_which_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, file = own_agent.write(tmp_path).name, tmp_path / "grid.toml"
    file.write_text(f'agents = ["mine"]\nenvs = ["{TASK}"]\nagent_module = ["{module}"]\n')
    with pytest.raises(ValueError, match=f"grid.toml has runs of {module}; add --agent-module {module} if that code"):
        run.parse(["--config", str(file)])
    with own_agent.forgotten_afterwards():
        grid = run.parse(["--config", str(file), "--agent-module", module]).grid
        assert grid.agent_module == (module,) and grid.agents == ("mine",)
        write_plan(tmp_path / "sweep", grid, expand(grid), extend=False)
        write_plan(tmp_path / "sweep", grid, expand(grid), extend=False)
        with pytest.raises(ValueError, match=f"sweep.json has runs of {module}; add --agent-module {module} if that"):
            write_plan(tmp_path / "sweep", SMALL, expand(SMALL), extend=True)
    # Its results import nothing either, from wherever they are asked for.
    monkeypatch.chdir("/")
    assert "no score" in results.write_results(tmp_path / "sweep") and "Mine" not in AGENTS
    words = [str(tmp_path / "sweep"), "--agent-module", str(tmp_path / module)]
    assert results.parse(words).own_agents.agent_module == (words[-1],)


def test_the_digest_of_settings_does_not_depend_on_seeds_and_places():
    one = presets.quickstart(TASK)
    moved = dataclasses.replace(one.data, download=False)
    others = [dataclasses.replace(one, seeds=(5,)), dataclasses.replace(one, data=moved)]
    assert {settings_digest(other) for other in others} == {settings_digest(one)} and len(settings_digest(one)) == 16
    assert settings_digest(dataclasses.replace(one, updates=7)) != settings_digest(one)
    own = presets.own_logs(Path("logs.csv"))
    mapped = dataclasses.replace(own, data=dataclasses.replace(own.data, columns=Path("other.toml")))
    assert settings_digest(mapped) != settings_digest(own)


def test_a_file_describes_the_same_grid(tmp_path):
    toml, expected = tmp_path / "sweep.toml", (("agent.q-coefficient", "10", "50.5"), ("agent.hidden-sizes", "8 8"))
    toml.write_text(
        'agents = ["sorl"]\nseeds = [0, 1]\n[set]\n'
        '"agent.q-coefficient" = [10, 50.5]\n"agent.hidden-sizes" = [[8, 8]]\n'
    )
    assert read_grid(toml) == Grid(seeds=(0, 1), set=expected)
    write_plan(tmp_path / "sweep", SMALL, expand(SMALL), extend=False)
    assert read_grid(tmp_path / "sweep" / "sweep.json") == SMALL
    assert run.parse(["--config", str(toml), "--seeds", "3"]).grid == Grid(seeds=(3,), set=expected)
    toml.write_text("agnets = []")
    with pytest.raises(ValueError, match="has the unknown field 'agnets' \\(do you mean 'agents'\\?\\)"):
        read_grid(toml)
    toml.write_text("agents = [")
    with pytest.raises(ValueError, match="sweep.toml is no TOML: "):
        read_grid(toml)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.toml; give a description of a sweep in"):
        read_grid(tmp_path / "none.toml")


def test_a_directory_never_mixes_two_sweeps(tmp_path):
    runs = expand(SMALL)
    write_plan(tmp_path, SMALL, runs, extend=False)
    before = (tmp_path / "sweep.json").read_bytes()
    path = tmp_path / runs[0].run.directory / CONFIG
    assert read_config(path) == runs[0].config
    write_plan(tmp_path, SMALL, runs, extend=False)
    more = dataclasses.replace(SMALL, seeds=(0, 1))
    with pytest.raises(
        ValueError, match=r"holds another sweep: seeds was \[0\] and is \[0, 1\]; give another --out, or"
    ):
        write_plan(tmp_path, more, expand(more), extend=False)
    # Runs of one seed may not be trained again in a group.
    grouped = dataclasses.replace(more, group=2)
    with pytest.raises(ValueError, match="seed 0, which these runs would train again; give other --seeds"):
        write_plan(tmp_path, grouped, expand(grouped), extend=True)
    assert (tmp_path / "sweep.json").read_bytes() == before
    all_runs = write_plan(tmp_path, dataclasses.replace(SMALL, seeds=(1,)), expand(more)[1:], extend=True)
    assert [one.seeds for one in all_runs] == [(0,), (1,)] and read_plan(tmp_path)[1] == all_runs
    # The same words of another version of sorl, with other defaults.
    other = dataclasses.replace(runs[0].config, batch_size=7)
    changed = [dataclasses.replace(runs[0], config=other, run=dataclasses.replace(runs[0].run, digest="0" * 16))]
    with pytest.raises(ValueError, match=r"was planned with other options of bc on cube.*, seed 0 \(batch_size\)"):
        write_plan(tmp_path, SMALL, changed, extend=True)


def test_seeds_are_added_only_with_the_options_of_those_that_are_there(tmp_path):
    write_plan(tmp_path, SMALL, expand(SMALL), extend=False)
    before = (tmp_path / "sweep.json").read_bytes()
    more = dataclasses.replace(SMALL, seeds=(1,), options="--batch-size 7")
    with pytest.raises(ValueError, match=r"planned with other options of bc on cube.*, seed 0 \(batch_size\); give"):
        write_plan(tmp_path, more, expand(more), extend=True)
    assert (tmp_path / "sweep.json").read_bytes() == before
    # As a value of the sweep the option is part of the method's name, and its runs are never pooled with the others.
    varied = dataclasses.replace(SMALL, seeds=(1,), set=(("batch-size", "7"),))
    assert len(write_plan(tmp_path, varied, expand(varied), extend=True)) == 2


def test_runs_are_added_with_other_workers_but_not_with_other_data_of_the_same_name(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    out, logs = tmp_path / "sweep", dataclasses.replace(SMALL, envs=(), preset=None)

    def write(options):
        grid = dataclasses.replace(logs, options=options)
        return write_plan(out, grid, expand(grid), extend=True)

    (planned,) = write(f"--data {tmp_path}/one/logs.npz")
    assert write(f"--data {tmp_path}/one/logs.npz --evaluation.workers 3") == [planned]
    assert read_config(out / planned.directory / CONFIG).evaluation.workers == 3
    with pytest.raises(ValueError, match=r"planned with other options of bc on own logs, seed 0 \(data.path\); give"):
        write(f"--data {tmp_path}/other/logs.npz")
    # Logs of another name are learned by runs of their own.
    assert [run.directory for run in write(f"--data {tmp_path}/one/more.npz")][1:] == [
        planned.directory.replace("logs", "more")
    ]


def test_a_plan_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no sweep; give the directory that sorl.sweep printed"):
        read_plan(tmp_path)
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps({"version": 9}))
    with pytest.raises(ValueError, match="has the format 9, and this sorl reads 1"):
        read_plan(tmp_path)
    path.write_text(json.dumps({"version": 1, "grid": {}, "runs": [{"directory": "x"}]}))
    with pytest.raises(ValueError, match="sweep.json is damaged"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("updates", "40", "'bc/.*' has a field of another kind"),
        ("settings", None, "'bc/.*' has a field of another kind"),
        ("policies", [], "'bc/.*' has a field of another kind"),
        ("seeds", "01", "'bc/.*' has a field of another kind"),
        ("directory", 5, "the run 5 has a field of another kind"),
        ("directory", "run", "'run' is no run directory of a sweep"),
        ("directory", "/etc/passwd/seed-0", "'/etc/passwd/seed-0' is no run directory"),
        ("directory", "../other/bc/task/seed-0", r"'\.\./other/.*' is no run directory"),
    ],
)
def test_a_run_with_a_wrong_field_is_refused(tmp_path, field, value, reason):
    write_plan(tmp_path, SMALL, expand(SMALL), extend=False)
    _change_run(tmp_path, field, value)
    with pytest.raises(ValueError, match=f"sweep.json is damaged \\(.*{reason}"):
        read_plan(tmp_path)


@pytest.mark.parametrize("option", ["--agent-module=evil.py", "--agent_module", "--config"])
def test_a_run_with_an_option_that_no_sweep_has_is_refused(tmp_path, option):
    write_plan(tmp_path, SMALL, expand(SMALL), extend=False)
    _change_run(tmp_path, "words", ["--wandb", option])
    more = dataclasses.replace(SMALL, seeds=(1,))
    with pytest.raises(ValueError, match=f"has a run with the option '{option}', which no sweep has; restore it"):
        write_plan(tmp_path, more, expand(more), extend=True)


def _change_run(out, field, value):
    path = out / "sweep.json"
    content = json.loads(path.read_text())
    content["runs"][0][field] = value
    path.write_text(json.dumps(content))


def test_options_may_begin_with_dashes():
    words = ["--options", "--updates 9", "--seeds", "1"]
    assert with_joined_options(words) == ["--options=--updates 9", "--seeds", "1"]
    config = run.parse([*words, "--jobs", "2", "--set", "updates", "1", "2", "--set", "batch-size", "4"])
    assert config.grid.options == "--updates 9" and config.where.jobs == 2
    assert config.grid.set == (("updates", "1", "2"), ("batch-size", "4"))
