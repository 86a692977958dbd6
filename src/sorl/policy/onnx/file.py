"""Writes a policy at one budget as an ONNX file with its contract, after a comparison with the live policy."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

import sorl
from sorl.config.json_form import to_json
from sorl.policy.onnx.contract import contract
from sorl.policy.onnx.graph import IR_VERSION, OPSET
from sorl.policy.onnx.names import Names, names_of
from sorl.policy.onnx.parity import BATCHES, Comparison, compare, live_decisions
from sorl.policy.onnx.translation import translate
from sorl.policy.policy import Policy
from sorl.policy.stablehlo import decision, inputs, warn_of_lost_digits
from sorl.system.files import make_directory, whole_file, write_json


class Model(NamedTuple):
    """A policy at one budget in ONNX."""

    content: bytes
    """The content of the file."""
    noise_shape: tuple[int, ...]
    """The shape of one decision's noise; (0,) if the model has no such input."""


class Session:
    """An ONNX model that onnxruntime runs on the CPU."""

    def __init__(self, model: Model):
        self._session = onnxruntime.InferenceSession(model.content, providers=["CPUExecutionProvider"])
        self._takes_noise = model.noise_shape != (0,)

    def __call__(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions for a batch of observations with their noise."""
        feed: Mapping[str, Any] = {"observations": observations} | ({"noise": noise} if self._takes_noise else {})
        return self._session.run(["actions"], feed)[0]  # pyright: ignore[reportReturnType]


def to_onnx(policy: Policy) -> Model:
    """The policy at its own budget as an ONNX model of observations and noise.

    Raises a `ValueError` for a budget whose decisions need more random draws than noise, and for an actor that uses
    something without an ONNX form.
    """
    decide, noise_shape = decision(policy)
    observations, noise = inputs(policy, noise_shape)
    named = {"observations": observations, "noise": noise}
    function = decide
    if noise_shape == (0,):
        function, named = (lambda observations: decide(observations, jnp.zeros(0))), {"observations": observations}
    about = {"algorithm": policy.algorithm, "budget": json.dumps(to_json(policy.budget)), "digest": policy.digest}
    return Model(translate(function, named, "actions", about).SerializeToString(), noise_shape)


def save_onnx(policy: Policy, path: str | Path, names: Names | None = None) -> list[Comparison]:
    """Writes the policy at its own budget as `path`, and its contract as `path` with `.json` appended.

    **Arguments:** `names` of observations and actions for the contract; default: those of the policy's data.

    **Returns:** the comparison with the live policy for each of `BATCHES`. Raises a `ValueError` if they differ by more
    than `parity.LIMIT`, and as `to_onnx` does; then no file is written or changed.
    """
    path = Path(path)
    with jax.default_matmul_precision("float32"):  # accelerators may compute with fewer digits by default
        model = to_onnx(policy)
        session = Session(model)
        comparisons = [compare(policy, session, model.noise_shape, batch) for batch in BATCHES]
        check = live_decisions(policy, 1, model.noise_shape)
    warn_of_lost_digits(policy)
    versions = {
        "sorl": sorl.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    file = {
        "name": path.name,
        "sha256": hashlib.sha256(model.content).hexdigest(),
        "opset": OPSET,
        "ir_version": IR_VERSION,
    }
    content = contract(policy, names or names_of(policy), model.noise_shape, check, comparisons, versions, file)
    make_directory(path.parent)
    # The contract goes first: the digest in it tells an older file that a failure leaves in place.
    write_json(contract_path(path), content)
    with whole_file(path, "wb") as stream:
        stream.write(model.content)
    return comparisons


def contract_path(path: Path) -> Path:
    """The file of the contract of an ONNX file."""
    return path.with_name(f"{path.name}.json")
