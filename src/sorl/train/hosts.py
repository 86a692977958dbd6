"""Several processes that train one run: process 0 leads, and the others repeat its operations on their own devices.

Commands travel through JAX's coordination service, in which a process may wait for as long as an evaluation takes;
arrays travel as collectives between the devices.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # the coordination service has no public name
from jax.experimental import multihost_utils
from jaxtyping import PyTree


STOP = "stop"
_WAIT_MS = 30 * 24 * 3600 * 1000
"""Longest wait for a command; if the leader dies, the coordination service ends the other processes much earlier."""


@contextmanager
def leading() -> Iterator["Hosts | None"]:
    """The channel to the other processes, which end when this context is left; None if this process is the only one."""
    hosts = Hosts() if jax.process_count() > 1 else None
    try:
        yield hosts
    finally:
        if hosts is not None:
            hosts.tell(STOP)


@contextmanager
def together() -> Iterator[None]:
    """Turns an operation of several processes that failed into a `RuntimeError`, one sentence."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RuntimeError(
            f"The processes could not continue ({reason}), probably because one of them died; see what the others "
            "printed, and start all of them again with --resume."
        ) from error


class Hosts:
    """The channel from process 0 to the others."""

    def __init__(self):
        self._client: Any = distributed.global_state.client
        self._count = 0

    def tell(self, command: str, value: Any = None) -> None:
        """Sends a command and a value, ready for JSON, to the other processes."""
        self._client.key_value_set(self._key(self._count), json.dumps([command, value]))
        # All have read the command before the last one, because each command but `STOP` ends in a collective.
        if self._count >= 2:
            self._client.key_value_delete(self._key(self._count - 2))
        self._count += 1

    def hear(self) -> tuple[str, Any]:
        """Waits for the leader's next command; **returns** it with its value."""
        command, value = json.loads(self._client.blocking_key_value_get(self._key(self._count), _WAIT_MS))
        self._count += 1
        return command, value

    def send(self, command: str, tree: PyTree) -> None:
        """Sends arrays to the other processes, which call `receive` when they hear the command."""
        leaves = [_bytes(leaf) for leaf in jax.tree.leaves(tree)]
        self.tell(command, [_form(leaf) for leaf in jax.tree.leaves(tree)])
        for leaf in leaves:
            multihost_utils.broadcast_one_to_all(leaf)

    def receive(self, forms: list[Any], template: PyTree = None) -> PyTree:
        """The arrays that the leader sends, bit for bit.

        **Arguments:** `forms`, the value of the command; `template`, a pytree of the same structure (None: a list).
        """
        leaves = []
        for dtype, shape, key in forms:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            found = np.asarray(multihost_utils.broadcast_one_to_all(np.zeros(size, np.uint8)))
            array = found.view(dtype).reshape(shape)
            leaves.append(jax.random.wrap_key_data(jnp.asarray(array), impl=key) if key else array)
        return leaves if template is None else jax.tree.unflatten(jax.tree.structure(template), leaves)

    @staticmethod
    def _key(number: int) -> str:
        return f"sorl/command/{number}"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _bytes(leaf: Any) -> np.ndarray:
    # As bytes, because a sum of floats with the zeros of the other processes would lose the sign of a zero.
    return np.ascontiguousarray(_data(leaf)).reshape(-1).view(np.uint8)


def _form(leaf: Any) -> list[Any]:
    data = _data(leaf)
    return [str(data.dtype), list(data.shape), str(jax.random.key_impl(leaf)) if _is_key(leaf) else None]
