"""What every agent promises, whatever its algorithm: each test runs for all of them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Normalisation, Policy, load_policy, presets, train, training
from sorl.agents import AGENTS, Budget
from sorl.config import TrainConfig, read_config
from sorl.logs import METRICS, read_metrics
from sorl.published import ENVIRONMENTS, PUBLISHED, published

from . import synthetic


BATCH = 8
every_agent = pytest.mark.parametrize("name", sorted(AGENTS))


def _train(name, updates, seeds=(0,), *, seed_mapping: training.SeedMapping = "map"):
    agent, dataset = synthetic.tiny(AGENTS[name]), synthetic.dataset()
    state = training.init(agent, dataset, seeds, batch_size=BATCH)
    for count in updates:
        state = training.run_chunk(
            agent, state, dataset, jnp.int32(count), batch_size=BATCH, log_interval=5, seed_mapping=seed_mapping
        )
    return state


def _arrays(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _of_seed(state, index) -> list[np.ndarray]:
    return _arrays(jax.tree.map(lambda leaf: leaf[index], (state.agent, state.metric_sums)))


def _same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@every_agent
def test_a_seed_decides_every_bit_alone_or_among_others(name):
    grouped = _train(name, [3], seeds=(3, 0))
    for index, seed in enumerate((3, 0)):
        lone = _train(name, [3], seeds=(seed,))
        assert _same(_of_seed(grouped, index), _of_seed(lone, 0))
        assert _same(_arrays(lone.agent), _arrays(_train(name, [1, 2], seeds=(seed,)).agent))  # and whatever the chunks
    assert not _same(_of_seed(grouped, 0), _of_seed(grouped, 1))
    assert np.all(grouped.first_bad_step == -1)


@every_agent
def test_vmapped_seeds_agree_with_lone_ones_after_one_update(name):
    grouped = _train(name, [1], seeds=(3, 0), seed_mapping="vmap")
    for index, seed in enumerate((3, 0)):
        lone = _train(name, [1], seeds=(seed,))
        for a, b in zip(_of_seed(grouped, index), _of_seed(lone, 0), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(b).max()))


@every_agent
def test_every_metric_is_documented_and_no_loss_is_left_out(name):
    agent, dataset = synthetic.tiny(AGENTS[name]), synthetic.dataset()
    state = training.init(agent, dataset, (0,), batch_size=BATCH)
    held_out = jax.eval_shape(lambda s: training.validation_losses(agent, s, dataset, batch_size=BATCH), state)
    assert held_out.keys() <= state.metric_sums.keys() <= METRICS.keys()
    assert {metric for metric in state.metric_sums if metric.endswith("_loss")} == {
        metric for metric in held_out if metric.endswith("_loss")
    }
    text = type(agent).__doc__ or ""
    if name not in ("Sorl", "SorlReleased"):
        assert [metric for metric in state.metric_sums if f"`{metric}`" not in text] == []


@every_agent
def test_the_state_is_donated_whole(name):
    """Donating a state that holds one buffer twice is an error, and each network must move or be a fixed one."""
    agent, dataset = synthetic.tiny(AGENTS[name]), synthetic.dataset()
    state = training.init(agent, dataset, (0,), batch_size=BATCH)
    leaves = jax.tree.leaves(state.agent)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def _networks(agent: Any) -> Any:
    return agent.policy(jax.jit(lambda key: agent.init(3, 2, key=key))(jax.random.key(0)))


def _acts(agent: Any, networks: Any, budget: Budget) -> bool:
    def decide(networks, key):
        return agent.act(networks, jnp.ones(3), agent.draw_action(2, budget, key=key), budget)

    action = jax.jit(decide)(networks, jax.random.key(0))
    return action.shape == (2,) and bool(jnp.all(jnp.abs(action) <= 1))


@every_agent
def test_a_policy_comes_back_from_its_file(name, tmp_path):
    agent: Any = synthetic.tiny(AGENTS[name])
    networks = _networks(agent)
    policy = Policy(agent, networks, Normalisation.identity(3, 2), {"step": 7})
    policy.save(tmp_path / "policy.sorl")
    loaded = load_policy(tmp_path / "policy.sorl")
    assert loaded.agent == agent and loaded.provenance == {"step": 7}
    observations, key = np.random.default_rng(0).normal(size=(6, 3)), jax.random.key(1)
    budgets: tuple[Any, ...] = {}, {"candidates": max(agent.budgets.candidates)}, {"noise_scale": 0.0}
    for budget in budgets:
        actions = policy(observations, key=key, **budget)
        np.testing.assert_array_equal(loaded(observations, key=key, **budget), actions)
        assert actions.shape == (6, 2) and np.all(np.abs(actions) <= 1)
    np.testing.assert_array_equal(  # without noise no key matters, where one candidate is drawn
        policy(observations, key=key, noise_scale=0.0, candidates=1),
        policy(observations, key=jax.random.key(2), noise_scale=0.0, candidates=1),
    )


@every_agent
def test_budgets_that_an_agent_has_act_and_others_are_refused_at_the_door(name):
    agent: Any = synthetic.tiny(AGENTS[name])
    own = agent.budgets
    assert own.usual.inference_steps in own.inference_steps and own.usual.candidates in own.candidates
    networks = _networks(agent)
    for budget in own.grid(None, None, final=True):
        assert _acts(agent, networks, budget)
    for field, allowed in (("inference_steps", own.other_inference_steps), ("candidates", own.other_candidates)):
        odd = dataclasses.replace(own.usual, **{field: 17})
        evaluation = dataclasses.replace(presets.paper(presets.QUICKSTART_ENV).evaluation, **{field: (17,)})
        if allowed:
            assert _acts(agent, networks, odd)
            assert TrainConfig(agent=agent, evaluation=evaluation).budgets(final=False)
        else:
            with pytest.raises(ValueError, match="cannot act with 17"):
                own.refuse(odd)
            with pytest.raises(ValueError, match="cannot act with 17"):
                TrainConfig(agent=agent, evaluation=evaluation)


@every_agent
@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hidden_sizes": ()}, r"hidden_sizes \(\)"),
        ({"critic_hidden_sizes": (8, 0)}, r"critic_hidden_sizes \(8, 0\)"),
        ({"critic_heads": 0}, "critic_heads is 0"),
        ({"flow_steps": 0}, "flow_steps is 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"target_rate": -0.1}, "target_rate is -0.1"),
        ({"expectile": 2.0}, "expectile is 2.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"distillation_coefficient": -1.0}, "distillation_coefficient is -1.0"),
        ({"flow_matching_coefficient": -1.0}, "flow_matching_coefficient is -1.0"),
    ],
)
def test_settings_that_cannot_train_are_refused(name, fields, message):
    known = {field.name for field in dataclasses.fields(AGENTS[name])}
    if not fields.keys() <= known:
        return  # not a setting of this agent
    with pytest.raises(ValueError, match=message):
        AGENTS[name](**fields)


@every_agent
def test_every_environment_has_published_settings_that_make_the_agent(name):
    assert PUBLISHED[name].keys() == set(ENVIRONMENTS)
    for env in ENVIRONMENTS:
        task = f"{env}-singletask-task1-v0"
        config, settings = presets.paper(task, AGENTS[name]), published(name, task)
        assert settings is not None and type(config.agent) is AGENTS[name]
        for field, value in settings.fields.items():
            assert getattr(config.agent, field) == value
        quick = presets.quickstart(task, AGENTS[name])
        assert type(quick.agent) is AGENTS[name] and quick.updates < config.updates
    assert published(name, "puzzle-3x3-play-singletask-v0") is None


@every_agent
def test_the_command_line_trains_stops_and_goes_on_bit_for_bit(name, tmp_path, capsys):
    synthetic.write_logs(tmp_path / "logs.npz")
    common = ["--seeds", "0", "1", "--batch-size", "8", "--quiet", "--no-compilation-cache", "--log-interval", "4"]
    common += ["--checkpoint-interval", "5", *synthetic.tiny_options(AGENTS[name])]
    start = [f"agent:{train.dashed(name)}", "--data", str(tmp_path / "logs.npz")]
    assert train.main([*start, "--run-dir", str(tmp_path / "whole"), "--updates", "12", *common]) == 0
    assert train.main([*start, "--run-dir", str(tmp_path / "parts"), "--updates", "7", *common]) == 0
    again = ["--run-dir", str(tmp_path / "parts"), "--resume", "--quiet", "--no-compilation-cache"]
    assert train.main([*again, "--updates", "12"]) == 0
    capsys.readouterr()
    assert read_config(tmp_path / "whole" / "config.json").agent == synthetic.tiny(AGENTS[name])
    whole, parts = (tmp_path / run / "metrics.jsonl" for run in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert [row["step"] for row in read_metrics(tmp_path / "whole")] == [4, 4, 8, 8, 12, 12]
    for seed in (0, 1):
        one, other = (load_policy(tmp_path / run / f"policy-seed-{seed}.sorl") for run in ("whole", "parts"))
        assert _same(_arrays(one.networks), _arrays(other.networks))
        assert one(np.full((2, 3), 50.0), key=jax.random.key(0)).shape == (2, 2)
