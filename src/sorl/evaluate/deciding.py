"""Decisions for the running episodes of an evaluation: batches of one size, several of them computed at a time.

A batch is one call of one compiled program with a fixed number of rows, and each episode always has the same row. So
neither the number of threads nor the other episodes of a batch change any bit of a decision.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sorl.data.normalisation import Standardisation
from sorl.policy import Policy, decide


MOST_ROWS = 16
"""Maximum number of decisions of a batch; few enough that few rows are idle when only the last episodes are left."""

PRODUCT_ROWS = 64
"""Maximum number of rows of a matrix product (decisions times candidates): more hardly make a row cheaper."""


def batch_rows(episodes: int, candidates: int = 1) -> int:
    """Number of rows of an evaluation's batches: the episodes are divided evenly among the fewest allowed batches.

    A batch has at most `MOST_ROWS` decisions and `PRODUCT_ROWS` rows of a product, but at least 2 decisions if there
    are two episodes. The number depends on nothing else, because XLA may give other bits for another number of rows.
    """
    most = max(2, min(MOST_ROWS, PRODUCT_ROWS // candidates))
    return math.ceil(episodes / math.ceil(episodes / most))


class Batch(NamedTuple):
    """The arguments of the compiled policy that are the same in all calls."""

    program: Callable[..., Array]
    leaves: tuple[Any, ...]
    """The arrays and numbers of actor, networks and maps, in a flat tuple, because a call is then cheaper."""
    standardisation: Standardisation | None
    """The standardisation of observations before the program, as in `Policy`; None if the program does it."""
    rows: int
    observation_size: int
    actions_at_once: int
    action_size: int
    key: Key[Array, ""]
    device: Any
    """JAX's default device and precision of products in the thread that made this; threads have their own."""
    precision: Any

    @classmethod
    def of(cls, policy: Policy, rows: int, seed: int) -> "Batch":
        """**Arguments:** `rows`, their number; `seed` of the evaluation, for the noise."""
        standardisation, normalisation = policy.normalisation.split()
        leaves, structure = jax.tree.flatten((policy.actor, policy.networks, normalisation, policy.budget))
        return cls(
            program=_program(structure),
            leaves=tuple(leaves),
            standardisation=standardisation,
            rows=rows,
            observation_size=policy.observation_size,
            actions_at_once=policy.actor.actions_at_once,
            action_size=len(normalisation.action_low),
            key=jax.random.key(seed),
            device=jax.config.jax_default_device,  # type: ignore[attr-defined]
            precision=jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        )

    def first_of_each_row(
        self, ready: Int[np.ndarray, " ready"]
    ) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " left"]]:
        """Splits off the longest-waiting episode of each row; episode i has row i mod `rows`."""
        _, places = np.unique(ready % self.rows, return_index=True)
        return ready[places], np.delete(ready, places)

    def actions(
        self,
        episodes: Int[np.ndarray, " chosen"],
        steps: Int[np.ndarray, " chosen"],
        observations: Float[np.ndarray, "chosen observation"],
    ) -> Float[np.ndarray, "chosen chunk action"]:
        """The next actions of episodes that all have different rows; the input of unused rows is zero.

        Raises a `FloatingPointError` if one of them is not finite.
        """
        if self.standardisation is not None:
            observations = self.standardisation(observations)
        places, size = episodes % self.rows, observations.shape[1]
        columns = np.zeros(self.rows, np.int32), np.zeros(self.rows, np.int32), np.zeros((self.rows, size), np.float32)
        for column, values in zip(columns, (episodes, steps, observations), strict=True):
            column[places] = values
        with jax.default_device(self.device), jax.default_matmul_precision(self.precision):
            actions = np.asarray(self.program(self.leaves, self.key, *columns))[places]
        _refuse_non_finite(actions, episodes, steps)
        return actions.reshape(len(places), self.actions_at_once, self.action_size)


class Deciders:
    """Threads that compute batches; without threads, `begin` computes its batch itself.

    XLA computes without Python's lock, and divides the products of each batch among the cores itself. But a product is
    small, and ends with its slowest part: with one batch at a time most cores of a large machine would wait.
    """

    def __init__(self, batch: Batch, threads: int, wake: Callable[[], None]):
        """**Arguments:** `threads`, their number, or 0; `wake`, called by a thread that has finished a batch."""
        self._batch, self._threads, self._wake = batch, threads, wake
        self._executor = ThreadPoolExecutor(threads) if threads else None
        self._pending: dict[Future[Any], Int[np.ndarray, " chosen"]] = {}

    def __enter__(self) -> "Deciders":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    @property
    def idle(self) -> bool:
        """Whether another batch can begin."""
        return len(self._pending) < max(1, self._threads)

    @property
    def episodes(self) -> int:
        """Number of episodes whose decisions have begun and were not taken by `finished`."""
        return sum(map(len, self._pending.values()))

    def begin(
        self,
        episodes: Int[np.ndarray, " chosen"],
        steps: Int[np.ndarray, " chosen"],
        observations: Float[np.ndarray, "chosen observation"],
    ) -> None:
        """Begins a batch; arguments as for `Batch.actions`, and not to be changed until it has finished."""
        if self._executor is None:
            future: Future[Any] = Future()
            future.set_result(self._batch.actions(episodes, steps, observations))
        else:
            future = self._executor.submit(self._batch.actions, episodes, steps, observations)
            future.add_done_callback(lambda _: self._wake())
        self._pending[future] = episodes

    def finished(self) -> list[tuple[Int[np.ndarray, " chosen"], Float[np.ndarray, "chosen chunk action"]]]:
        """The episodes and actions of each finished batch, once; raises the errors of `Batch.actions`."""
        done = [future for future in self._pending if future.done()]
        return [(self._pending.pop(future), future.result()) for future in done]

    def wait(self) -> None:
        """Waits until a batch has finished."""
        wait(self._pending, return_when=FIRST_COMPLETED)


@functools.cache
def _program(structure: Any) -> Callable[..., Array]:
    """The compiled program of actors, networks, maps and budgets with this tree structure."""

    @jax.jit
    def run(
        leaves: tuple[Any, ...],
        key: Key[Array, ""],
        episodes: Int[Array, " rows"],
        steps: Int[Array, " rows"],
        observations: Float[Array, "rows observation"],
    ) -> Float[Array, "rows *chunk action"]:
        # The noise depends only on seed, episode and step.
        actor, networks, normalisation, budget = jax.tree.unflatten(structure, leaves)
        episode_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, episodes)
        keys = jax.vmap(jax.random.fold_in)(episode_keys, steps)
        return decide(actor, networks, normalisation, observations, keys, budget)

    return run


def _refuse_non_finite(
    actions: Float[np.ndarray, "chosen *chunk action"],
    episodes: Int[np.ndarray, " chosen"],
    steps: Int[np.ndarray, " chosen"],
) -> None:
    # MuJoCo would reset such an episode silently.
    bad = ~np.isfinite(actions).all(axis=tuple(range(1, actions.ndim)))
    if bad.any():
        raise FloatingPointError(
            f"The policy's action in episode {episodes[bad][0]} at step {steps[bad][0]} is not finite; its weights "
            "probably are not either: evaluate an earlier checkpoint."
        )
