"""Maps the layout of the reference values to our modules and draws.

The file holds inputs once in float32, and outputs of the authors' released implementation under `f32/` and `f64/`.
Weights lie `[in, out]`; ours lie `[out, in]`. `SORL_GOLDENS=path` runs the tests on another file of the same layout,
which may hold more than ours: what a test can name is compared, and the rest is listed by the last test.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sorl.agents.shared.shortcut_agent import SorlDraws, SorlSharedDraws
from sorl.data.transitions import Transition
from sorl.networks import CriticEnsemble, ShortcutField


OURS = Path(__file__).with_name("goldens.npz")
PATH = Path(os.environ.get("SORL_GOLDENS", OURS))
HIDDEN_SIZES = (16, 16, 16, 16)
DISCOUNT = 0.99
DTYPES = {"f32": jnp.float32, "f64": jnp.float64}
FORWARD_TOLERANCE = {"f32": 1e-5, "f64": 1e-9}
GRADIENT_TOLERANCE = {"f32": 2e-5, "f64": 1e-9}

# Words in an input's name that say what it is for, and what it is.
PURPOSES = {
    "target": {"td", "critic"},
    "flow": {"fm", "flow"},
    "consistency": {"sc", "consistency"},
    "policy": {"q", "actor", "policy"},
}
QUANTITIES = {"noise": {"noise", "x0"}, "time": {"t"}, "levels": {"base"}, "steps": {"k", "steps"}, "index": {"idx"}}
TRANSITION_NAMES = {
    "observation": "obs|observations?",
    "action": "act|actions?",
    "reward": "rewards?",
    "discount": "masks?",
    "next_observation": "next_obs|next_observations?",
}


@functools.cache
def _read(path: Path) -> tuple[dict[str, np.ndarray], set[str]]:
    """All arrays of a file, and the names of those that a test has used so far."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}, set()


class Goldens:
    """One file of reference values, read at one precision."""

    def __init__(self, precision: str, path: Path = PATH):
        self.path = path
        self.precision = precision
        self.values, self.used = _read(path)

    def __contains__(self, name: str) -> bool:
        return name in self.values or f"{self.precision}/{name}" in self.values

    def input(self, name: str) -> jax.Array:
        """An input, in the precision's floating type; integers stay integers."""
        self.used.add(name)
        value = self.values[name]
        return jnp.asarray(value, DTYPES[self.precision]) if value.dtype.kind == "f" else jnp.asarray(value)

    def inputs(self) -> Iterator[str]:
        """The names of all inputs."""
        return (name for name in self.values if not name.startswith(("f32/", "f64/")))

    def output(self, name: str) -> np.ndarray:
        """An expected output of this precision."""
        self.used.add(f"{self.precision}/{name}")
        return self.values[f"{self.precision}/{name}"]

    def outputs(self, scope: str) -> list[str]:
        """The names of all outputs of this precision under `scope`, without both."""
        start = f"{self.precision}/{scope}/"
        return [name.removeprefix(start) for name in self.values if name.startswith(start)]

    def unused(self, *, among: "Goldens | None" = None, besides: "Goldens | None" = None) -> list[str]:
        """The names that no test used, in any precision, with the leaves of a network as one.

        **Arguments:** `among` another file's names only; `besides` those of another file.
        """
        names = self.values.keys() - self.used
        if among is not None:
            names &= among.values.keys()
        if besides is not None:
            names -= besides.values.keys()
        return sorted({re.sub(r"(layer|ln)\d/\w+$", "*", name) for name in names})

    def batch(self) -> Transition:
        """The batch of transitions, one step each."""
        return Transition(
            observation=self.input("in/obs"),
            action=self.input("in/act"),
            reward=self.input("in/rewards"),
            discount=DISCOUNT * self.input("in/masks"),
            next_observation=self.input("in/next_obs"),
            next_action=jnp.zeros_like(self.input("in/act")),  # of no use to the agents that have reference values
        )

    def field(self, name: str = "actor") -> ShortcutField:
        """The policy's network, `actor` or `target_actor`."""
        return self._fill(eqx.filter_eval_shape(ShortcutField, 7, 3, HIDDEN_SIZES, key=jax.random.key(0)), name)

    def critic(self, name: str = "critic") -> CriticEnsemble:
        """The critics' network, `critic` or `target_critic`."""
        return self._fill(eqx.filter_eval_shape(CriticEnsemble, 7, 3, HIDDEN_SIZES, key=jax.random.key(0)), name)

    def _fill(self, network: Any, name: str) -> Any:
        values = [_transposed(leaf, self.input(f"params/{name}/{leaf}")) for leaf in _arrays(network)]
        return jax.tree.unflatten(jax.tree.structure(network), values)


def _arrays(network: ShortcutField | CriticEnsemble) -> dict[str, jax.Array]:
    """A network's arrays by the file's names, in the order of our tree and with weights as ours lie."""
    mlp = network.mlp if isinstance(network, ShortcutField) else network.heads
    arrays = {}
    for index, layer in enumerate(mlp.layers):
        arrays |= {f"layer{index}/w": layer.weight, f"layer{index}/b": layer.bias}
    for index, norm in enumerate(mlp.norms):
        arrays |= {f"ln{index}/scale": norm.weight, f"ln{index}/bias": norm.bias}
    return arrays


def _transposed(leaf: str, value: jax.Array) -> jax.Array:
    return jnp.swapaxes(value, -1, -2) if leaf.endswith("/w") else value


def named_arrays(network: ShortcutField | CriticEnsemble) -> dict[str, jax.Array]:
    """A network's arrays (or a gradient of it) under the names and in the shapes of the file."""
    return {leaf: _transposed(leaf, value) for leaf, value in _arrays(network).items()}


def with_prefix(pattern: str, network: ShortcutField | CriticEnsemble) -> dict[str, jax.Array]:
    """`named_arrays` with a pattern before each name."""
    return {f"{pattern}/{name}": value for name, value in named_arrays(network).items()}


def compare(goldens: Goldens, scope: str, computed: Mapping[str, Any]) -> list[str]:
    """Asserts that every output under `scope` that we can name equals what we computed; returns the other outputs.

    `computed` maps a pattern of names to our value, or to a list of it in several layouts: those in the expected
    shape count, and one of them has to agree. A scope of which nothing was compared is an error: names that no pattern
    knows must not pass as parity.
    """
    names, unknown = goldens.outputs(scope), []
    for name in names:
        values = next((value for pattern, value in computed.items() if re.fullmatch(pattern, name)), [])
        layouts = values if isinstance(values, list) else [values]
        shape = goldens.values[f"{goldens.precision}/{scope}/{name}"].shape
        layouts = [layout for layout in layouts if np.shape(layout) == shape]
        if not layouts:
            unknown.append(name)
            continue
        expected = goldens.output(f"{scope}/{name}")
        tolerance = (GRADIENT_TOLERANCE if "grad" in name else FORWARD_TOLERANCE)[goldens.precision]
        nearest = min(layouts, key=lambda layout: float(np.abs(np.asarray(layout) - expected).max()))
        assert_close(nearest, expected, tolerance, f"{scope}/{name}")
    assert len(unknown) < len(names), f"nothing under {scope} was compared; {goldens.path} has {names[:5]}"
    return unknown


def assert_close(actual: Any, expected: Any, tolerance: float, name: str = "") -> None:
    """Every array agrees within `tolerance` relative to its largest expected magnitude."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.shape(a) == np.shape(e)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(np.abs(e).max(), 1e-30), err_msg=name)


def find_input(goldens: Goldens, group: str, purpose: str, quantity: str) -> jax.Array | None:
    """The input for `purpose`: the group's own, else the one of its name at the top level, else none.

    `group` is a folder such as `actor`, or `update/{i}`, whose inputs may also lie stacked in `update`.
    """
    folder, _, number = group.partition("/")
    own, stacked, top = [], [], []
    for name in goldens.inputs():
        parts = name.split("/")
        if not _is_for(re.split("[/_]", name), purpose, quantity):
            continue
        if parts[0] != folder:
            top += [name] if len(parts) == 2 and parts[0] in set().union(*PURPOSES.values()) else []
        elif not number or number in parts[1:]:
            own.append(name)
        elif not any(part.isdigit() for part in parts[1:]):
            stacked.append(name)
    if own:
        return goldens.input(own[0])
    if stacked:
        return goldens.input(stacked[0])[int(number)]
    return goldens.input(top[0]) if top else None


def _is_for(words: list[str], purpose: str, quantity: str) -> bool:
    purposes = [name for name, known in PURPOSES.items() if known & set(words)]
    if "idx" in words:  # `k_idx` is an index
        words = ["idx"]
    # `actor/fm_x0` is for flow matching: the policy's own word counts only where no other does.
    return bool(QUANTITIES[quantity] & set(words)) and (purposes or [""])[0] == purpose


def find_steps(goldens: Goldens, group: str, purpose: str) -> int | None:
    """The jump count drawn for `purpose`, `target` or `policy`, given as a count or as the index of a power of two."""
    for name in (purpose, ""):  # without a purpose of its own, one count serves both
        if (steps := find_input(goldens, group, name, "steps")) is not None and steps.size == 1:
            return int(steps.item())
        if (index := find_input(goldens, group, name, "index")) is not None and index.size == 1:
            return 2 ** int(index.item())
    return None


def find_draws(goldens: Goldens, group: str) -> SorlDraws | None:
    """The draws of one update or policy loss, where the file holds all of them; noise that is not needed is zero."""
    flow_noise, consistency_noise, policy_noise, target_noise = (
        find_input(goldens, group, purpose, "noise") for purpose in ("flow", "consistency", "policy", "target")
    )
    flow_time, consistency_time = (find_input(goldens, group, name, "time") for name in ("flow", "consistency"))
    levels = find_input(goldens, group, "consistency", "levels")
    if flow_noise is None or consistency_noise is None or policy_noise is None:
        return None
    if flow_time is None or consistency_time is None or levels is None:
        return None
    return SorlDraws(
        flow_noise=flow_noise,
        flow_time=_as_time(flow_time, 8.0, flow_noise.dtype),
        consistency_noise=consistency_noise,
        consistency_time=_as_time(consistency_time, 2.0**levels, flow_noise.dtype),
        policy_noise=policy_noise,
        target_noise=jnp.zeros_like(policy_noise) if target_noise is None else target_noise,
    )


def _as_time(time: jax.Array, steps: Any, dtype: Any) -> jax.Array:
    """Whole numbers count steps."""
    return (time / steps if jnp.issubdtype(time.dtype, jnp.integer) else time).astype(dtype)


def find_batch(goldens: Goldens, group: str) -> Transition:
    """The group's own batch, or the one that all share."""
    fields = {"next_action": goldens.batch().next_action}
    for field, pattern in TRANSITION_NAMES.items():
        own = [name for name in goldens.inputs() if re.fullmatch(rf"{group}/(?:\w+/)*(?:{pattern})", name)]
        fields[field] = goldens.input(own[0]) if own else getattr(goldens.batch(), field)
        if own and field == "discount":
            fields[field] = DISCOUNT * fields[field]
    return Transition(**fields)


def shared_draws(target_steps: int, policy_steps: int) -> SorlSharedDraws:
    """Jump counts as the indices that our agents draw."""
    indices = (jnp.asarray(steps.bit_length() - 1) for steps in (policy_steps, target_steps))
    return SorlSharedDraws(*indices)
