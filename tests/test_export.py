"""Exported policies act like the live policy without sorl, and a damaged file gives one clear error."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Policy, export
from sorl.agents.actors import ShortcutActor, actor_of
from sorl.config.json_form import to_json
from sorl.policy import __main__ as policy_command, exported, stablehlo

from . import synthetic
from .alone import run_alone
from .random_networks import make_policy


BATCHES = (1, 7, 256)
ROUNDING = 1e-6
"""Of a unit of the network's actions: the exported program holds the weights as constants, and XLA orders its products
accordingly."""


@pytest.fixture(scope="module")
def policy():
    agent = synthetic.agent()
    networks = make_policy(agent, 3, 2, seed=0, scale=0.2)
    provenance = {"env": "made up", "seed": 3, "agent": to_json(agent)}
    return Policy(agent.actor, networks, synthetic.units(), provenance, budget=Budget(4, 8))


def _decisions(policy, batch: int):
    """Observations, noise, and the live policy's actions with the key of that noise."""
    key = jax.random.key(batch)
    observations = np.random.default_rng(batch).normal(size=(batch, 3)).astype(np.float32)
    keys = jax.random.split(key, batch)
    noise = jax.vmap(lambda k: policy.actor.draw_action(2, policy.budget, key=k))(keys)
    return observations, np.asarray(noise), policy(observations, key=key)


LOAD = """
import jax
import numpy as np
from exported import load_exported

policy = load_exported("policy.stablehlo")
assert policy.header["budget"]["candidates"] == 8
decisions = np.load("decisions.npz")
for batch in (1, 7, 256):
    actions = policy(decisions[f"observations{batch}"], decisions[f"noise{batch}"])
    difference = np.abs(actions - decisions[f"actions{batch}"]).max()
    print(batch, actions.dtype, actions.shape, difference)
one = policy(decisions["observations7"][3], decisions["noise7"][3])
assert one.shape == (2,)
try:
    import sorl
except ImportError:
    print("sorl cannot be imported")
"""


def _check(printed: str) -> None:
    *lines, last = printed.splitlines()
    assert last == "sorl cannot be imported"
    for line, batch in zip(lines, BATCHES, strict=True):
        head, _, difference = line.rpartition(" ")
        assert head == f"{batch} float32 ({batch}, 2)"
        assert float(difference) <= 5 * ROUNDING  # actions reach 5 units to either side


@pytest.fixture(scope="module")
def directory(policy, tmp_path_factory):
    """A run directory, the policy exported from it with its loader, and decisions of the live one."""
    directory = tmp_path_factory.mktemp("run")
    policy.with_budget(Budget()).save(directory / "policy-seed-3.sorl")
    out = directory / "policy.stablehlo"
    export.main(export.Config(directory, out, steps=4, candidates=8, with_loader=True))
    decisions = {}
    for batch in BATCHES:
        found = dict(zip(("observations", "noise", "actions"), _decisions(policy, batch), strict=True))
        decisions |= {f"{name}{batch}": array for name, array in found.items()}
    np.savez(directory / "decisions.npz", **decisions)
    return directory


def test_it_acts_as_the_live_policy_where_sorl_cannot_be_imported(directory):
    _check(run_alone(LOAD, ("jax", "flatbuffers", "numpy", "exported"), directory))


PLAIN = """
import jax, jax.export
import numpy as np

seal, header, program = open("policy.stablehlo", "rb").read().split(b"\\n", 2)
act = jax.jit(jax.export.deserialize(bytearray(program)).call)
actions = np.asarray(act(observations, noise))
"""
"""As the page about deployment shows it."""


def test_five_lines_without_the_loader_do(directory):
    code = """
import numpy as np
decisions = np.load("decisions.npz")
observations, noise = decisions["observations7"], decisions["noise7"]
"""
    code += PLAIN + "print(np.abs(actions - decisions['actions7']).max())"
    assert float(run_alone(code, ("jax", "flatbuffers", "numpy"), directory)) <= 5 * ROUNDING


def test_the_loader_is_a_copy_that_imports_nothing_of_sorl(directory):
    copy = (directory / "exported.py").read_text()
    assert copy == Path(exported.__file__).read_text()
    assert not re.search(r"^\s*(from|import) sorl", copy, re.MULTILINE)


def test_the_file_says_what_it_is(directory):
    loaded = exported.load_exported(directory / "policy.stablehlo")
    assert loaded.header == {
        "agent": to_json(synthetic.agent()),
        "observation_size": 3,
        "action_size": 2,
        "noise_shape": [8, 2],
        "budget": to_json(Budget(4, 8)),
        "platforms": ["cpu", "cuda"],
        "jax": jax.__version__,
        "calling_convention_version": loaded.header["calling_convention_version"],
        "provenance": {"env": "made up", "seed": 3},
    }
    seal, header, program = (directory / "policy.stablehlo").read_bytes().split(b"\n", 2)
    digest = hashlib.sha256(header + b"\n" + program).hexdigest()
    assert seal.decode() == f"sorl-exported-policy 1 {digest}"


def test_actions_are_in_the_environments_units(policy, directory):
    """The deterministic path of one jump, by hand: normalise, one step of the field, clip, scale."""
    program = stablehlo.export(policy.with_budget(Budget(1, noise_scale=0.0)), ["cpu"])
    observation = np.array([[2.0, -1.0, 3.5]], np.float32)
    normalised = jnp.array([0.5, -0.75, 1.0])
    action = policy.networks.generator(normalised, jnp.zeros(2), jnp.array(0.0), jnp.array(0.0))
    expected = jnp.array([5.0, 0.0]) + 5.0 * jnp.clip(action, -1, 1)
    noise = np.ones((1, 1, 2), np.float32)
    np.testing.assert_allclose(program.call(observation, noise)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("budget", [Budget(1), Budget(3, 2, 0.5), Budget(8, 2, policy_conditioning=4)])
def test_every_budget_can_be_exported(policy, budget, tmp_path):
    policy = policy.with_budget(budget)
    stablehlo.save_exported(policy, tmp_path / "policy.stablehlo", ["cpu"])
    loaded = exported.load_exported(tmp_path / "policy.stablehlo")
    observations, noise, actions = _decisions(policy, 4)
    np.testing.assert_allclose(loaded(observations, noise), actions, atol=5 * ROUNDING)
    shaped = loaded(observations.reshape(2, 2, 3), noise.reshape(2, 2, *noise.shape[1:]))
    np.testing.assert_array_equal(shaped, loaded(observations, noise).reshape(2, 2, 2))


@pytest.fixture(scope="module")
def loaded(directory):
    return exported.load_exported(directory / "policy.stablehlo")


def test_noise_is_standard_normal_and_fits(loaded):
    noise = loaded.noise(np.random.default_rng(0), 10_000)
    assert noise.shape == (10_000, 8, 2) and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert loaded.noise(np.random.default_rng(0)).shape == (8, 2)
    assert loaded(np.zeros(3), loaded.noise(np.random.default_rng(0))).shape == (2,)


@pytest.mark.parametrize(
    "observation, noise, message",
    [
        (np.zeros(4), np.zeros((8, 2)), r"shape \(4,\) and the noise \(8, 2\); this policy takes \(.., 3\)"),
        (np.zeros(3), np.zeros((7, 2)), r"the noise \(7, 2\); .* \(.., 8, 2\)"),
        (np.zeros((2, 3)), np.zeros((8, 2)), r"shape \(2, 3\)"),
        (np.array([0.0, np.nan, 0.0]), np.zeros((8, 2)), r"observation of shape \(3,\) holds nan at index \[1\]"),
        (np.array([0.0, 1e39, 0.0]), np.zeros((8, 2)), r"holds inf at index \[1\]; give finite numbers of single"),
        (np.zeros(3), np.full((8, 2), np.nan), r"noise of shape \(8, 2\) holds nan at index \[0, 0\]"),
        (np.zeros(3) + 1j, np.zeros((8, 2)), r"not an array of real numbers \(its type is complex128\)"),
        (["0", "high", "0"], np.zeros((8, 2)), "The observation is not an array of real numbers"),
        (np.zeros(3), [[0.0], [0.0, 1.0]], "The noise is not an array of real numbers"),
        (np.zeros(3), np.full((8, 2), np.inf), "holds inf at"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(loaded, observation, noise, message):
    with pytest.raises(ValueError, match=message):
        loaded(observation, noise)


def test_no_observations_are_no_actions(loaded):
    assert loaded(np.zeros((0, 3)), np.zeros((0, 8, 2))).shape == (0, 2)
    assert loaded(np.zeros((2, 0, 3)), np.zeros((2, 0, 8, 2))).shape == (2, 0, 2)


def _sealed(header: bytes, payload: bytes) -> bytes:
    content = header + b"\n" + payload
    return b"sorl-exported-policy 1 " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


DAMAGE = {
    "empty": lambda seal, header, program: b"",
    "a policy file": lambda seal, header, program: b"sorl-policy 2 00\n{}\n",
    "newer": lambda seal, header, program: b"\n".join([seal.replace(b" 1 ", b" 2 "), header, program]),
    "a bit": lambda seal, header, program: b"\n".join([seal, header, program[:-9] + b"?" + program[-8:]]),
    "truncated": lambda seal, header, program: b"\n".join([seal, header, program[:-1]]),
    "another header": lambda seal, header, program: b"\n".join([seal, b"{}", program]),
    "sealed nothing": lambda seal, header, program: _sealed(header, b""),
    "sealed zeros": lambda seal, header, program: _sealed(header, bytes(1000)),
    "sealed half": lambda seal, header, program: _sealed(header, program[: len(program) // 2]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files_give_one_clear_error(directory, damage, tmp_path):
    path = tmp_path / "policy.stablehlo"
    path.write_bytes(damage(*(directory / "policy.stablehlo").read_bytes().split(b"\n", 2)))
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        exported.load_exported(path)
    assert type(caught.value) is ValueError and "\n" not in str(caught.value)


WRONG_HEADERS = {
    "a newer jax": (
        {"calling_convention_version": 99, "jax": "9.1.0"},
        "by jax 9.1.0 with calling convention 99, and jax",
    ),
    "a newer release of jax": ({"jax": "99.0.1"}, "exported by jax 99.0.1, and jax .* here is older; install that jax"),
    "an older jax": ({"calling_convention_version": 1}, "calling convention 1, and jax .* export the policy again"),
    "no number": ({"calling_convention_version": "10"}, "whose calling_convention_version is '10', not a whole number"),
    "another platform": ({"platforms": ["cuda", "tpu"]}, "for cuda, tpu and jax runs on cpu here; .* --platforms cpu"),
    "no platforms": ({"platforms": "cpu"}, "whose platforms is 'cpu', not a list of names"),
    "no version of jax": ({"jax": None}, "whose jax is None, not a version"),
    "other sizes": ({"observation_size": 4}, "other sizes than its header says"),
    "odd noise": ({"noise_shape": [8.0, 2]}, "whose noise_shape is"),
    "a budget that is none": ({"budget": 4}, "whose budget is 4, not an object"),
}


@pytest.mark.parametrize("change, message", WRONG_HEADERS.values(), ids=WRONG_HEADERS.keys())
def test_headers_that_do_not_fit_are_one_sentence_at_load(directory, change, message, tmp_path):
    _, line, program = (directory / "policy.stablehlo").read_bytes().split(b"\n", 2)
    path = tmp_path / "policy.stablehlo"
    path.write_bytes(_sealed(json.dumps(json.loads(line) | change).encode(), program))
    with pytest.raises(ValueError, match=message) as caught:
        exported.load_exported(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", exported.HEADER)
def test_headers_that_lack_a_field_are_one_sentence_at_load(directory, name, tmp_path):
    _, line, program = (directory / "policy.stablehlo").read_bytes().split(b"\n", 2)
    path, header = tmp_path / "policy.stablehlo", json.loads(line)
    del header[name]
    path.write_bytes(_sealed(json.dumps(header).encode(), program))
    with pytest.raises(ValueError, match=f"has a header without {name}; export the policy again"):
        exported.load_exported(path)


def test_a_program_that_this_jax_cannot_compile_is_one_sentence(directory, monkeypatch):
    loaded = exported.load_exported(directory / "policy.stablehlo")

    def fails(*arguments):
        raise jax.errors.JaxRuntimeError("unknown operation\nat line 3")

    monkeypatch.setattr(loaded, "_act", fails)
    with pytest.raises(RuntimeError, match=r"exported fails with jax .* on cpu \(unknown operation\); export"):
        loaded(np.zeros(3), np.zeros((8, 2)))


def test_the_file_and_its_directory_are_made_without_the_directories_of_the_data(policy, tmp_path):
    policy = dataclasses.replace(policy.with_budget(Budget(1)), provenance={"data": {"path": "/home/ada/logs.npz"}})
    policy.save(tmp_path / "policy.sorl")
    out = tmp_path / "new" / "place" / "policy.stablehlo"
    export.main(export.Config(tmp_path / "policy.sorl", out, platforms=("cpu",), with_loader=True))
    assert exported.load_exported(out).header["provenance"] == {"data": {"path": "logs.npz"}}
    assert (out.parent / "exported.py").exists()


def test_a_policy_is_not_replaced_by_its_export(policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    before = (tmp_path / "policy.sorl").read_bytes()
    with pytest.raises(FileExistsError, match="policy.sorl is a file to read, and would be replaced; give another"):
        export.main(export.Config(tmp_path / "policy.sorl", tmp_path / "." / "policy.sorl", platforms=("cpu",)))
    assert (tmp_path / "policy.sorl").read_bytes() == before


@pytest.mark.parametrize("command", [export, policy_command])
def test_other_files_are_not_replaced(command, policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    for name in ("config.json", "exported.py"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match=f"{name} exists and is no earlier result of this command; give"):
            command.main(command.Config(tmp_path / "policy.sorl", out=tmp_path / name))
        assert (tmp_path / name).read_text() == "mine"


def test_a_loader_replaces_only_a_loader(policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    arguments = {"platforms": ("cpu",), "with_loader": True}
    for _ in range(2):  # a result may replace an earlier one
        export.main(export.Config(tmp_path / "policy.sorl", tmp_path / "out.stablehlo", **arguments))
    (tmp_path / "exported.py").write_text("mine")
    with pytest.raises(FileExistsError, match="exported.py exists and is no earlier result"):
        export.main(export.Config(tmp_path / "policy.sorl", tmp_path / "out.stablehlo", **arguments))
    with pytest.raises(ValueError, match="--out exported.py is the name of the loader"):
        export.main(export.Config(tmp_path / "policy.sorl", tmp_path / "new" / "exported.py", **arguments))


@pytest.mark.parametrize("command", [export, policy_command])
def test_a_directory_that_cannot_be_made_is_refused_before_the_work(command, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/below cannot be made: [^\n]*\.$"):
        command.main(command.Config(tmp_path / "no run", out=tmp_path / "file" / "below" / "out"))


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*policy\.stablehlo; give"):
        exported.load_exported(tmp_path / "policy.stablehlo")


@pytest.mark.parametrize("platforms", [["gpu"], ["cpu", "quantum"], []])
def test_unknown_platforms_are_refused(policy, platforms):
    with pytest.raises(ValueError, match="give some of cpu, cuda, rocm, tpu"):
        stablehlo.export(policy, platforms)


class Dice(ShortcutActor):
    """Draws numbers that are not normal."""

    def draw_action(self, action_size, budget, *, key):
        """Whole numbers."""
        return jax.random.randint(key, (budget.candidates, action_size), 0, 5, jnp.int32)


def test_draws_that_are_no_noise_are_refused(policy):
    dice = dataclasses.replace(policy, actor=actor_of(Dice, policy.actor))
    with pytest.raises(ValueError, match="A decision of Dice draws int32, but a program takes standard normal"):
        stablehlo.export(dice)
