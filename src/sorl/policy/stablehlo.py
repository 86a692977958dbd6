"""A policy at one budget as a function of observations and noise, and as a StableHLO file that runs without sorl."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sorl.config.json_form import to_json
from sorl.policy import exported
from sorl.policy.acting import act
from sorl.policy.file import without_directories
from sorl.policy.policy import Policy
from sorl.system.files import make_directory, write_sealed


PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FAR = 1e5
"""If an observation's mean is this many standard deviations from 0, single precision loses significant digits."""


def decision(policy: Policy) -> tuple[Callable[[Array, Array], Float[Array, "batch *chunk action"]], tuple[int, ...]]:
    """The policy at its own budget as a function (observations, noise) -> actions, with the networks as constants.

    **Returns:** also the shape of one decision's noise, which is (0,) if the policy needs none.

    Raises a `ValueError` for a budget whose decisions need other random draws than one array of noise.
    """
    draws = jax.eval_shape(
        lambda key: policy.actor.draw_action(policy.chunk * policy.action_size, policy.budget, key=key),
        jax.random.key(0),
    )
    leaves, structure = jax.tree.flatten(draws)
    if len(leaves) > 1:
        raise ValueError(f"A decision at {policy.budget.name} draws more than its noise; export another budget.")
    if leaves and leaves[0].dtype != jnp.float32:
        raise ValueError(
            f"A decision of {type(policy.actor).__name__} draws {leaves[0].dtype}, but a program takes standard normal "
            "noise in float32; let draw_action draw that."
        )

    def decide(observations, noise):
        draws = jax.tree.unflatten(structure, [noise] if leaves else [])
        return act(policy.actor, policy.networks, policy.normalisation, observations, draws, policy.budget)

    return decide, leaves[0].shape if leaves else (0,)


def inputs(policy: Policy, noise_shape: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The observations and the noise of a program, in single precision, with the symbolic batch size `batch`."""
    (batch,) = jax.export.symbolic_shape("batch")
    observations = jax.ShapeDtypeStruct((batch, policy.observation_size), jnp.float32)
    return observations, jax.ShapeDtypeStruct((batch, *noise_shape), jnp.float32)


def export(policy: Policy, platforms: Sequence[str] = ("cpu", "cuda")) -> jax.export.Exported:
    """The policy at its own budget as a program (observations, noise) -> actions with a symbolic batch size.

    Raises as `save_exported` does.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"The platforms are {', '.join(platforms) or 'none'}; give some of {', '.join(PLATFORMS)}.")
    decide, noise_shape = decision(policy)
    return jax.export.export(jax.jit(decide), platforms=platforms)(*inputs(policy, noise_shape))


def save_exported(policy: Policy, path: str | Path, platforms: Sequence[str] = ("cpu", "cuda")) -> None:
    """Writes the policy at its own budget as one sealed file, which `sorl.policy.exported.load_exported` reads.

    **Arguments:** `platforms`, some of `PLATFORMS`. Raises a `ValueError` for an unknown platform, and for a budget
    whose decisions need more random draws than noise. Warns if an observation's offset is so large that the program,
    which takes single precision, loses significant digits.
    """
    program = export(policy, platforms)
    warn_of_lost_digits(policy)
    make_directory(Path(path).parent)
    write_sealed(
        Path(path), exported.FORMAT, exported.FORMAT_VERSION, header(policy, program), bytes(program.serialize())
    )


def header(policy: Policy, program: jax.export.Exported) -> dict[str, Any]:
    """The header of an exported policy's file."""
    provenance = without_directories(policy.provenance)
    return {
        "agent": provenance.pop("agent", {}),
        "observation_size": policy.observation_size,
        "action_size": policy.action_size,
        "noise_shape": list(program.in_avals[1].shape[1:]),
        "budget": to_json(policy.budget),
        "platforms": list(program.platforms),
        "jax": jax.__version__,
        "calling_convention_version": program.calling_convention_version,
        "provenance": provenance,
    }


def warn_of_lost_digits(policy: Policy) -> None:
    """Warns of lost digits: the program takes single precision, while `Policy` standardises in double precision."""
    standardisation = policy.normalisation.standardisation()
    low, high = standardisation.limits()
    far = np.flatnonzero((np.abs(standardisation.mean) > FAR * standardisation.scale) & (low < high))
    if len(far):
        warnings.warn(
            f"The exported program sees {', '.join(f'observations[{index}]' for index in far)} to few digits, since "
            f"single precision rounds what lies beyond {FAR:g} deviations from 0; subtract the offset before logging.",
            stacklevel=3,
        )
