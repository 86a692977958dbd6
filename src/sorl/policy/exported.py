"""Loads an exported policy and acts with it.

This file imports nothing of sorl, so that the target machine needs only a copy of it (from
`python -m sorl.export --with-loader`), the policy, jax, flatbuffers and numpy.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import numpy as np


FORMAT = "sorl-exported-policy"
FORMAT_VERSION = 1


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


HEADER: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "agent": ("an object", lambda value: isinstance(value, dict)),
    "observation_size": ("a whole number", _is_size),
    "action_size": ("a whole number", _is_size),
    "noise_shape": ("a list of whole numbers", _is_list_of(_is_size)),
    "budget": ("an object", lambda value: isinstance(value, dict)),
    "platforms": ("a list of names", _is_list_of(lambda name: isinstance(name, str))),
    "jax": ("a version", lambda value: isinstance(value, str)),
    "calling_convention_version": ("a whole number", _is_size),
    "provenance": ("an object", lambda value: isinstance(value, dict)),
}
"""The fields of an exported policy's header: for each field a description and a check."""


def read_sealed(path: str | os.PathLike[str], form: str, versions: Sequence[int]) -> tuple[int, dict[str, Any], bytes]:
    """Reads version, header and payload of a sealed file, whose format version must be one of `versions`.

    A sealed file has three parts: a line with the name of the format, its version and the SHA-256 of everything after
    it; a line of JSON, the header; and the payload. Raises a `FileNotFoundError` if there is no file, and otherwise a
    `ValueError`, one sentence, if the file is unreadable, foreign, of another version, truncated or altered.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is no file; give one that sorl wrote.")
    try:
        with open(path, "rb") as file:
            words = file.readline(200).removesuffix(b"\n").split(b" ")
            content = file.read() if words[0] == form.encode() else b""  # do not read a foreign file, it may be large
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}; give one that sorl wrote.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give a file that you may read.") from error
    # Check format, version and digest in this order, so that the error names the actual problem.
    if words[0] != form.encode() or len(words) != 3:
        raise ValueError(f"{path} is not a {form} file; give one that sorl wrote.")
    if words[1] not in [str(version).encode() for version in versions]:
        raise ValueError(
            f"{path} has format version {words[1].decode(errors='replace')!r} where this sorl reads "
            f"{' and '.join(map(str, versions))}; write "
            "it again with this sorl, or install the one that wrote it."
        )
    if hashlib.sha256(content).hexdigest().encode() != words[2]:
        raise ValueError(
            f"{path} does not match its own SHA-256, so it was truncated or altered; copy it again from its source."
        )
    # Only an unaltered file is parsed.
    line, _, payload = content.partition(b"\n")
    try:
        header = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a header that is not JSON in UTF-8 ({error}); write it again.") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} has a header that is no JSON object; write it again.")
    return int(words[1]), header, payload


class ExportedPolicy:
    """A policy at one budget, for any batch size: a function from observations and noise to actions.

    Observations and actions are in the environment's units; the noise is standard normal.
    """

    def __init__(self, header: dict[str, Any], program: jax.export.Exported):
        self.header = header
        """The header of the file: sizes, budget, platforms, provenance."""
        observations, noise = program.in_avals
        self.observation_size: int = observations.shape[1]
        self.noise_shape: tuple[int, ...] = noise.shape[1:]
        """Shape of the noise for one observation: usually (candidates, action); (0,) if the policy needs no noise."""
        self.action_shape: tuple[int, ...] = program.out_avals[0].shape[1:]
        """Shape of the result for one observation: (action,), or (chunk, action) for actions to execute in order."""
        self._act = jax.jit(program.call)

    def noise(self, generator: np.random.Generator, *batch: int) -> np.ndarray:
        """Draws the noise of one decision, or of a batch of them."""
        return generator.standard_normal((*batch, *self.noise_shape), dtype=np.float32)

    def __call__(self, observation: Any, noise: Any) -> np.ndarray:
        """Acts on one observation [observation] or a batch [.., observation]; `noise` has the same batch shape.

        Raises a `ValueError` that names the shapes if they do not fit, or the first number that is not finite, and a
        `RuntimeError` if this version of jax cannot run the program.
        """
        # Check the shapes and values of the inputs.
        observations, noises = (
            real_numbers(values, name, np.float32, "give numbers")
            for values, name in ((observation, "observation"), (noise, "noise"))
        )
        batch = observations.shape[:-1]
        if observations.shape[-1:] != (self.observation_size,) or noises.shape != (*batch, *self.noise_shape):
            raise ValueError(
                f"The observation has shape {observations.shape} and the noise {noises.shape}; this policy takes "
                f"(.., {self.observation_size}) and (.., {', '.join(map(str, self.noise_shape))})."
            )
        _refuse_not_finite(observations, "observation")
        _refuse_not_finite(noises, "noise")
        rows = math.prod(batch)
        if not rows:  # exported programs need at least one row
            return np.zeros((*batch, *self.action_shape), np.float32)
        # Run the program on a batch with one leading axis.
        observations = observations.reshape(rows, self.observation_size)
        try:
            actions = np.array(self._act(observations, noises.reshape(rows, *self.noise_shape)))
        except Exception as error:  # from the compiler, which gets the program only now
            reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
            raise RuntimeError(
                f"The program that jax {self.header.get('jax')} exported fails with jax {jax.__version__} on "
                f"{jax.default_backend()} ({reason}); export the policy again with this jax."
            ) from error
        return actions.reshape(*batch, *self.action_shape)


def _refuse_not_finite(values: np.ndarray, name: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = np.argwhere(~finite)[0].tolist()
        raise ValueError(
            f"The {name} of shape {values.shape} holds {values[tuple(first)]} at index {first}; give finite numbers of "
            "single precision."
        )


def real_numbers(values: Any, name: str, kind: type, remedy: str) -> np.ndarray:
    """Converts values to a numpy array of dtype `kind`; what does not fit into it becomes infinite.

    **Arguments:** `name` and `remedy`, for the error message.

    Raises a `ValueError`, one sentence, if they are not real numbers, or some of them are masked.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind in "cmMSU":  # complex numbers, times and texts, which numpy would convert
            raise TypeError(f"its type is {given.dtype}")
        if np.ma.is_masked(values):
            raise TypeError("some of it is masked")
        with np.errstate(over="ignore"):
            return given.astype(kind, copy=False)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"The {name} is not an array of real numbers ({reason}); {remedy}.") from error


def load_exported(path: str | os.PathLike[str]) -> ExportedPolicy:
    """Loads a file of `python -m sorl.export`; only load files from sources that you trust.

    Raises as `read_sealed` does, and a `ValueError` if this version of jax or this machine cannot run the program.
    """
    _, header, payload = read_sealed(path, FORMAT, [FORMAT_VERSION])
    _refuse_other_header(path, header)
    _refuse_other_jax(path, header)
    _refuse_other_platforms(path, header["platforms"])
    try:
        policy = ExportedPolicy(header, jax.export.deserialize(bytearray(payload)))
    except ImportError:
        raise
    except Exception as error:  # a payload that is no exported program can fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
        raise ValueError(
            f"{path} holds no program that jax {jax.__version__} can load ({reason}); export the policy again."
        ) from error
    if (policy.observation_size, list(policy.noise_shape)) != (header["observation_size"], header["noise_shape"]):
        raise ValueError(f"{path} holds a program of other sizes than its header says; export the policy again.")
    return policy


def _refuse_other_header(path: str | os.PathLike[str], header: dict[str, Any]) -> None:
    for name, (description, fits) in HEADER.items():
        if name not in header:
            raise ValueError(f"{path} has a header without {name}; export the policy again.")
        if not fits(header[name]):
            found = repr(header[name])[:100]
            raise ValueError(f"{path} has a header whose {name} is {found}, not {description}; export it again.")


def _refuse_other_jax(path: str | os.PathLike[str], header: dict[str, Any]) -> None:
    found = header["calling_convention_version"]
    least = jax.export.minimum_supported_calling_convention_version
    most = jax.export.maximum_supported_calling_convention_version
    if not least <= found <= most:
        remedy = "install that jax or a newer one" if found > most else "export the policy again with a newer jax"
        raise ValueError(
            f"{path} was exported by jax {header['jax']} with calling convention {found}, and jax {jax.__version__} "
            f"here reads {least} to {most}; {remedy}."
        )
    if _release(header["jax"]) > _release(jax.__version__):
        # A newer jax may use new operations with the same calling convention; they would fail only in compilation.
        raise ValueError(
            f"{path} was exported by jax {header['jax']}, and jax {jax.__version__} here is older; install that jax or "
            "a newer one, or export the policy again with this one."
        )


def _release(version: str) -> list[int]:
    """The first two numbers of a version, such as [0, 12] of 0.12.1."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def _refuse_other_platforms(path: str | os.PathLike[str], platforms: list[str]) -> None:
    backend = jax.default_backend()
    here = {"gpu": {"cuda", "rocm"}}.get(backend, {backend})  # JAX calls both "gpu"
    if not here & set(platforms):
        raise ValueError(
            f"{path} was exported for {', '.join(platforms)} and jax runs on {backend} here; export the policy again "
            f"with --platforms {backend if backend != 'gpu' else 'cuda'}, or set JAX_PLATFORMS."
        )
