"""The contract beside an ONNX file: all that is needed to run it, as JSON, for readers without sorl."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sorl.config.json_form import to_json
from sorl.policy.file import without_directories
from sorl.policy.onnx.names import Names, frame_rate
from sorl.policy.onnx.parity import LIMIT, Comparison, Decisions
from sorl.policy.policy import Policy


FORMAT = "sorl-onnx-policy"
FORMAT_VERSION = 1

EXAMPLE = """\
import json
import numpy as np
import onnxruntime

contract = json.load(open("{name}.json"))
session = onnxruntime.InferenceSession("{name}")
generator = np.random.default_rng()
observations = np.array([contract["check"]["observation"]], np.float32)  # [batch, observation]
inputs = {{"observations": observations}}
if contract["noise"] is not None:  # fresh for every decision
    shape = (len(observations), *contract["noise"]["shape"][1:])
    inputs["noise"] = generator.standard_normal(shape).astype(np.float32)
(actions,) = session.run(["actions"], inputs)
"""


def contract(
    policy: Policy,
    names: Names,
    noise_shape: tuple[int, ...],
    check: Decisions,
    comparisons: Sequence[Comparison],
    versions: dict[str, str],
    file: dict[str, Any],
) -> dict[str, Any]:
    """The content of the contract.

    **Arguments:** `check`, decisions of which the first is given as an example; `file`, the entries about the file.
    """
    takes_noise = noise_shape != (0,)
    chunk = [policy.chunk] if policy.chunk > 1 else []
    noise = _noise(noise_shape) if takes_noise else None
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "description": (
            "A policy at one compute budget: actions from observations and noise. Any number of rows can be computed "
            "at once; rows do not affect each other, and the file keeps no state. Normalisation, all steps from noise "
            "to action and the choice among candidates are inside."
        ),
        "file": file,
        "observations": _observations(policy, names),
        "noise": noise,
        "actions": _actions(policy, names, chunk),
        "budget": to_json(policy.budget),
        "check": _check(check, takes_noise),
        "parity": _parity(comparisons),
        "policy": {
            "algorithm": policy.algorithm,
            "sha256_of_actor_and_arrays": policy.digest,
            "scores": policy.scores,
            "provenance": without_directories(policy.provenance),
        },
        "versions": versions,
        "example": EXAMPLE.format(name=file["name"]).splitlines(),
    }


def _noise(shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "name": "noise",
        "dtype": "float32",
        "shape": ["batch", *shape],
        "law": (
            "independent standard normal numbers (mean 0, standard deviation 1), drawn afresh for each decision; they "
            "are multiplied by the budget's noise_scale inside"
        ),
    }


def _check(check: Decisions, takes_noise: bool) -> dict[str, Any]:
    return {
        "description": (
            f"The policy's actions for one observation, to test a runtime: at most {LIMIT:g} times half of an action's "
            "range apart."
        ),
        "observation": check.observations[0].tolist(),
        "noise": check.noise[0].tolist() if takes_noise else None,
        "actions": check.actions[0].tolist(),
    }


def _parity(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "description": (
            "Largest difference to the policy that was exported, as a share of half the action's range, by batch size, "
            "in onnxruntime on a CPU."
        ),
        "differences": {str(comparison.batch): comparison.difference for comparison in comparisons},
        "limit": LIMIT,
        "ties_left_out": sum(comparison.ties for comparison in comparisons),
    }


def _observations(policy: Policy, names: Names) -> dict[str, Any]:
    standardisation = policy.normalisation.standardisation()
    low, high = standardisation.limits()
    return {
        "name": "observations",
        "dtype": "float32",
        "shape": ["batch", policy.observation_size],
        "units": (
            "those of the environment or the logs of training, not normalised; a value outside of its limits is "
            "clipped to them inside; no value may be infinite or NaN"
        ),
        "dimensions": [
            {
                "index": index,
                "name": f"observations[{index}]" if names.observations is None else names.observations[index],
                "unit": None if names.observation_units is None else names.observation_units[index],
                "mean": float(standardisation.mean[index]),
                "scale": float(standardisation.scale[index]),
                "low": _finite(low[index]),
                "high": _finite(high[index]),
            }
            for index in range(policy.observation_size)
        ],
    }


def _actions(policy: Policy, names: Names, chunk: list[int]) -> dict[str, Any]:
    low, high = (np.asarray(x, np.float64) for x in (policy.normalisation.action_low, policy.normalisation.action_high))
    return {
        "name": "actions",
        "dtype": "float32",
        "shape": ["batch", *chunk, policy.action_size],
        "units": "those of the environment or the logs of training; every action is within its limits",
        "execution": (
            f"{policy.chunk} actions for as many control steps, to be executed in their order before the next decision"
            if chunk
            else "one action for one control step"
        ),
        "control_steps_per_second": frame_rate(policy),
        "dimensions": [
            {
                "index": index,
                "name": f"actions[{index}]" if names.actions is None else names.actions[index],
                "unit": None if names.action_units is None else names.action_units[index],
                "low": float(low[index]),
                "high": float(high[index]),
            }
            for index in range(policy.action_size)
        ],
    }


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
