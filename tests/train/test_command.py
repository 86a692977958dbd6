"""The command line, end to end."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest

from sorl import load_policy
from sorl.agents import Fql, Ifql, Sorl, SorlPlus, SorlReleased, Srpo
from sorl.config import presets
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig, read_config
from sorl.runs import directory as run_directory
from sorl.runs.metrics import read_metrics
from sorl.train import __main__ as train
from sorl.train.summary import BEST_OF_N, hints, next_commands, untrained_policy

from .. import synthetic


SMALL = ["--agent.hidden-sizes", "8", "--agent.critic-hidden-sizes", "8", "--agent.backprop-steps", "2"]
BC = ["agent:bc", "--agent.hidden-sizes", "8"]
TINY = ["--batch-size", "16", "--quiet"]
JUDGED = "success judged after a step (post), as by the papers' OGBench 1.1."
SHORT = [*TINY, "--log-interval", "10", "--checkpoint-interval", "10"]


@pytest.fixture
def logs(tmp_path):
    synthetic.write_logs(tmp_path / "logs.npz")
    return tmp_path / "logs.npz"


def test_bare_is_the_quickstart():
    config, options, source = train.parse([])
    assert config == presets.quickstart()
    assert options == train.RunOptions()
    assert "quickstart" in source


def test_an_environment_takes_the_papers_settings_and_every_field_can_be_overridden():
    config, _, source = train.parse(
        ["--env", "scene-play-singletask-task2-v0", "--agent.discount", "0.9", "--seeds", "3", "4", "--updates", "5"]
    )
    agent: Any = config.agent
    assert (agent.q_coefficient, agent.discount) == (100.0, 0.9)
    assert (config.seeds, config.updates, config.env) == ((3, 4), 5, "scene-play-singletask-task2-v0")
    assert source == "the published ones of Sorl for scene-play (published success 57 %); " + JUDGED


def test_the_released_agent_and_presets_can_be_chosen():
    config, _, _ = train.parse(["--env", "antmaze-giant-navigate-singletask-v0", "agent:sorl-released"])
    assert config.agent == SorlReleased(q_coefficient=500.0, discount=0.995, q_aggregation="min")
    config, _, _ = train.parse(["--preset", "quickstart", "--env", "scene-play-singletask-v0"])
    assert config == presets.quickstart("scene-play-singletask-v0")


@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_agent_can_be_named_at_any_place(place):
    arguments = ["--env", "scene-play-singletask-v0", "--agent.discount", "0.9"]
    config, _, source = train.parse([*arguments[:place], "agent:fql", *arguments[place:]])
    # 300 is published for the environment, 0.9 given.
    assert config.agent == Fql(distillation_coefficient=300.0, discount=0.9)
    assert source == "the published ones of Fql for scene-play (published success 56 %); " + JUDGED


@pytest.mark.parametrize("place", [0, 2, 3])
@pytest.mark.parametrize("word", [(), ("agent:sorl",)])
def test_an_agents_switch_can_be_turned_either_way_at_any_place(place, word):
    arguments = ["--seeds", "3", *word]
    config, _, _ = train.parse([*arguments[:place], "--agent.no-critic-sees-steps", *arguments[place:]])
    assert config.agent == dataclasses.replace(presets.quickstart().agent, critic_sees_steps=False)
    config, _, _ = train.parse([*arguments[:place], "--agent.td-gradient-to-policy", *arguments[place:]])
    assert config.agent == dataclasses.replace(presets.quickstart().agent, td_gradient_to_policy=True)


def test_the_agent_of_a_configuration_stays(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_json(presets.quickstart())))
    with pytest.raises(ValueError, match="agent:fql is another agent than Sorl, whose options are those in"):
        train.parse(["--config", str(tmp_path / "config.json"), "agent:fql"])
    with pytest.raises(ValueError, match="names Fql and Ifql; one run trains one agent"):
        train.parse(["agent:fql", "agent:ifql"])


def test_own_logs_need_no_environment(logs):
    config, _, _ = train.parse(["--data", str(logs)])
    assert config.env is None and config.data.path == logs and config.evaluation.interval == 0


def test_own_logs_take_limits(logs):
    options = ["--data.action-low", "-1", "-2.5", "--data.action-high", "11", "--data.observation-margin", "None"]
    config, _, _ = train.parse(["--data", str(logs), *options])
    assert (config.data.action_low, config.data.action_high) == ((-1.0, -2.5), (11.0,))
    units = train.load_data(config).normalisation
    assert units.action_low.tolist() == [-1.0, -2.5] and units.action_high.tolist() == [11.0, 11.0]
    assert units.observation_low is None
    with pytest.raises(ValueError, match="data.action_low and data.action_high are for your own logs"):
        train.parse(["--env", presets.QUICKSTART_ENV, *options])


def test_help_documents_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        train.parse(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--env", "--data", "--data-dir", "--data.mirrors", "--seeds", "--resume", "--agent.q-coefficient"):
        assert option in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--resume"], "needs the run to continue"),
        (["--agent.backprop-steps", "16"], "backprop_steps is 16"),
        (["--seeds", "1", "1"], "seeds are"),
        (["--data.validation-fraction", "0.3"], "data.validation_fraction is for your own data; give --data too"),
        (["--data.observation-margin", "None"], "data.observation_margin is for your own data; give --data too"),
        (["--data.episodes", "None", "--data.generation-seed", "3"], "data.generation_seed is for generated episodes"),
    ],
)
def test_contradictions_are_one_sentence(arguments, message, capsys):
    try:
        code = train.main(arguments)
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    assert code == 2
    assert message in re.sub(r"[│\s]+", " ", output.err + output.out)


def test_own_logs_end_to_end_and_on(logs, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["--data", str(logs), "--run-dir", str(run), "--seeds", "0", "1", *SMALL, *SHORT]
    command = [*command, "--no-compilation-cache"]
    assert train.main([*command, "--updates", "20"]) == 0
    output = capsys.readouterr().out
    assert str(run / "policy-seed-0.sorl") in output
    assert re.search(r"Data to train on:\n  episodes   7: \d ended, \d cut; \d+ transitions\n", output)
    assert json.loads((run / "versions.json").read_text())["data"]["summary"]["episodes"] == 7
    actions = load_policy(run / "policy-seed-1.sorl")(np.full((4, 3), 50.0), key=_key(), steps=2, candidates=3)
    assert actions.shape == (4, 2) and np.all((actions >= 0) & (actions <= 10))

    assert train.main([*command, "--updates", "20"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    again = ["--run-dir", str(run), "--resume", "--no-compilation-cache", "--quiet"]
    assert train.main([*again, "--batch-size", "32"]) == 2
    assert "batch_size differ from its config.json" in capsys.readouterr().err
    with run_directory.sole_trainer(run):
        assert train.main([*again, "--updates", "30"]) == 2
    assert f"Another process trains the run in {run}; wait for it" in capsys.readouterr().err
    assert read_config(run / "config.json").updates == 20
    assert train.main([*again, "--updates", "30"]) == 0
    assert read_config(run / "config.json").updates == 30
    assert [row["step"] for row in read_metrics(run)] == [10, 10, 20, 20, 30, 30]

    copy = tmp_path / "copy"
    config = ["--config", str(run / "config.json"), "--run-dir", str(copy), "--no-compilation-cache", "--quiet"]
    assert train.main(config) == 0
    assert (copy / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (copy / "config.json").read_bytes() == (run / "config.json").read_bytes()


def test_fewer_updates_than_the_interval_still_have_a_row(logs, tmp_path):
    run, every = tmp_path / "run", tmp_path / "every"
    options = [*BC, "--data", str(logs), *TINY, "--checkpoint-interval", "10", "--no-compilation-cache"]
    assert train.main([*options, "--run-dir", str(run), "--updates", "3", "--log-interval", "10"]) == 0
    assert train.main([*options, "--run-dir", str(every), "--updates", "3", "--log-interval", "1"]) == 0
    (row,) = read_metrics(run)
    assert row["step"] == 3
    single = [one["training/policy_loss"] for one in read_metrics(every)]
    np.testing.assert_allclose(row["training/policy_loss"], np.mean(single), rtol=1e-6)
    again = ["--run-dir", str(run), "--resume", "--updates", "10", "--no-compilation-cache", "--quiet"]
    assert train.main(again) == 0
    assert [row["step"] for row in read_metrics(run)] == [3, 10]


def test_products_have_the_precision_of_the_run(logs, tmp_path, monkeypatch):
    seen, run_session = [], train.Session.run

    def watched(session):
        product = jax.jit(lambda x: x @ x).lower(np.ones((2, 2), np.float32)).as_text()
        seen.append(re.findall(r"precision = \[(\w+), \w+\]", product))
        return run_session(session)

    monkeypatch.setattr(train.Session, "run", watched)
    for precision, found in (("float32", ["HIGHEST"]), ("tensorfloat32", ["HIGH"]), ("bfloat16", ["DEFAULT"])):
        run = tmp_path / precision
        common = ["--run-dir", str(run), "--no-compilation-cache", "--quiet"]
        begin = [*BC, "--data", str(logs), *SHORT, "--updates", "1", "--matmul-precision", precision]
        assert train.main([*common, *begin]) == 0
        assert train.main([*common, "--resume", "--updates", "2"]) == 0
        assert read_config(run / "config.json").matmul_precision == precision
        assert seen == [found, found]
        seen.clear()


def _key():
    return jax.random.key(0)


@pytest.mark.slow
def test_kill_9_and_resume_is_bit_identical(logs, tmp_path):
    """Real processes, killed at random moments, until one gets through."""
    generator = np.random.default_rng(0)
    common = [sys.executable, "-m", "sorl.train"]
    start = [*common, *BC, "--data", str(logs), *TINY, "--updates", "20000", "--log-interval", "2000"]
    start += ["--checkpoint-interval", "3000"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begin = time.monotonic()
    subprocess.run([*start, "--run-dir", str(whole)], env=environment, check=True, capture_output=True)
    duration = time.monotonic() - begin

    kills = 0
    for _ in range(20):
        fresh = not (killed / "config.json").exists()
        goes_on = [*common, "--run-dir", str(killed), "--resume", "--quiet"]
        command = [*start, "--run-dir", str(killed)] if fresh else goes_on
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=generator.uniform(0.3, 1.0) * duration if kills < 2 else None)
            assert process.returncode == 0, output.decode()
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    one, other = (json.dumps(read_metrics(run)) for run in (killed, whole))
    assert one == other
    payloads = [(run / "policy-seed-0.sorl").read_bytes().split(b"\n", 2)[2] for run in (killed, whole)]
    assert payloads[0] == payloads[1]


def test_the_quickstart_is_what_the_default_configuration_claims():
    assert TrainConfig().env == presets.QUICKSTART_ENV
    assert presets.quickstart().data.episodes == 100


def test_the_hint_on_best_of_n_is_for_agents_that_act_with_one_candidate(tmp_path):
    assert hints(presets.quickstart()) == [BEST_OF_N]
    assert hints(presets.own_logs(tmp_path / "logs.npz")) == []
    for agent in (Ifql(), SorlPlus(backup_candidates=4)):
        assert hints(dataclasses.replace(presets.quickstart(), agent=agent)) == []


@pytest.mark.parametrize(("updates", "told"), [(40, 1), (41, 0)])
def test_a_run_that_ends_before_its_policy_is_trained_is_told(updates, told):
    agent = Srpo(pretraining_updates=40)
    config = dataclasses.replace(presets.quickstart(agent=Srpo), agent=agent, updates=updates)
    sentence = "warning: Srpo trains its policy only after 40 updates; give more --updates than these."
    assert untrained_policy(config) == hints(config) == [sentence] * told
    assert untrained_policy(dataclasses.replace(presets.quickstart(), updates=1)) == []


def test_next_commands_work_where_they_are_printed(tmp_path):
    directory = tmp_path / "a run; rm"
    place = f"'{directory}'"
    logs_only = next_commands(presets.own_logs(tmp_path / "logs.npz"), directory)
    assert logs_only == [
        f"python -m sorl.assess {place}",
        f"python -m sorl.policy {place}",
        f"python -m sorl.export {place}",
        f"python -m sorl.report {place}",
        f"python -m sorl.train --run-dir {place} --resume --updates 2000000",
    ]
    commands = next_commands(presets.quickstart(), directory)
    assert commands == [
        f"python -m sorl.evaluate {place} --inference-steps 1 2 4 8 16",
        f"python -m sorl.scaling {place}",
        f"python -m sorl.train --run-dir {place} --resume --updates 80000",
    ]


def test_own_logs_heed_the_quickstart(logs):
    config, _, source = train.parse(["--data", str(logs), "--preset", "quickstart"])
    usual, _, _ = train.parse(["--data", str(logs)])
    agent, own = config.agent, usual.agent
    assert isinstance(agent, Sorl) and isinstance(own, Sorl)
    assert (config.updates, config.batch_size, agent.hidden_sizes) == (40_000, 128, (256, 256))
    assert (agent.q_coefficient, agent.act_with_average) == (own.q_coefficient, own.act_with_average)
    assert source.startswith("those for own logs, small networks, few updates; ")
    with pytest.raises(ValueError, match="--preset paper has no settings of Sorl for logs without --env"):
        train.parse(["--data", str(logs), "--preset", "paper"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["agent:sacc"], "There is no agent:sacc (do you mean 'agent:cac'?); give one of agent:sorl, "),
        (["--agent.q-coeficient", "3"], "--agent.q-coeficient (do you mean '--agent.q-coefficient'?); python -m"),
        (["agent:bc", "--agent.discount", "1"], "no option --agent.discount; python"),
        (
            ["agent:bc", "--agent.learned-sd"],
            "'--agent.learned-std'?); python -m sorl.train agent:bc --help",
        ),
        (["--data.discount", "1"], "--data.discount (do you mean '--agent.discount'?); python -m"),
        (["--agent.updates", "1"], "--agent.updates (do you mean '--updates'?); python -m"),
        (["--sparse-rewards"], "--sparse-rewards (do you mean '--data.sparse-rewards'?); python -m"),
        (["--rewards", "1"], "--rewards (do you mean '--data.sparse-rewards'?); python -m"),
        (["--agent.nothing", "1"], "There is no option --agent.nothing; python -m"),
        (["--updates"], "--updates has no value; give one; python -m sorl.train --help lists the options."),
        (["--seeds", "99999999999"], "One of the seeds is 99999999999; give seeds below 2^32."),
        (["--config", "."], "--config is the directory .; give config.json."),
        (["--updates", "many"], "--updates: 'many' is not a whole number; python -m sorl.train --help"),
    ],
)
def test_unknown_words_name_the_nearest(arguments, message, capsys):
    assert train.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_own_logs_and_an_environment_go_together(logs):
    words = ["--data", str(logs), "--env", "gymnasium:Pendulum-v1"]
    config, _, source = train.parse(words)
    assert (config.env, config.data.path) == ("gymnasium:Pendulum-v1", logs)
    assert (config.evaluation.interval, config.evaluation.success_timing) == (100_000, "pre")
    assert config.agent == presets.own_logs(logs).agent
    assert source == "those for own logs; evaluated in gymnasium:Pendulum-v1."
    config, _, source = train.parse([*words, "--preset", "quickstart"])
    assert (config.evaluation.interval, config.evaluation.episodes, config.updates) == (10_000, 20, 40_000)
    # Published settings were tuned on OGBench's data: they are taken only where they are asked for.
    words = ["--data", str(logs), "--env", presets.QUICKSTART_ENV]
    assert train.parse(words)[0].agent == presets.own_logs(logs).agent
    config, _, source = train.parse([*words, "--preset", "paper"])
    assert config == dataclasses.replace(presets.paper(presets.QUICKSTART_ENV), data=config.data)
    assert (config.data.path, config.evaluation.success_timing) == (logs, "post")
    assert source.startswith("the published ones of Sorl for cube-single-play, which were tuned on its own data")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--env", "gymnasium:Pendulum-v1"], "for which there are no data but your own; give your logs with --data"),
        (["--data", "LOGS", "--preset", "paper"], "no settings of Sorl for logs without --env; leave it out"),
        (
            ["--data", "LOGS", "--env", "gymnasium:Pendulum-v1", "--preset", "paper"],
            "no settings of Sorl for gymnasium",
        ),
        (["--data", "LOGS", "--env", presets.QUICKSTART_ENV, "--data.episodes", "3"], "add --data.episodes None"),
    ],
)
def test_environments_and_data_that_do_not_fit_are_refused(logs, words, expected):
    with pytest.raises(ValueError, match=expected):
        train.parse([str(logs) if word == "LOGS" else word for word in words])


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("gymnasium:Pendulum-v1", r"observations of size 3 and actions of size 2, but gymnasium:\S+ has 3 and 1; give"),
        (
            "tests.environments.toys:Narrow-v0",
            r"logs have an action range .* in column 0, but \S+ accepts only 0.0 to 9.0",
        ),
        ("tests.environments.toys:Images-v0", "but sorl needs a flat box of real numbers"),
        ("cube-single", "No environment is named 'cube-single'"),
    ],
)
def test_an_environment_that_the_logs_do_not_fit_is_refused_before_training(logs, tmp_path, capsys, env, expected):
    words = ["--data", str(logs), "--env", env, "--run-dir", str(tmp_path / "run"), *SMALL, *TINY]
    assert train.main(words) == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_run_that_a_signal_stops_before_it_begins_is_not_said_to_have_a_checkpoint(tmp_path):
    module = tmp_path / "stops.py"
    module.write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", encoding="utf-8")
    words = ["--agent-module", str(module), "--run-dir", str(tmp_path / "run")]
    ended = subprocess.run([sys.executable, "-m", "sorl.train", *words], capture_output=True, text=True)
    assert ended.stderr == "Stopped by SIGTERM; if there is a checkpoint, continue with --resume, else start again.\n"
    assert ended.returncode == 143 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("option, package", [("--tensorboard", "tensorboardX"), ("--wandb", "wandb")])
def test_a_missing_package_is_refused_before_the_data_are_loaded(option, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert train.main(["--data", str(tmp_path / "none.npz"), "--run-dir", str(tmp_path / "run"), option]) == 2
    assert f"logging needs {package}, which is not installed" in capsys.readouterr().err
