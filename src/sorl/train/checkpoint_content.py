"""The content of a checkpoint: a state's arrays, and a description with checksums that verifies them."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


FORMAT_VERSION = 1

_FIELDS = {"format_version", "leaves", "record", "sha256"}


class CheckpointError(Exception):
    """A checkpoint could not be written, or it is missing, damaged, or of a different state or format."""


def to_host(state: PyTree) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Copies a state's arrays to the host; **returns** them by path, and each leaf's type and checksum by path.

    Raises a `CheckpointError` if the state holds anything but arrays.
    """
    with_paths = [(keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    for path, leaf in with_paths:
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise CheckpointError(
                f"The state holds {path}, of type {type(leaf).__name__}, but only arrays can be saved; filter it out."
            )
    # Not `jax.device_get`: on a CPU it returns views of memory that is about to be donated.
    copies = [np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for _, leaf in with_paths]
    leaves = {}
    for (path, leaf), copy in zip(with_paths, copies, strict=True):
        leaves[path] = {"type": _type(leaf), "crc32": _checksum(copy)}
        if _is_key(leaf):
            leaves[path]["key"] = str(jax.random.key_impl(leaf))
    # Orbax refuses arrays without elements; their type in the description is enough to restore them.
    return {path: copy for (path, _), copy in zip(with_paths, copies, strict=True) if copy.size > 0}, leaves


def to_device(array: np.ndarray | None, template: Any, key: str | None) -> Any:
    """A restored array in the form of its template; for a typed key, `key` names its generator."""
    if array is None:
        data = jax.eval_shape(jax.random.key_data, template) if key else template
        array = np.zeros(data.shape, data.dtype)
    if isinstance(template, np.ndarray):
        return array
    committed = getattr(template, "committed", True)
    value = jax.random.wrap_key_data(jnp.asarray(array), impl=key) if key else array
    return jax.device_put(value, template.sharding if committed else None)


def describe(leaves: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """The description of a checkpoint with its own digest, ready for JSON."""
    description = {"format_version": FORMAT_VERSION, "leaves": leaves, "record": record}
    return description | {"sha256": _digest(description)}


def check_description(description: Any, where: str) -> dict[str, Any]:
    """Verifies a description and returns it; those of version 0.1.0 have neither a record nor a digest.

    Raises a `ValueError` if it is damaged, and a `CheckpointError` that begins with `where` if its format is unknown.
    """
    if not isinstance(description, dict) or not isinstance(description.get("leaves"), dict):
        raise ValueError("its description lists no arrays")
    sealed = {name: value for name, value in description.items() if name != "sha256"}
    if "sha256" in description and description["sha256"] != _digest(sealed):
        raise ValueError("its description differs from what was saved")
    version, unknown = description.get("format_version"), sorted(description.keys() - _FIELDS)
    if version != FORMAT_VERSION or unknown:
        found = f"the unknown fields {unknown}" if version == FORMAT_VERSION else f"format version {version}"
        raise CheckpointError(
            f"{where} has {found}, and version {FORMAT_VERSION} was expected; read it with the release of sorl that "
            "wrote it."
        )
    return description


def compare(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises a `CheckpointError` unless the described leaves have the paths, shapes and dtypes of the template."""
    types = {path: leaf["type"] for path, leaf in found.items()}
    differences = [
        f"{path} is {types.get(path, 'missing')} and {_type(expected[path]) if path in expected else 'nothing'} was "
        "expected"
        for path in sorted(found.keys() | expected.keys())
        if path not in found or path not in expected or types[path] != _type(expected[path])
    ]
    if differences:
        others = f" (one of {len(differences)} differences)" if len(differences) > 1 else ""
        raise CheckpointError(
            f"{where} does not fit: {differences[0]}{others}; restore it with the configuration that it was made with."
        )


def check_arrays(leaves: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises a `ValueError` if an array is missing or differs from what was saved."""
    for path, leaf in leaves.items():
        # An array without elements is not saved.
        if leaf["crc32"] != (_checksum(arrays[path]) if path in arrays else 0):
            raise ValueError(f"{path} differs from what was saved")


def keystr(path: tuple[Any, ...]) -> str:
    """The name of a leaf in a description."""
    return jax.tree_util.keystr(path) or "state"


def _type(leaf: Any) -> str:
    """The dtype and shape of an array, such as `float32[3,4]`, or `key<fry>[2]` for typed keys."""
    return f"{leaf.dtype}[{','.join(str(size) for size in leaf.shape)}]"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _checksum(array: np.ndarray) -> int:
    # Neither Orbax nor TensorStore detects a flipped bit in an array's data.
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
