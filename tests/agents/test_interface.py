"""What every agent promises, whatever its algorithm: each test runs for all of them."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from sorl.agents import AGENTS, Budget
from sorl.agents.shared.metrics import UNDESCRIBED, described
from sorl.agents.shared.published import ENVIRONMENTS
from sorl.config import presets
from sorl.config.options import TrainConfig
from sorl.train import loop

from .. import synthetic


BATCH = 8
every_agent = pytest.mark.parametrize("name", sorted(AGENTS))


@functools.cache
def _fresh_state(name: str) -> Any:
    agent: Any = synthetic.tiny(AGENTS[name])
    return jax.jit(lambda key: agent.init(3, 2, key=key))(jax.random.key(0))


@every_agent
def test_every_metric_is_documented_and_no_loss_is_left_out(name):
    agent, dataset = synthetic.tiny(AGENTS[name]), synthetic.dataset()
    state = jax.eval_shape(lambda: loop.init(agent, dataset, (0,), batch_size=BATCH))
    held_out = jax.eval_shape(lambda s: loop.validation_losses(agent, s, dataset, batch_size=BATCH), state)
    assert held_out.keys() <= state.metric_sums.keys()
    assert UNDESCRIBED not in [described(agent.metric_descriptions, metric) for metric in state.metric_sums]
    assert {metric for metric in state.metric_sums if metric.endswith("_loss")} == {
        metric for metric in held_out if metric.endswith("_loss")
    }
    text = type(agent).__doc__ or ""
    assert [metric for metric in state.metric_sums if f"`{metric}`" not in text] == []


@every_agent
def test_the_actor_describes_the_networks_that_the_agent_trains(name):
    agent: Any = synthetic.tiny(AGENTS[name])
    networks, template = agent.policy(_fresh_state(name)), agent.actor.template(3, 2)
    assert jax.tree.structure(networks) == jax.tree.structure(template)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), networks) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), template
    )


def _acts(agent: Any, networks: Any, budget: Budget) -> bool:
    def decide(networks, key):
        return agent.actor.act(networks, jnp.ones(3), agent.actor.draw_action(2, budget, key=key), budget)

    action = jax.jit(decide)(networks, jax.random.key(0))
    return action.shape == (2,) and bool(jnp.all(jnp.abs(action) <= 1))


@every_agent
def test_budgets_that_an_agent_has_act_and_others_are_refused_at_the_door(name):
    agent: Any = synthetic.tiny(AGENTS[name])
    own = agent.actor.budgets
    assert own.usual.inference_steps in own.inference_steps and own.usual.candidates in own.candidates
    networks = agent.policy(_fresh_state(name))
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
    table = AGENTS[name].published
    assert table.settings.keys() == set(ENVIRONMENTS)
    for env in ENVIRONMENTS:
        task = f"{env}-singletask-task1-v0"
        config, settings = presets.paper(task, AGENTS[name]), table.of_task(task)
        assert settings is not None and type(config.agent) is AGENTS[name]
        for field, value in settings.fields.items():
            assert getattr(config.agent, field) == value
        quick = presets.quickstart(task, AGENTS[name])
        assert type(quick.agent) is AGENTS[name] and quick.updates < config.updates
    assert table.of_task("puzzle-3x3-play-singletask-v0") is None
