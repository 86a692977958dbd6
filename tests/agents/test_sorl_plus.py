"""Each switch of `SorlPlus` by hand, and through all stages of a run."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy, load_exported, load_policy
from sorl.agents import Sorl, SorlPlus
from sorl.agents.shared.metrics import UNDESCRIBED, described
from sorl.agents.shared.shortcut_agent import SorlSharedDraws, SorlState, consistency_levels
from sorl.data.transitions import Window
from sorl.export import save_exported
from sorl.functional import optimisation
from sorl.functional.verifiers import LowerBound, Mean, Min, Softmax
from sorl.networks import CriticEnsemble, ShortcutField
from sorl.runs.metrics import read_metrics
from sorl.system.files import read_json
from sorl.train import __main__ as train, hyperparameters, loop
from sorl.train.checkpoints import Checkpoints
from sorl.train.validation import validation_losses

from .. import synthetic
from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, make, make_batch, make_field, make_policy


BATCH = 8
OFF: dict[str, Any] = {"backup_candidates": 1}
"""`synthetic.tiny` sets two candidates."""
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


def _agent(**fields: Any) -> SorlPlus:
    return synthetic.tiny(SorlPlus, **(OFF | fields))


def _chunk(agent: Any, state: Any, updates: int) -> Any:
    sizes: dict[str, Any] = {"batch_size": BATCH, "log_interval": 100, "seed_mapping": "map"}
    return loop.run_chunk(agent, state, synthetic.dataset(), jnp.int32(updates), **sizes)


def _state(agent: Any) -> SorlState:
    """A state as `init` makes it, from numpy's generator: nothing to compile."""
    sizes = OBSERVATION_SIZE, ACTION_SIZE, (8,)
    field = make(ShortcutField, *sizes, seed=0)
    critic = make(CriticEnsemble, *sizes, seed=1, sees_steps=agent.critic_sees_steps)
    return SorlState(field, field, critic, critic, optimisation.init(field), optimisation.init(critic))


def _same(one: Any, other: Any) -> bool:
    leaves = (jax.tree.leaves((state.agent, state.metric_sums)) for state in (one, other))
    return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


# With all switches off.


@pytest.mark.parametrize(
    "fields", [{}, {"td_gradient_to_policy": True}, {"chunk": 2, "n_step": 3, "critic_sees_steps": False}]
)
def test_with_all_switches_off_its_program_is_that_of_sorl(fields):
    """The same text: so the same bits after any number of updates, and the same number of operations."""
    dataset = synthetic.dataset()

    def program(agent: Any) -> str:
        state = jax.eval_shape(lambda: loop.init(agent, dataset, (0, 1), batch_size=BATCH))
        run = functools.partial(loop.train_steps, batch_size=BATCH, log_interval=50, seed_mapping="map")
        return jax.jit(run).lower(agent, state, dataset, jnp.int32(3)).as_text()

    assert program(_agent(**fields)) == program(synthetic.tiny(Sorl, **fields))


def test_with_all_switches_off_it_is_sorl_bit_for_bit_over_300_updates():
    agents: Any = _agent(), synthetic.tiny(Sorl)
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


def test_a_backup_with_four_candidates_costs_at_most_1_6_times_as_much(monkeypatch):
    """In operations at the published sizes, over all jump counts; the analysis counts only one branch of a program.

    Each jump adds the same operations, so that those of many jumps follow from those of one and two.
    """
    dataset = synthetic.dataset(observation_size=28, action_size=5)
    batch = jax.eval_shape(lambda: dataset.take(jnp.zeros(256, jnp.int32), Window(), 0.99))

    def operations(steps: int, **fields: Any) -> float:
        monkeypatch.setattr(SorlPlus, "step_counts", (steps,))
        agent, key = SorlPlus(**fields), jax.random.key(0)
        state = jax.eval_shape(lambda: agent.init(28, 5, key=key))
        draws = jax.eval_shape(lambda: agent.draw(256, 5, key=key))
        shared = jax.eval_shape(lambda: agent.draw_shared(jnp.int32(0), key=key))
        # A function of its own, because jit would find the program of another step count.
        update = jax.jit(lambda *inputs: SorlPlus.update(*inputs))
        found: Any = update.lower(agent, state, batch, draws, shared).cost_analysis()
        return found["flops"]

    def over_all_counts(**fields: Any) -> float:
        one, two = (operations(steps, **fields) for steps in (1, 2))
        return sum(one + (steps - 1) * (two - one) for steps in (1, 2, 4, 8))

    plain = over_all_counts()
    assert plain == pytest.approx(sum(operations(steps) for steps in (1, 2, 4, 8)), rel=1e-6)
    assert over_all_counts(backup_candidates=4) < 1.6 * plain
    # Without a Q loss, as this backup is meant, an update costs about as much as one of `Sorl`.
    assert over_all_counts(backup_candidates=4, use_q_loss=False) < 1.1 * plain


# Parts.


def test_candidates_and_rows_can_be_in_any_order():
    agent, batch = _agent(backup_candidates=3, cloning_weight=0.1), make_batch(6)
    state = _state(agent)
    draws, shared = agent.draw(6, ACTION_SIZE, key=jax.random.key(1)), SorlSharedDraws(jnp.int32(1), jnp.int32(1))
    losses = jax.jit(SorlPlus.losses)
    found = losses(agent, state, batch, draws, shared)
    # Another order of the candidates leaves the maximum as it is.
    turned = dataclasses.replace(draws, target_noise=draws.target_noise[::-1])
    assert losses(agent, state, batch, turned, shared)["critic_loss"] == found["critic_loss"]
    # The rows of equal step sizes, with their draws: 0 and 1, 2 and 3, 4 and 5.
    order = jnp.array([1, 0, 3, 2, 5, 4])

    @jax.jit
    def in_order(batch, draws):
        rows = jax.tree.map(lambda x: x[order], (batch, dataclasses.replace(draws, target_noise=draws.flow_noise)))
        return rows[0], dataclasses.replace(rows[1], target_noise=draws.target_noise[:, order])

    for name, value in losses(agent, state, *in_order(batch, draws), shared).items():
        assert value == pytest.approx(float(found[name]), rel=2e-5), name


def test_the_best_of_one_candidate_repeated_is_that_candidate():
    one, three = _agent(), _agent(backup_candidates=3)
    state, batch = _state(one), make_batch(6)
    draws, shared = one.draw(6, ACTION_SIZE, key=jax.random.key(1)), SorlSharedDraws(jnp.int32(0), jnp.int32(1))
    repeated = dataclasses.replace(draws, target_noise=jnp.stack([draws.target_noise] * 3))
    losses = jax.jit(SorlPlus.losses)
    found, expected = losses(three, state, batch, repeated, shared), losses(one, state, batch, draws, shared)
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-5), name


def test_a_fixed_number_of_jumps_in_the_backup_leaves_the_critics_own_drawn():
    """With one head for each k: where the critic ignores k, the fixed number is all that counts."""
    fields: Any = {"critic_sees_steps": False, "backup_candidates": 2}
    free, fixed = _agent(**fields), _agent(**fields, backup_inference_steps=1)
    state, batch = _state(free), make_batch(6)
    draws, losses = free.draw(6, ACTION_SIZE, key=jax.random.key(1)), jax.jit(SorlPlus.losses)
    shared = [SorlSharedDraws(jnp.int32(0), jnp.int32(index)) for index in (0, 1)]
    of_free = [losses(free, state, batch, draws, drawn)["critic_loss"] for drawn in shared]
    of_fixed = [losses(fixed, state, batch, draws, drawn)["critic_loss"] for drawn in shared]
    assert of_fixed[0] == of_fixed[1] == pytest.approx(float(of_free[0]), rel=1e-6)
    assert of_free[1] != of_free[0]


def test_shares_of_self_consistency_rows():
    np.testing.assert_array_equal(consistency_levels(10, 8, 0.4), [2, 2, 2, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(consistency_levels(4, 8, 1.0), [0, 0, 0, 0])
    np.testing.assert_array_equal(consistency_levels(4, 8, 0.0), [2, 2, 1, 1])
    np.testing.assert_array_equal(consistency_levels(4, 2, 0.5), [0, 0, 0, 0])  # there is one size alone
    times = SorlPlus(one_jump_share=1.0).draw(64, 2, key=jax.random.key(0)).consistency_time
    np.testing.assert_array_equal(times, np.zeros(64))


def test_jump_counts_of_the_q_loss_follow_their_weights():
    keys = jax.random.split(jax.random.key(0), 4000)

    def counts(**fields):
        drawn = jax.jit(jax.vmap(lambda key: SorlPlus(**fields).draw_shared(jnp.int32(0), key=key)))(keys)
        return [np.bincount(steps, minlength=4) for steps in (drawn.policy_steps, drawn.target_steps)], drawn

    (policy, target), drawn = counts(q_step_weights=(2.0, 0.0, 1.0, 1.0))
    # 2000, 0, 1000 and 1000 expected, with standard deviations of at most 32.
    assert policy[1] == 0 and np.abs(policy - [2000, 0, 1000, 1000]).max() < 5 * 32
    # Those of the TD target are the same as without weights, and independent of the others.
    (_, uniform), plain = counts()
    np.testing.assert_array_equal(drawn.target_steps, plain.target_steps)
    assert abs(np.corrcoef(drawn.policy_steps, drawn.target_steps)[0, 1]) < 5 / math.sqrt(4000)
    assert np.array_equal(target, uniform)


def test_noise_has_an_axis_for_candidates_and_re_noised_jumps():
    def shapes(**fields):
        agent = SorlPlus(**fields)
        draws = jax.eval_shape(lambda: agent.draw(6, 2, key=jax.random.key(0)))
        return draws.policy_noise.shape, draws.target_noise.shape

    assert shapes() == ((6, 2), (6, 2))
    assert shapes(backup_candidates=4) == ((6, 2), (4, 6, 2))
    assert shapes(renoise=3) == ((3, 6, 2), (3, 6, 2))
    assert shapes(renoise=3, backup_candidates=4, backup_inference_steps=1) == ((3, 6, 2), (1, 4, 6, 2))
    # All draws of an update are different: correlations of 6000 pairs have a standard deviation of 0.013.
    draws = SorlPlus(renoise=2, backup_candidates=2).draw(3000, 2, key=jax.random.key(0))
    noises = [draws.flow_noise, draws.consistency_noise, *draws.policy_noise, *draws.target_noise.reshape(4, 3000, 2)]
    assert np.abs(np.corrcoef([np.ravel(noise) for noise in noises]) - np.eye(8)).max() < 0.07


def test_the_teachers_rate_is_its_own():
    field = {}
    for rate in (None, 0.5):
        agent = _agent(teacher_rate=rate, target_rate=0.25, learning_rate=0.01)
        state = _state(agent)
        draws, shared = agent.draw(6, ACTION_SIZE, key=jax.random.key(1)), SorlSharedDraws(jnp.int32(0), jnp.int32(0))
        after, _ = jax.jit(SorlPlus.update)(agent, state, make_batch(6), draws, shared)
        for average, online, before, share in (
            (after.target_field, after.field, state.field, rate or 0.25),
            (after.target_critic, after.critic, state.critic, 0.25),
        ):
            for a, o, b in zip(*map(jax.tree.leaves, (average, online, before)), strict=True):
                np.testing.assert_allclose(a, share * o + (1 - share) * b, rtol=1e-5, atol=1e-7)
        field[rate] = after.field
    # The teacher of this update is that from before it.
    assert all(map(np.array_equal, *map(jax.tree.leaves, field.values())))


def test_distillation_is_the_error_of_one_jump_against_the_teachers_many():
    agent = _agent(distillation_coefficient=2.0, discretization_steps=4)
    state = _state(agent)
    state = dataclasses.replace(state, target_field=make_field(3, hidden_sizes=(8,)))
    draws, batch = agent.draw(6, ACTION_SIZE, key=jax.random.key(1)), make_batch(6)
    found = jax.jit(SorlPlus.losses)(agent, state, batch, draws, SorlSharedDraws(jnp.int32(0), jnp.int32(0)))

    @jax.jit
    def expected(teacher, field):
        action = draws.policy_noise
        for step in range(4):
            action = action + teacher(batch.observation, action, jnp.float32(step / 4), jnp.float32(2)) / 4
        one = draws.policy_noise + field(batch.observation, draws.policy_noise, jnp.float32(0), jnp.float32(0))
        return jnp.mean((one - jnp.clip(action, -1, 1)) ** 2)

    loss = expected(state.target_field, state.field)
    assert found["distillation_loss"] == pytest.approx(float(loss), rel=1e-5)
    parts = 10 * found["flow_matching_loss"] + 10 * found["self_consistency_loss"] + 100 * found["q_loss"]
    assert found["policy_loss"] == pytest.approx(float(parts + 2 * found["distillation_loss"]), rel=1e-5)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"renoise": -1}, "renoise is -1"),
        ({"renoise": 2_000}, "renoise is 2000; give a whole number from 0 to 1024"),
        ({"backup_candidates": 0}, "backup_candidates is 0; give a whole number >= 1"),
        ({"backup_inference_steps": 0}, "backup_inference_steps is 0"),
        ({"cloning_weight": 0.0}, "cloning_weight is 0.0"),
        ({"target_pessimism": -1.0}, "target_pessimism is -1.0"),
        ({"verifier_pessimism": -1.0}, "verifier_pessimism is -1.0"),
        ({"one_jump_share": 1.5}, "one_jump_share is 1.5"),
        ({"teacher_rate": 2.0}, "teacher_rate is 2.0"),
        ({"q_step_weights": (1.0, 2.0)}, r"q_step_weights is \(1.0, 2.0\); give a weight for each of \(1, 2, 4, 8\)"),
        ({"q_step_weights": (0.0,) * 4}, "q_step_weights is .*, not all of them 0"),
        ({"q_step_weights": (1.0, -1.0, 1.0, 1.0)}, "q_step_weights is .* give numbers from 0"),
    ],
)
def test_settings_that_make_no_agent_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SorlPlus(**fields)


# Acting.


def test_the_usual_budget_is_that_of_the_backup():
    assert SorlPlus(backup_candidates=4).actor.budgets.usual == Budget(4, 4)
    assert SorlPlus(backup_candidates=4).actor.budgets.candidates == (1, 4, 8)
    assert SorlPlus(backup_candidates=8, backup_inference_steps=1).actor.budgets.usual == Budget(1, 8)
    chains = SorlPlus(renoise=2).actor.budgets
    assert (chains.usual, chains.inference_steps, chains.trained_steps) == (Budget(2), (1, 2, 4, 8), (2,))


@pytest.mark.parametrize("renoise", [0, 2])
def test_candidates_are_chosen_by_the_pessimistic_verifier_unless_a_budget_names_another(renoise):
    agent = _agent(verifier_pessimism=1.0, renoise=renoise)
    networks, observation = make_policy(agent, 3, 2, seed=0, scale=0.2), jnp.ones(3)
    budget = Budget(2, 3)
    draws: Any = agent.actor.draw_action(2, budget, key=jax.random.key(0))
    draws = 0.3 * draws
    candidates = jnp.stack([agent.actor.act(networks, observation, draws[i : i + 1], Budget(2)) for i in range(3)])
    # The third has the highest mean. Mean less one deviation is 0.2, 0.4 - 0.3, 1 - 3 = 0.2, 0.1, -2.
    q = jnp.array([[0.2, 0.2], [0.7, 0.1], [4.0, -2.0]])

    class Critic:
        def __call__(self, observation, action, steps):
            assert float(steps) == 2
            return q[jnp.argmin(jnp.sum((candidates - action[None]) ** 2, axis=-1))]

    object.__setattr__(networks, "critic", Critic())
    for verifier, chosen in ((None, 0), (Mean(), 2), (LowerBound(0.0), 2), (LowerBound(0.1), 2)):
        action = agent.actor.act(networks, observation, draws, dataclasses.replace(budget, verifier=verifier))
        np.testing.assert_allclose(action, candidates[chosen], atol=1e-6)
    # A random choice uses it too: at a low temperature the best by it is drawn.
    cold = dataclasses.replace(budget, verifier=Softmax(1e-6))
    drawn: Any = agent.actor.draw_action(2, cold, key=jax.random.key(1))
    action = agent.actor.act(networks, observation, dataclasses.replace(drawn, noise=draws), cold)
    np.testing.assert_allclose(action, candidates[0], atol=1e-6)


# All stages of a run.


@each_switch
def test_every_switch_trains_resumes_bit_for_bit_and_acts_alike_from_its_file(fields, tmp_path):
    # One jump count where nothing depends on it, since each is a branch to compile.
    counts = 2 if "q_step_weights" in fields and not fields.get("renoise") else 1
    agent, dataset = _agent(**({"backprop_steps": counts} | fields)), synthetic.dataset()
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
    one = _agent(**({"backprop_steps": 1} | TOGETHER))
    other = dataclasses.replace(one, **{name: getattr(one, name) / 2 for name in numbers})
    own, dataset = hyperparameters.own_settings([one, other]), synthetic.dataset()
    together = loop.init(one, dataset, (3, 3), own, batch_size=BATCH)
    sizes: dict[str, Any] = {"batch_size": BATCH, "log_interval": 100, "seed_mapping": "map"}
    together = loop.run_chunk(one, together, dataset, jnp.int32(6), own, **sizes)
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
