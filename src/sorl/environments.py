"""OGBench's environments, in this process or one to a worker process; an episode's seed alone decides it.

Worker processes import this module, so it must not import jax.
"""

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from sorl.data.names import Task
from sorl.data.simulators import make_environment


SuccessTiming = Literal["pre", "post"]
"""Whether reward and success are judged on the state before a step, as OGBench does since 1.2, or on the one after."""

DEFAULT_WORKERS = 50
"""Workers of a pool: as many as an evaluation usually has episodes."""

IMAGE_SIZE = 320
"""Height and width of rendered images, in pixels."""


class EnvironmentWorkerError(RuntimeError):
    """A worker process failed or died; its own traceback, where there is one, is attached as a note."""


class Outcome(NamedTuple):
    """What one step did in several environments, one row each, in the order asked for."""

    observations: Float[np.ndarray, "slots observation"]
    rewards: Float[np.ndarray, " slots"]
    success: Bool[np.ndarray, " slots"]
    done: Bool[np.ndarray, " slots"]
    """The episode terminated, or reached the environment's limit of steps."""


class Environment:
    """One of OGBench's single-task environments, whose episodes depend on their seed and the actions, nothing else.

    OGBench draws from three generators, in `step` too: the environment's, the action space's and numpy's global one.
    While the environment works, the last is replaced by the episode's own; this is not for two threads at once.
    """

    def __init__(self, env_name: str, success_timing: SuccessTiming):
        """**Arguments:** `env_name`, such as `cube-single-play-singletask-task1-v0`; `success_timing`."""
        self._generator = np.random.MT19937(0)
        with self._global_generator():
            self._environment = make_environment(
                Task.parse(env_name).gymnasium_id, success_timing=success_timing, width=IMAGE_SIZE, height=IMAGE_SIZE
            )
            self._action_space = self._environment.unwrapped.action_space
            self._observation_size = int(np.prod(self._environment.observation_space.shape))

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        return self._observation_size, int(np.prod(self._action_space.shape))

    def reset(self, seed: int) -> Float[np.ndarray, " observation"]:
        """Starts the episode that `seed` >= 0 decides."""
        words = np.random.SeedSequence(seed).generate_state(3)
        self._generator = np.random.MT19937(words[0])
        self._action_space.seed(int(words[1]))
        with self._global_generator():
            observation, _ = self._environment.reset(seed=int(words[2]))
        return np.asarray(observation, np.float32)

    def step(self, action: Float[np.ndarray, " action"]) -> tuple[np.ndarray, float, bool, bool]:
        """Takes one step; an episode that is done must be reset before the next. **Returns:** a row of `Outcome`."""
        with self._global_generator():
            observation, reward, terminated, truncated, info = self._environment.step(action)
        return np.asarray(observation, np.float32), float(reward), bool(info["success"]), bool(terminated or truncated)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """A picture of the present state; needs an off-screen renderer (MUJOCO_GL)."""
        return self._environment.unwrapped.render()

    @contextlib.contextmanager
    def _global_generator(self) -> Iterator[None]:
        """Swaps the generator behind `np.random` (half a microsecond; saving and setting its state takes 180)."""
        outer = get_bit_generator()
        set_bit_generator(self._generator)
        try:
            yield
        finally:
            set_bit_generator(outer)


class SerialEnvironments:
    """Environments in this process, numbered from 0 ("slots") and made when first used."""

    def __init__(self, env_name: str, *, environments: int = 1, success_timing: SuccessTiming = "pre"):
        """**Arguments:** `env_name`, OGBench's name of a single-task problem; `environments`, how many play side by
        side; `success_timing`.

        Raises a `ValueError` for an unknown name or a count below 1.
        """
        _check(env_name, environments)
        self.env_name = env_name
        self.success_timing: SuccessTiming = success_timing
        self._slots: list[Environment | None] = [None] * environments

    def __len__(self) -> int:
        """How many episodes can be played side by side."""
        return len(self._slots)

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        return self[0].sizes()

    def reset(
        self, slots: Int[np.ndarray, " slots"], seeds: Int[np.ndarray, " slots"]
    ) -> Float[np.ndarray, "slots observation"]:
        """Starts in each of `slots` the episode of its seed."""
        return np.stack([self[slot].reset(int(seed)) for slot, seed in zip(slots, seeds, strict=True)])

    def step(self, slots: Int[np.ndarray, " slots"], actions: Float[np.ndarray, "slots action"]) -> Outcome:
        """Takes one step in each of `slots`; an episode that is done must be reset before the next."""
        return _join([self[slot].step(action) for slot, action in zip(slots, actions, strict=True)])

    def __getitem__(self, slot: SupportsIndex) -> Environment:
        """The environment in a slot."""
        environment = self._slots[slot] or Environment(self.env_name, self.success_timing)
        self._slots[slot] = environment
        return environment


class EnvironmentPool:
    """Environments in a worker process each, until `close`; the interface and the results of `SerialEnvironments`.

    One process is started, makes an environment (a second, 170 MB) and forks itself into the workers: 20 ms and 10 MB
    each, where making an environment would take a second and 170 MB again. It can be forked because it has one thread:
    it is a program of its own, which imports neither the main program nor jax. More workers than cores are no loss: the
    operating system balances the load. All end when this process does, however it ends, and leave Ctrl-C to it.
    """

    def __init__(self, env_name: str, *, workers: int | None = None, success_timing: SuccessTiming = "pre"):
        """Starts the processes without waiting for them.

        **Arguments:** `env_name` and `success_timing` as for `SerialEnvironments`; `workers`, how many episodes play
        side by side (None: `DEFAULT_WORKERS`); the results do not depend on it.

        Raises a `ValueError` for an unknown name or a count below 1.
        """
        workers = DEFAULT_WORKERS if workers is None else workers
        _check(env_name, workers)
        self.env_name = env_name
        self.success_timing: SuccessTiming = success_timing
        pipes = [Pipe() for _ in range(workers)]
        self._connections = [ours for ours, _ in pipes]
        descriptors = [theirs.fileno() for _, theirs in pipes]
        command = [sys.executable, "-c", "from sorl.environments import work; work()", env_name, success_timing]
        # One thread, and no renderer: what runs threads or holds a display must not be forked.
        settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MUJOCO_GL": "disable"}
        self._template = subprocess.Popen(
            command + [str(descriptor) for descriptor in descriptors],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        for _, theirs in pipes:
            theirs.close()

    def __len__(self) -> int:
        """As `SerialEnvironments.__len__`."""
        return len(self._connections)

    def sizes(self) -> tuple[int, int]:
        """As `SerialEnvironments.sizes`."""
        return self._ask("sizes", [0], [()])[0]

    def reset(
        self, slots: Int[np.ndarray, " slots"], seeds: Int[np.ndarray, " slots"]
    ) -> Float[np.ndarray, "slots observation"]:
        """As `SerialEnvironments.reset`."""
        return np.stack(self._ask("reset", slots, [(int(seed),) for seed in seeds]))

    def step(self, slots: Int[np.ndarray, " slots"], actions: Float[np.ndarray, "slots action"]) -> Outcome:
        """As `SerialEnvironments.step`."""
        return _join(self._ask("step", slots, [(action,) for action in actions]))

    def close(self, patience: float = 10.0) -> None:
        """Ends the workers; kills what has not ended after `patience` seconds."""
        for connection in self._connections:
            connection.close()
        try:
            self._template.wait(patience)
        except subprocess.TimeoutExpired:
            self._template.kill()
            self._template.wait()

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _ask(self, method: str, slots: Any, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Calls a method of the environments in `slots`, all at the same time."""
        connections = [self._connections[slot] for slot in slots]
        if self._connections[0].closed:
            raise EnvironmentWorkerError(f"The pool of {self.env_name} is closed; make a new one.")
        try:
            for connection, own in zip(connections, arguments, strict=True):
                with contextlib.suppress(BrokenPipeError):  # a dead worker is told apart by its missing reply
                    connection.send((method, own))
            return [self._receive(connection) for connection in connections]
        except BaseException:
            self.close()  # a reply left behind would be taken for that of the next call
            raise

    def _receive(self, connection: Connection) -> Any:
        try:
            reply = connection.recv()
        except (EOFError, ConnectionResetError):
            raise EnvironmentWorkerError(
                f"A worker process of {self.env_name} died; give fewer workers if memory ran out."
            ) from None
        if isinstance(reply, _Failure):
            error = EnvironmentWorkerError(f"An environment worker of {self.env_name} failed: {reply.message}")
            error.add_note(reply.traceback)
            raise error
        return reply


# What an evaluation plays on; the results do not depend on which.
Environments = SerialEnvironments | EnvironmentPool


class _Failure(NamedTuple):
    """An exception on its way from a worker to the pool."""

    message: str
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> "_Failure":
        return cls(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def work() -> None:
    """The program of the process that a pool starts: `env_name success_timing file_descriptor...`."""
    # Ctrl-C and a scheduler's warning reach the whole group of processes; what they mean is for the parent to say.
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    env_name, success_timing, *descriptors = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors]
    try:
        environment = SerialEnvironments(env_name, success_timing=success_timing)[0]  # type: ignore[arg-type]
    except Exception as error:
        for connection in connections:
            connection.send(_Failure.of(error))
        return
    while connections:
        connection = connections.pop(0)
        if os.fork() == 0:
            for other in connections:
                other.close()  # its end must be seen when its own worker ends
            try:
                serve(connection, environment)
            finally:
                os._exit(0)
        connection.close()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def serve(connection: Connection, environment: Environment) -> None:
    """Answers a pool's calls to one environment until its end of the pipe is closed."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), connection:
        while True:
            method, arguments = connection.recv()
            try:
                reply = getattr(environment, method)(*arguments)
            except Exception as error:
                reply = _Failure.of(error)
            connection.send(reply)


def _check(env_name: str, environments: int) -> None:
    Task.parse(env_name)
    if environments < 1:
        raise ValueError(f"{environments} environments cannot play; give at least 1.")


def _join(rows: list[tuple[np.ndarray, float, bool, bool]]) -> Outcome:
    return Outcome(*(np.stack(column) for column in zip(*rows, strict=True)))
