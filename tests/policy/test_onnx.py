"""ONNX files act like the live policy, without sorl and jax; what does not is refused, and nothing is left behind."""

import dataclasses
import json
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy, export
from sorl.agents import AGENTS
from sorl.functional.verifiers import Softmax
from sorl.policy import exported
from sorl.policy.stablehlo import save_exported
from sorl.system import entry

from .. import synthetic
from ..alone import run_alone
from ..random_networks import make_policy


pytest.importorskip("onnxruntime", reason="onnx and onnxruntime are in the dependency group tests")

from sorl.policy.onnx import contract, file, names, parity, translation  # noqa: E402


BATCHES = (1, 7, 256)
ROUNDING = 1e-5


@pytest.mark.parametrize("agent", AGENTS.values(), ids=lambda agent: agent.__name__)
def test_every_agent_acts_the_same_in_both_formats(agent, tmp_path):
    agent = synthetic.tiny(agent)
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0, scale=0.2), Normalisation.identity(3, 2))
    save_exported(policy, tmp_path / "policy.stablehlo", ["cpu"])
    loaded, model = exported.load_exported(tmp_path / "policy.stablehlo"), file.to_onnx(policy)
    assert model.noise_shape == loaded.noise_shape
    decisions = parity.live_decisions(policy, 5, model.noise_shape)
    assert np.ptp(decisions.actions, axis=0).min() > 1e-3  # the decisions differ, so the comparison says something
    for act in (loaded, file.Session(model)):
        np.testing.assert_allclose(act(decisions.observations, decisions.noise), decisions.actions, atol=ROUNDING)


@pytest.fixture(scope="module")
def policy():
    """A policy of own logs, best of 4, whose actions come in pairs."""
    agent = synthetic.agent(chunk=2)
    normalisation = synthetic.units(
        observation_mean_remainder=jnp.array([1e-8, 0.0, 0.0]),
        observation_low=jnp.array([-1.5, -2.0, -2.0]),
        observation_high=jnp.array([1.5, 2.0, 2.0]),
    )
    provenance = {"env": "made up", "data": {"path": "/home/ada/logs.npz"}}
    return Policy(agent.actor, make_policy(agent, 3, 4, seed=0, scale=0.2), normalisation, provenance, [], Budget(2, 4))


@pytest.fixture(scope="module")
def directory(policy, tmp_path_factory):
    """The policy, its ONNX file by the command, and decisions of the live policy."""
    directory = tmp_path_factory.mktemp("onnx")
    policy.save(directory / "policy.sorl")
    said = {"observations": ["angle", "speed", "height"], "observation_units": ["rad", "rad/s", "m"]}
    (directory / "names.json").write_text(json.dumps(said))
    path = directory / "robot.onnx"
    export.main(export.Config(directory / "policy.sorl", path, "onnx", names=directory / "names.json"))
    decisions = {batch: parity.live_decisions(policy, batch, (4, 4)) for batch in BATCHES}
    arrays = {f"{name}{batch}": array for batch, own in decisions.items() for name, array in own._asdict().items()}
    np.savez(directory / "decisions.npz", **arrays)
    return directory


def test_it_acts_as_the_live_policy_where_neither_sorl_nor_jax_can_be_imported(directory):
    code = (
        "\n".join(json.loads((directory / "robot.onnx.json").read_text())["example"])
        + """
assert actions.shape == (1, 2, 2)
check = contract["check"]
inputs = {name: np.array([check[field]], np.float32) for name, field in
          {"observations": "observation", "noise": "noise"}.items()}
print(np.abs(session.run(["actions"], inputs)[0] - np.array([check["actions"]])).max())
decisions = np.load("decisions.npz")
for batch in (1, 7, 256):
    inputs = {name: decisions[f"{name}{batch}"] for name in ("observations", "noise")}
    (actions,) = session.run(["actions"], inputs)
    assert actions.shape == (batch, 2, 2) and actions.dtype == np.float32
    print(np.abs(actions - decisions[f"actions{batch}"]).max())
for name in ("sorl", "jax"):
    try:
        __import__(name)
    except ImportError:
        print(f"{name} cannot be imported")
"""
    )
    *differences, no_sorl, no_jax = run_alone(code, ("onnxruntime", "numpy"), directory).splitlines()
    assert (no_sorl, no_jax) == ("sorl cannot be imported", "jax cannot be imported")
    assert len(differences) == 4 and max(map(float, differences)) < 5 * ROUNDING  # actions reach 5 units to either side


def test_the_contract_says_what_the_file_takes_and_gives(policy, directory):
    content = json.loads((directory / "robot.onnx.json").read_text())
    assert (content["format"], content["format_version"]) == ("sorl-onnx-policy", 1)
    assert content["observations"]["shape"] == ["batch", 3] and content["observations"]["dtype"] == "float32"
    assert content["observations"]["dimensions"][0] == pytest.approx(
        {"index": 0, "name": "angle", "unit": "rad", "mean": 1.0, "scale": 2.0, "low": -2.0, "high": 4.0}, abs=1e-6
    )
    assert content["noise"]["shape"] == ["batch", 4, 4]
    assert "standard normal" in content["noise"]["law"]
    assert content["actions"]["shape"] == ["batch", 2, 2]
    assert content["actions"]["dimensions"][1] == {
        "index": 1, "name": "actions[1]", "unit": None, "low": -5.0, "high": 5.0
    }  # fmt: skip
    assert "2 actions for as many control steps" in content["actions"]["execution"]
    assert content["budget"]["candidates"] == 4
    assert content["policy"]["sha256_of_actor_and_arrays"] == policy.digest
    assert content["policy"]["provenance"]["data"] == {"path": "logs.npz"}
    assert content["file"]["opset"] == 18 and len(content["file"]["sha256"]) == 64
    assert set(content["parity"]["differences"]) == {"1", "7", "256"}
    assert {"sorl", "jax", "onnx", "onnxruntime"} <= content["versions"].keys()


def test_a_deterministic_policy_has_no_noise_input(tmp_path):
    agent = synthetic.tiny(AGENTS["Rebrac"])
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0), Normalisation.identity(3, 2))
    model = file.to_onnx(policy)
    assert model.noise_shape == (0,)
    versions = file.Session(model)(np.zeros((2, 3), np.float32), np.zeros((2, 0), np.float32))
    np.testing.assert_allclose(versions, policy(np.zeros((2, 3)), key=jax.random.key(0)), atol=ROUNDING)
    decisions = parity.Decisions(np.zeros((1, 3), np.float32), np.zeros((1, 0), np.float32), versions[:1])
    told = contract.contract(policy, names.Names(), (0,), decisions, [], {}, {"name": "p.onnx"})
    assert told["noise"] is None and told["observations"]["dimensions"][0]["low"] is None


# Refusals


def test_a_file_that_acts_otherwise_is_refused_and_not_left_behind(policy, directory, monkeypatch, tmp_path):
    session = file.Session

    def wrong(model: Any) -> Any:
        act = session(model)
        return lambda observations, noise: act(observations, noise) + np.float32(6e-4)  # 1.2e-4 of half the range

    monkeypatch.setattr(file, "Session", wrong)
    with pytest.raises(ValueError, match=r"differ from the policy's by 0.00012 in a batch of 1, and 0.0001 of half"):
        file.save_onnx(policy, tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_differences_within_the_limit_are_told(policy):
    decisions = parity.live_decisions(policy, 7, (4, 4))
    found = parity.compare(policy, lambda observations, noise: decisions.actions + np.float32(2e-4), (4, 4), 7)
    assert found.batch == 7 and found.ties == 0 and found.difference == pytest.approx(4e-5, rel=0.05)
    for other in (decisions.actions[:, 0], np.full_like(decisions.actions, np.nan)):
        with pytest.raises(ValueError, match="shape|differ"):
            parity.compare(policy, lambda observations, noise, other=other: other, (4, 4), 7)


def test_a_choice_among_equal_candidates_is_left_out_and_counted(policy, monkeypatch):
    decisions = parity.live_decisions(policy, 256, (4, 4))
    tied = np.zeros(256, np.bool_)
    tied[3] = True
    monkeypatch.setattr(parity, "_ties", lambda *arguments: tied)
    other = decisions.actions.copy()
    other[3] += 1.0
    found = parity.compare(policy, lambda observations, noise: other, (4, 4), 256)
    assert (found.difference, found.ties) == (0.0, 1)
    other[4] += 1.0
    with pytest.raises(ValueError, match="differ from the policy's by 0.2"):
        parity.compare(policy, lambda observations, noise: other, (4, 4), 256)


def test_ties_are_choices_that_rounding_changes(policy):
    """The critic of the second policy is zero but for the last bits."""
    decisions = parity.live_decisions(policy, 7, (4, 4))
    assert not parity._ties(policy, 7, decisions).any()
    critic = jax.tree.map(lambda leaf: 1e-4 * leaf + 1, policy.networks.critic)
    equal = dataclasses.replace(policy, networks=dataclasses.replace(policy.networks, critic=critic))
    assert parity._ties(equal, 7, parity.live_decisions(equal, 7, (4, 4))).any()


def test_a_budget_that_draws_more_than_noise_is_refused(policy):
    with pytest.raises(ValueError, match="draws more than its noise; export another budget"):
        file.to_onnx(policy.with_budget(Budget(2, 4, verifier=Softmax(1.0))))


def test_options_of_the_other_format_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--with-loader and --platforms are for StableHLO"):
        export.main(export.Config(tmp_path, format="onnx", with_loader=True))
    with pytest.raises(ValueError, match="add --format onnx"):
        export.main(export.Config(tmp_path, names=tmp_path))
    with pytest.raises(ValueError, match="m.onnx is the name of an ONNX file; add --format onnx, or give another name"):
        export.main(export.Config(tmp_path, out=tmp_path / "m.onnx"))


def test_names_and_other_files_are_not_replaced(policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    for out, given in (("robot.onnx", "robot.onnx.json"), ("n.json", "n.json")):
        (tmp_path / given).write_text("{}")
        with pytest.raises(FileExistsError, match=f"{given} is a file to read, and would be replaced"):
            export.main(export.Config(tmp_path / "policy.sorl", tmp_path / out, format="onnx", names=tmp_path / given))
        assert (tmp_path / given).read_text() == "{}"
    (tmp_path / "other.onnx").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("other.onnx", "folder"):
        with pytest.raises(FileExistsError, match=f"{name} exists and is no earlier result of this command"):
            export.main(export.Config(tmp_path / "policy.sorl", tmp_path / name, format="onnx"))
        assert not (tmp_path / f"{name}.json").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ({"observations": ["a", "b"]}, r"has observations that are not a list of 3 texts"),
        ({"action_units": ["m", 1]}, r"has action_units that are not a list of 2 texts"),
        ({"sensors": []}, r"has the field 'sensors'; give some of observations, observation_units, actions"),
    ],
)
def test_names_that_do_not_fit_are_refused(policy, content, message, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        names.names_of(policy, tmp_path / "names.json")


def test_the_names_and_the_rate_of_the_data_are_kept(policy):
    about = {"observation_names": ["a", "b", "c"], "action_names": ["only one of two"], "frame_rate": 50}
    converted = dataclasses.replace(policy, provenance={"versions": {"data": {"source": "own logs", "about": about}}})
    assert names.names_of(converted) == names.Names(observations=("a", "b", "c"))
    assert names.frame_rate(converted) == 50.0
    assert names.names_of(policy) == names.Names() and names.frame_rate(policy) is None


def test_without_the_packages_one_sentence_names_the_extra(policy, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("sorl.policy.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    policy.save(tmp_path / "policy.sorl")
    with pytest.raises(ImportError) as caught:
        export.main(export.Config(tmp_path / "policy.sorl", tmp_path / "policy.onnx", "onnx"))
    assert (entry.sentence(caught.value) or "").endswith("; pip install 'sorl[onnx]'.")
    assert not (tmp_path / "policy.onnx").exists()


# The translation of single operations

WEIGHTS = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 10


def _scanned(x):
    def step(carry, row):
        return carry + row, carry * x.sum() + row

    last, rows = jax.lax.scan(step, x, WEIGHTS[0].T, reverse=True)  # the steps' rows are known
    _, others = jax.lax.scan(lambda carry, own: (carry * own, carry), x[0], x)  # and here they are not
    return jnp.concatenate([last, rows.reshape(-1), others])


ROWS = {
    "functions of one number": lambda x: jnp.exp(x) + jnp.log1p(x * x) * jnp.expm1(-x) - jnp.sign(x) * jnp.floor(x),
    "comparisons": lambda x: jnp.where((x > 0) & ~(x >= 1) | (x != x), jnp.ceil(x), jax.nn.sigmoid(x)),
    "powers": lambda x: x**2 + x**3 + x**4 + jnp.abs(x) ** 1.5 + jax.lax.rsqrt(1 + x * x) + jax.lax.integer_pow(x, -1),
    "minimum and clip": lambda x: jnp.clip(jnp.minimum(x, 0.3), -1, 1) + jax.lax.clamp(-0.5, x, 0.5) + jax.lax.erf(x),
    "reductions": lambda x: x.sum() + x.max() * x.min() - x.prod() + jnp.square(x).mean(),
    "the first of equals": lambda x: x[jnp.argmax(jnp.round(jnp.abs(0 * x)))] + x[jnp.argmin(x)],
    "an index out of bounds": lambda x: x.at[jnp.argmax(x) + 2].get(mode="clip"),
    "slices": lambda x: jnp.concatenate([x[1:], x[::2], x[:1]]),
    "parts": lambda x: sum(part.sum() * factor for factor, part in enumerate(jnp.split(x, [1]), 2)) + jnp.round(3 * x),
    "shapes": lambda x: (x[:, None] * jnp.ones((1, 2))).T.reshape(-1)[None].squeeze(0),
    "a matrix": lambda x: x @ WEIGHTS[0],
    "several matrices": lambda x: jnp.einsum("i,hij->hj", x, WEIGHTS),
    "a product for each head": lambda x: jnp.einsum("hi,hij->hj", jnp.stack([x, 2 * x]), WEIGHTS),
    "a product of two computed matrices": lambda x: jnp.outer(x, x) @ jnp.outer(x, x + 1),
    "a vector of two": lambda x: jnp.tensordot(x, x, 1),
    "constants": lambda x: x + jnp.sin(jnp.arange(3.0)) + jnp.cos(jnp.float32(2)),
    "a constant result": lambda x: jnp.ones(2),
    "whole numbers": lambda x: (x > 0).astype(jnp.int32) * 3 - 1,
    "a loop": _scanned,
}


@pytest.mark.parametrize("function", ROWS.values(), ids=ROWS.keys())
def test_operations_mean_the_same(function):
    import onnxruntime

    (batch,) = jax.export.symbolic_shape("batch")
    struct = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    with warnings.catch_warnings():
        model = translation.translate(jax.vmap(function), {"x": struct}, "y", {})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (1, 4):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        found = np.asarray(session.run(["y"], {"x": x})[0])
        with jax.disable_jit():
            expected = np.stack([function(jnp.asarray(row)) for row in x])
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_what_onnx_does_not_take_is_one_sentence():
    """JAX's `and` is also one of the bits of whole numbers, ONNX's is not."""
    (batch,) = jax.export.symbolic_shape("batch")
    struct = jax.ShapeDtypeStruct((batch, 3), jnp.int32)
    with pytest.raises(ValueError, match=r"^The policy's program has something that ONNX does not take \([^\n]*$"):
        translation.translate(lambda x: x & 3, {"x": struct}, "y", {})


def test_an_operation_without_an_onnx_form_is_named():
    (batch,) = jax.export.symbolic_shape("batch")
    struct = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"has the JAX primitive sort, which has no ONNX form here; write the actor"):
        translation.translate(lambda x: jnp.sort(x), {"x": struct}, "y", {})
