"""Settings of every agent: what is refused, in the agent and in the evaluation, and what is published."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import AGENTS, Sorl
from sorl.agents.shared.published import ENVIRONMENTS
from sorl.agents.shared.settings import refuse_absurd_values
from sorl.config import presets
from sorl.config.options import TrainConfig

from .. import synthetic


every_agent = pytest.mark.parametrize("name", sorted(AGENTS))


@every_agent
@pytest.mark.parametrize("field", ["inference_steps", "candidates"])
def test_a_run_refuses_to_evaluate_with_a_budget_that_the_agent_lacks(name, field):
    agent = synthetic.tiny(AGENTS[name])
    own = agent.actor.budgets
    evaluation = dataclasses.replace(presets.paper(presets.QUICKSTART_ENV).evaluation, **{field: (17,)})
    if getattr(own, f"other_{field}"):
        budgets = TrainConfig(agent=agent, evaluation=evaluation).budgets(final=False)
        assert {getattr(budget, field) for budget in budgets} == {17}
        return
    with pytest.raises(ValueError, match="cannot act with 17"):
        own.refuse(dataclasses.replace(own.usual, **{field: 17}))
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
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; give a number above 0"),
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


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("discount", "0.99", "discount of Sorl is '0.99'; give a value of type float"),
        ("hidden_sizes", 512, r"hidden_sizes of Sorl is 512; give a value of type tuple\[int, \.\.\.\]"),
        ("hidden_sizes", [64, 64], r"hidden_sizes of Sorl is \[64, 64\]; give"),
        ("hidden_sizes", (64, "64"), r"hidden_sizes of Sorl is \(64, '64'\); give"),
        ("critic_heads", 2.0, "critic_heads of Sorl is 2.0; give a value of type int"),
        ("learning_rate", None, "learning_rate of Sorl is None; give"),
        ("late_learning_rate", "0", r"late_learning_rate of Sorl is '0'; give a value of type float \| None"),
    ],
)
def test_values_of_another_type_are_refused(field, value, message):
    agent = Sorl()
    object.__setattr__(agent, field, value)  # the type checks of these tests would not let it be made
    with pytest.raises(ValueError, match=message):
        refuse_absurd_values(agent)


def test_of_other_types_only_whole_numbers_and_arrays_may_take_the_place_of_numbers():
    def is_refused(value):
        agent = Sorl()
        object.__setattr__(agent, "q_coefficient", value)
        try:
            refuse_absurd_values(agent)
        except ValueError:
            return True
        return False

    values = 1, np.float32(1), jnp.float32(1), "1", None, (1.0,)
    assert [is_refused(value) for value in values] == [False, False, False, True, True, True]


@every_agent
def test_every_environment_has_published_settings_that_make_the_agent(name):
    table = AGENTS[name].published
    assert table.settings.keys() >= set(ENVIRONMENTS)
    for env in ENVIRONMENTS:
        task = f"{env}-singletask-task1-v0"
        config, settings = presets.paper(task, AGENTS[name]), table.of_task(task)
        assert settings is not None and type(config.agent) is AGENTS[name]
        for field, value in settings.fields.items():
            assert getattr(config.agent, field) == value
        quick = presets.quickstart(task, AGENTS[name])
        assert type(quick.agent) is AGENTS[name] and quick.updates < config.updates
    assert table.of_task("pointmaze-giant-navigate-singletask-v0") is None
