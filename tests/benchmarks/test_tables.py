"""The benchmarks run and count what they say; their times decide nothing."""

import dataclasses
import json
from functools import partial
from typing import Any

import evaluation
import growth
import jax
import numpy as np
import own_logs
import pytest
import reaching_arm
import runtime
import updates


TINY = {"width": 8, "layers": 1, "rows": 50, "batch_size": 4, "chunks": 2, "chunk_seconds": 0.01}


def test_runtime_writes_its_rows_and_compares_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "seconds_of", partial(runtime.seconds_of, at_least=0.001))
    monkeypatch.setattr(runtime, "stream", partial(runtime.stream, megabytes=1))
    out = tmp_path / "runtime.json"
    config = runtime.Config(
        backprop_steps=(1, 2),
        seeds=(2,),
        inference_steps=(2,),
        inference_batches=(3,),
        matmul_precision="tensorfloat32",
        out=out,
        trace=tmp_path / "trace",
        **TINY,
    )
    found = runtime.main(config)
    assert [(row["backprop_steps"], row["seeds"]) for row in found["updates"]] == [(1, 2), (2, 2)]
    assert all(row["p10"] <= row["milliseconds"] <= row["p90"] for row in found["updates"])
    assert [(row["batch"], row["candidates"]) for row in found["decisions"]] == [(3, 1), (3, 8)]
    assert json.loads(out.read_text())["updates"] == found["updates"]
    assert {trace.parts[-5] for trace in (tmp_path / "trace").rglob("*.xplane.pb")} == {
        "backprop-steps-1-seeds-2",
        "backprop-steps-2-seeds-2",
    }
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "ms/update" in printed and "batch 4, tensorfloat32" in printed

    slower = json.loads(out.read_text())
    for row in slower["updates"]:
        row["milliseconds"] *= 2
    other = tmp_path / "slower.json"
    other.write_text(json.dumps(slower))
    ratios = runtime.main(runtime.Config(compare=(out, other)))
    assert [row["ratio"] for row in ratios["updates"]] == [2.0, 2.0]
    assert [row["ratio"] for row in ratios["decisions"]] == [1.0, 1.0]


def test_evaluation_is_compared_with_a_serial_loop_over_the_same_episodes(tmp_path, capsys):
    out = tmp_path / "evaluation.json"
    config = evaluation.Config(
        inference_steps=(1,), candidates=(2,), episodes=2, serial_episodes=1, rounds=1, network="1x8", out=out
    )
    (row,) = evaluation.main(config)
    assert (row["inference_steps"], row["candidates"], row["rounds"]["length"]) == (1, 2, [200.0])
    assert row["ratio"] == row["steps_per_second"] / row["serial_steps_per_second"]
    assert row["share"] == row["steps_per_second"] / row["ceiling"]
    assert json.loads(out.read_text())["rows"] == [row]
    assert "serial steps/s" in capsys.readouterr().out


def test_growth_varies_one_quantity_at_a_time(tmp_path, capsys):
    out = tmp_path / "growth.json"
    lines: Any = {"seeds": (1, 2), "batch_sizes": (2, 4), "widths": (8,), "backprop_steps": (1, 2), "rows": (50, 1000)}
    usual: Any = {"usual_batch_size": 4, "usual_width": 8, "usual_backprop_steps": 1, "usual_rows": 50, "layers": 1}
    config = growth.Config(**lines, **usual, rounds=1, chunk_seconds=0.01, out=out)
    found = growth.main(config)
    assert {option: tuple(row["value"] for row in found[option]) for option in lines} == lines
    assert json.loads(out.read_text())["rows"] == found["rows"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    few, many = found["rows"]
    assert many["dataset_bytes"] == 1000 * 4 * (28 + 5 + 1 + 1) + 999 * 4
    # The data set is in memory once, and nothing else grows with it.
    assert many["peak_bytes"] - few["peak_bytes"] <= 1.1 * (many["dataset_bytes"] - few["dataset_bytes"])
    one, two = found["seeds"]
    assert two["state_bytes"] > 1.9 * one["state_bytes"]
    assert "ms/update" in capsys.readouterr().out
    made: Any = [updates.make_agent("Sorl", width=8, layers=1, backprop_steps=jumps) for jumps in (4, 16)]
    assert [agent.discretization_steps for agent in made] == [8, 16]


def test_own_logs_trains_on_logs_of_the_arm_and_plays_there(tmp_path, capsys):
    out = tmp_path / "own_logs.json"
    options = "--agent.hidden-sizes 8 --agent.critic-hidden-sizes 8 --batch-size 4 --log-interval 2"
    settings = ("sorl --agent.backprop-steps 1",)
    sizes: Any = {"updates": (2, 4), "episodes": 3, "options": options, "critic_options": ""}
    config = own_logs.Config(kinds=("short",), settings=settings, runs=tmp_path / "runs", out=out, **sizes)
    demonstrator, *trained = own_logs.main(config)
    assert -20 < demonstrator["return"] < 0 and [row["updates"] for row in trained] == [2, 4]
    assert all(-40 < row["return"] < 0 and not row["warned"] for row in trained)
    assert json.loads(out.read_text())["rows"] == [demonstrator, *trained]
    assert "demonstrator" in capsys.readouterr().out
    own_logs.main(dataclasses.replace(config, updates=(4,)))  # plays the run that is there, once more
    assert json.loads(out.read_text())["rows"] == [demonstrator, *trained]
    # A run that was stopped before its last update is continued, and one with other options is not played.
    (run,) = (path for path in config.runs.iterdir() if path.is_dir())
    options_of_run = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(options_of_run | {"updates": 6}))
    assert own_logs.main(dataclasses.replace(config, updates=(6,)))[1]["updates"] == 6
    with pytest.raises(RuntimeError, match="ended with code 2; see its message above"):
        own_logs.main(dataclasses.replace(config, updates=(6,), critic_options="--agent.critic-heads 3"))
    assert "was started with other options (agent.critic_heads)" in capsys.readouterr().err


def test_the_arms_jacobian_is_the_derivative_of_its_tip():
    angles = np.random.default_rng(0).uniform(-1, 1, (3, reaching_arm.JOINTS))
    tip, jacobian = reaching_arm.forward(angles)
    np.testing.assert_allclose(reaching_arm.forward(np.zeros((1, 7)))[0], [[7 * reaching_arm.LINK, 0, 0]])
    for joint in range(reaching_arm.JOINTS):
        moved = angles + 1e-6 * np.eye(reaching_arm.JOINTS)[joint]
        np.testing.assert_allclose((reaching_arm.forward(moved)[0] - tip) / 1e-6, jacobian[:, :, joint], atol=1e-5)


def test_the_textbook_update_is_the_same_update():
    agent = updates.make_agent("Sorl", width=16, layers=2, backprop_steps=2)
    dataset = updates.made_up_dataset(100, 3, 2)
    ours = updates.Chunks(agent, dataset, updates=3, batch_size=8)
    textbook = updates.TextbookChunks(agent, dataset, updates=3, batch_size=8)
    for _ in range(2):
        for one, other in zip(jax.tree.leaves(ours().agent), jax.tree.leaves(textbook()), strict=True):
            np.testing.assert_allclose(one[0], other, rtol=1e-3, atol=1e-5)


def test_flops_of_an_update_are_what_its_products_cost():
    """12 forwards of the field and 6 of both critics at one jump; each further jump costs 4 of the field."""
    dataset = updates.made_up_dataset(100, 28, 5)
    counts = [
        updates.costs(updates.one_update(updates.Pinned(agent), dataset))[0]
        for agent in (updates.make_agent("Sorl", width=128, layers=2, backprop_steps=k) for k in (1, 8))
    ]
    field = 2 * 256 * (35 * 128 + 128 * 128 + 128 * 5)
    critics = 2 * 2 * 256 * (34 * 128 + 128 * 128 + 128)
    needed = np.array([12, 40]) * field + 6 * critics
    assert np.all(counts >= 0.95 * needed) and np.all(counts <= 1.1 * needed)
