"""`SorlPlus` in training: all switches off is `Sorl`; each switch, and all together, through all stages of a run."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy, load_exported, load_policy
from sorl.agents import Sorl, SorlPlus
from sorl.agents.shared.metrics import UNDESCRIBED, described
from sorl.export import save_exported
from sorl.functional.verifiers import Min
from sorl.runs.metrics import read_metrics
from sorl.system.files import read_json
from sorl.train import __main__ as train, hyperparameters, loop
from sorl.train.checkpoints import Checkpoints
from sorl.train.validation import validation_losses

from .. import synthetic
from ..bits import equal
from .plus import plus


BATCH = 8
SWITCHES: dict[str, dict[str, Any]] = {
    "expected max": {"backup_candidates": 3},
    "few jumps in the backup": {"backup_candidates": 2, "backup_inference_steps": 1},
    "cloning alone": {"use_q_loss": False, "backup_candidates": 2},
    "weighted cloning": {"cloning_weight": 0.1},
    "weighted cloning alone": {"cloning_weight": 0.1, "use_q_loss": False, "normalise_cloning_weight": False},
    "re-noised jumps": {"renoise": 2},
    "pessimism": {"target_pessimism": 0.5, "q_loss_pessimism": 0.5, "verifier_pessimism": 0.5, "critic_heads": 3},
    "one jump": {"one_jump_share": 0.6, "teacher_rate": 0.1, "q_step_weights": (3.0, 1.0)},
    "distillation": {"distillation_coefficient": 5.0},
}
TOGETHER: dict[str, Any] = {
    "backup_candidates": 3,
    "backup_inference_steps": 3,
    "cloning_weight": 0.1,
    "renoise": 2,
    "target_pessimism": 0.5,
    "q_loss_pessimism": 0.5,
    "verifier_pessimism": 0.5,
    "critic_heads": 3,
    "one_jump_share": 0.6,
    "teacher_rate": 0.1,
    "q_step_weights": (1.0,),
    "distillation_coefficient": 5.0,
    "n_step": 2,
    "chunk": 2,
    "td_gradient_to_policy": True,
    "act_with_average": True,
}
each_switch = pytest.mark.parametrize("fields", [*SWITCHES.values(), TOGETHER], ids=[*SWITCHES, "all together"])


def _chunk(agent: Any, state: Any, updates: int, own: Any = None) -> Any:
    sizes: dict[str, Any] = {"batch_size": BATCH, "log_interval": 100, "seed_mapping": "map"}
    return loop.run_chunk(agent, state, synthetic.dataset(), jnp.int32(updates), own, **sizes)


def _same(one: Any, other: Any) -> bool:
    return equal((one.agent, one.metric_sums), (other.agent, other.metric_sums))


# With all switches off.


@pytest.mark.parametrize(
    "fields", [{}, {"td_gradient_to_policy": True}, {"chunk": 2, "n_step": 3, "critic_sees_steps": False}]
)
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_with_all_switches_off_its_program_is_that_of_sorl(fields, platform):
    """The same text: so the same bits after any number of updates, and the same number of operations."""
    dataset = synthetic.dataset()

    def program(agent: Any) -> str:
        state = jax.eval_shape(lambda: loop.init(agent, dataset, (0, 1), batch_size=BATCH))
        settings: dict[str, Any] = {"batch_size": BATCH, "log_interval": 50, "seed_mapping": "map"}
        run = functools.partial(loop.train_steps, **settings, platform=platform)
        return jax.jit(run).lower(agent, state, dataset, jnp.int32(3)).as_text()

    assert program(plus(**fields)) == program(synthetic.tiny(Sorl, **fields))


def test_with_all_switches_off_it_is_sorl_bit_for_bit_over_300_updates():
    agents: Any = plus(), synthetic.tiny(Sorl)
    states = [loop.init(agent, synthetic.dataset(), (0,), batch_size=BATCH) for agent in agents]
    after = [_chunk(agent, state, 300) for agent, state in zip(agents, states, strict=True)]
    assert _same(*after) and np.all(after[0].first_bad_step == -1)
    observations = np.random.default_rng(0).normal(size=(4, 4))
    for budget in (Budget(4), Budget(2, 3), Budget(1, 3, verifier=Min())):
        one, other = (
            Policy(a.actor, a.policy(loop.of_member(s.agent, jnp.int32(0))), Normalisation.identity(4, 2))(
                observations, key=jax.random.key(0), budget=budget
            )
            for a, s in zip(agents, after, strict=True)
        )
        np.testing.assert_array_equal(one, other)
    assert agents[0].actor.budgets == agents[1].actor.budgets


# All stages of a run.


@each_switch
def test_every_switch_trains_resumes_bit_for_bit_and_acts_alike_from_its_file(fields, tmp_path):
    # One jump count where nothing depends on it, since each is a branch to compile.
    counts = 2 if "q_step_weights" in fields and not fields.get("renoise") else 1
    agent, dataset = plus(**({"backprop_steps": counts} | fields)), synthetic.dataset()
    start = functools.partial(loop.init, agent, dataset, (3,), batch_size=BATCH)
    whole, state = _chunk(agent, start(), 6), _chunk(agent, start(), 4)
    # Stopped, saved, restored and continued.
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(4, state)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(jax.eval_shape(start), 4)
    assert _same(_chunk(agent, restored, 2), whole) and np.all(whole.first_bad_step == -1)
    assert not _same(whole, start())
    # Every metric is described and in the docstring; validation has every loss.
    held_out = jax.eval_shape(lambda s: validation_losses(agent, s, dataset, batch_size=BATCH), whole)
    losses = {name for name in whole.metric_sums if name.endswith("_loss")}
    assert losses == {name for name in held_out if name.endswith("_loss")}
    for name in whole.metric_sums:
        assert described(agent.metric_descriptions, name) != UNDESCRIBED and f"`{name}`" in (SorlPlus.__doc__ or "")
    # The policy and its file.
    networks = agent.policy(loop.of_member(whole.agent, jnp.int32(0)))
    policy = Policy(agent.actor, networks, Normalisation.identity(4, 2))
    policy.save(tmp_path / "policy.sorl")
    loaded, observations = load_policy(tmp_path / "policy.sorl"), np.random.default_rng(0).normal(size=(3, 4))
    assert loaded.actor == agent.actor and loaded.budget == agent.actor.budgets.usual
    acted = policy(observations, key=jax.random.key(0))
    np.testing.assert_array_equal(loaded(observations, key=jax.random.key(0)), acted)
    assert np.all(np.abs(acted) <= 1) and np.all(np.isfinite(acted))


def test_members_of_a_population_with_all_switches_are_their_lone_runs():
    numbers = "cloning_weight", "target_pessimism", "q_loss_pessimism", "teacher_rate", "distillation_coefficient"
    one = plus(**({"backprop_steps": 1} | TOGETHER))
    other = dataclasses.replace(one, **{name: getattr(one, name) / 2 for name in numbers})
    own, dataset = hyperparameters.own_settings([one, other]), synthetic.dataset()
    together = _chunk(one, loop.init(one, dataset, (3, 3), own, batch_size=BATCH), 6, own)
    for index, agent in enumerate((one, other)):
        lone = _chunk(agent, loop.init(agent, dataset, (3,), batch_size=BATCH), 6)
        for a, b in zip(*(jax.tree.leaves((s.agent, s.metric_sums)) for s in (together, lone)), strict=True):
            np.testing.assert_array_equal(a[index], b[0])
    assert not np.array_equal(*together.metric_sums["distillation_loss"])


def test_all_switches_together_train_resume_evaluate_and_export_by_the_command_line(tmp_path):
    random, rows = np.random.default_rng(0), 200
    np.savez(
        tmp_path / "logs.npz",
        observations=random.normal(size=(rows, 3)),
        actions=random.uniform(-2, 2, (rows, 1)),
        rewards=random.normal(size=rows),
        terminals=np.zeros(rows),
        timeouts=np.arange(rows) % 20 == 19,
    )
    options = ["agent:sorl-plus", "--data", str(tmp_path / "logs.npz"), "--data.sparse-rewards"]
    options += ["--env", "gymnasium:Pendulum-v1", "--evaluation.interval", "8", "--evaluation.episodes", "1"]
    options += ["--evaluation.inference-steps", "2", "--evaluation.workers", "1"]
    options += ["--evaluation.final-inference-steps", "2", "--evaluation.final-candidates", "3"]
    options += ["--batch-size", str(BATCH), "--log-interval", "4", "--checkpoint-interval", "4"]
    for name, value in (synthetic.tiny_fields(SorlPlus) | TOGETHER).items():
        option = f"--agent.{name.replace('_', '-')}"
        if isinstance(value, bool):
            options.append(option)
        else:
            options += [option, *map(str, value if isinstance(value, tuple) else (value,))]
    quiet = ["--quiet", "--no-compilation-cache"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*options, "--run-dir", str(whole), "--updates", "8", *quiet]) == 0
    assert train.main([*options, "--run-dir", str(parts), "--updates", "4", *quiet]) == 0
    assert train.main(["--run-dir", str(parts), "--resume", "--updates", "8", *quiet]) == 0
    assert read_metrics(parts)[-1] == read_metrics(whole)[-1]
    evaluated = [read_json(run / "evaluation.json")["rows"] for run in (whole, parts)]
    assert [(row["inference_steps"], row["candidates"]) for row in evaluated[0]] == [(2, 3)]
    assert [row["return"] for row in evaluated[0]] == [row["return"] for row in evaluated[1]]
    one, other = (load_policy(run / "policy-seed-0.sorl") for run in (whole, parts))
    for a, b in zip(*map(jax.tree.leaves, (one.networks, other.networks)), strict=True):
        np.testing.assert_array_equal(a, b)
    save_exported(one, tmp_path / "policy.stablehlo", ("cpu",))
    program = load_exported(tmp_path / "policy.stablehlo")
    assert program.noise_shape == (3, 3, 2)  # candidates, jumps, and a chunk of two actions
    observations = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    actions = program(observations, np.zeros((4, 3, 3, 2), np.float32))
    np.testing.assert_allclose(actions, one(observations, key=jax.random.key(0), noise_scale=0.0), atol=1e-5)
