"""The loop in the manner of the released code makes the updates of `SorlReleased`."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import released
import updates

from sorl.agents.shared.shortcut_agent import SorlSharedDraws
from sorl.data.transitions import Transition


def test_the_loop_makes_the_released_updates_on_rows_of_the_data():
    agent: Any = updates.make_agent("SorlReleased", width=16, layers=2, backprop_steps=2)
    dataset = updates.made_up_dataset(100, 3, 2)
    loop = released.HostLoop(agent, dataset, batch_size=8, updates=2)
    start = agent.init(3, 2, key=jax.random.key(0))
    rows = np.arange(8)
    np.testing.assert_array_equal(loop._data.next_observation[rows], np.asarray(dataset.observations)[rows + 1])
    batch = jax.tree.map(lambda array: jnp.asarray(array[rows]), loop._data)
    whole = Transition(**batch._asdict(), next_action=jnp.zeros_like(batch.action))
    draws, shared = agent.draw(8, 2, key=jax.random.key(2)), SorlSharedDraws(jnp.int32(1), jnp.int32(0))

    state, networks, adam = start, loop.networks, loop.adam
    metrics: Any = None
    other: Any = None
    ours = jax.jit(agent.update)
    theirs = jax.jit(lambda networks, adam: released.update(agent, networks, adam, batch, draws, shared))
    for _ in range(3):
        state, metrics = ours(state, whole, draws, shared)
        networks, adam, other = theirs(networks, adam)
    for name in released.PARTS:
        for a, b in zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(networks[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(other["policy"]["loss"], metrics["policy_loss"], rtol=1e-4)
    np.testing.assert_allclose(other["critic"]["loss"], metrics["critic_loss"], rtol=1e-4)
    assert int(adam[1][0].count) == 6  # two steps an update
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(loop()))
    assert int(loop.adam[1][0].count) == 4


def test_each_program_has_a_row(monkeypatch, tmp_path):
    monkeypatch.setattr(released, "HostLoop", lambda *_, **__: Idle())
    monkeypatch.setattr(released, "Chunks", lambda *_, **__: Idle())
    monkeypatch.setattr(released, "one_update", lambda *_: None)  # another test counts its FLOPs
    monkeypatch.setattr(released, "costs", lambda _: (3e9, 0.0))
    config = released.Config(("1x8",), rounds=1, seconds=0.001, rows=50, out=tmp_path / "out.json")
    rows = released.main(config)
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == rows
    assert [row["program"] for row in rows] == ["released manner", "SorlReleased", "Sorl"]
    assert rows[0]["speed"] == 1 and all(row["update_ms"] > 0 and row["products_gflops"] > 0 for row in rows)
    assert [row["gflop"] for row in rows] == [5, 3, 3]


class Idle:
    """A program that does nothing."""

    def __call__(self):
        pass

    def flops(self):
        return 5e9
