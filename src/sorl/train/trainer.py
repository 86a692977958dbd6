"""The compiled program of a run with its arguments, on one device, on a mesh, or on the meshes of several processes."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from sorl.config.json_form import from_json, to_json
from sorl.config.options import TrainConfig
from sorl.data.host import HostDataset
from sorl.data.transitions import Dataset
from sorl.train import hyperparameters, loop
from sorl.train.devices import DeviceOptions, make_mesh, placed, shardings
from sorl.train.draws import Batches
from sorl.train.feeding import Feed
from sorl.train.hosts import STOP, Hosts


class Trainer:
    """Trains the members of a run.

    A state is either *local*, on the first device of this process, or *placed* on the mesh; without a mesh there is no
    difference. Only a placed state is trained; only a local one is read and saved.

    **Arguments:** `config`, the run's options; `dataset`; `mesh`, the devices to train on (None: the first); `hosts`,
    the channel to the other processes, if this is the first of several.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset | HostDataset, mesh: Mesh | None = None, hosts: Hosts | None = None
    ):
        self._config, self._mesh, self._hosts = config, mesh, hosts
        self._bad: Any = None  # with several processes, `first_bad_step` of the last state
        self._local: tuple[loop.TrainState, loop.TrainState] | None = None  # a placed state and its local copy
        self._dataset, self._feed = dataset, None
        if hosts is not None and isinstance(dataset, HostDataset):
            raise ValueError("Several processes need their data on the device; give --data.residence device.")
        self._own = hyperparameters.own_settings([member.agent for member in config.members.values()])
        mapping = loop.default_seed_mapping() if config.seed_mapping == "auto" else config.seed_mapping
        lengths = {"batch_size": config.batch_size, "log_interval": config.log_interval}
        self._settings: dict[str, Any] = {**lengths, "seed_mapping": mapping, "mesh": mesh}
        if hosts is not None:
            hosts.tell("options", to_json(config))
            hosts.send("data", dataset)
        if mesh is not None:
            everywhere, members = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("seed",)))
            self._dataset = dataset if isinstance(dataset, HostDataset) else placed(dataset, everywhere)
            self._own = placed(self._own, members)

    def place(self, state: loop.TrainState) -> loop.TrainState:
        """Places a local state on the mesh."""
        if self._mesh is None:
            return state
        if self._hosts is not None:
            self._hosts.send("place", state)
        return self._noted(placed(state, shardings(self._mesh, state)))

    def train(self, state: loop.TrainState, updates: int) -> loop.TrainState:
        """Makes updates of every good member and waits for them; `state` is placed, and donated."""
        if self._hosts is not None:
            self._hosts.tell("train", updates)
        self._local = None
        for data, count in self._batches(state, updates):
            state = loop.run_chunk(*self._arguments(state, data, count), **self._settings)
        return self._noted(jax.block_until_ready(state))

    def lowered(self, state: loop.TrainState) -> jax.stages.Lowered:
        """The program that trains a placed state, before it is compiled."""
        data, _ = next(iter(self._batches(state, 1)))
        return loop.run_chunk.lower(*self._arguments(state, data, 1), **self._settings)

    def _arguments(self, state: loop.TrainState, data: Dataset | Batches, updates: int) -> tuple[Any, ...]:
        return self._config.shared_agent, state, data, np.int32(updates), self._own

    def _batches(self, state: loop.TrainState, updates: int) -> Iterable[tuple[Dataset | Batches, int]]:
        """The data and all `updates` if the data are on the device, else gathered batches of some updates at a time."""
        if not isinstance(self._dataset, HostDataset):
            return [(self._dataset, updates)]
        if self._feed is None:
            config = self._config
            self._feed = Feed(
                self._dataset,
                config.agent.window,
                state.keys,
                batch_size=config.batch_size,
                updates=config.updates,
                tile=loop.TILE,
                mesh=self._mesh,
            )
        return self._feed.chunks(int(state.step), updates)

    def close(self) -> None:
        """Ends the thread that gathers batches, if there is one; nothing can be trained afterwards."""
        if self._feed is not None:
            self._feed.close()

    def first_bad_steps(self, state: loop.TrainState) -> Int[np.ndarray, " members"]:
        """`state.first_bad_step` of the state that was last placed or trained."""
        return np.asarray(state.first_bad_step if self._bad is None else self._bad)

    def _noted(self, state: loop.TrainState) -> loop.TrainState:
        """Keeps `first_bad_step` of a placed state on every process, so that reading it needs no gather."""
        if self._mesh is not None and jax.process_count() > 1:
            self._bad = _replicated(state.first_bad_step, NamedSharding(self._mesh, PartitionSpec()))
        return state

    def local(self, state: loop.TrainState) -> loop.TrainState:
        """The local copy of a placed state."""
        if self._mesh is None:
            return state
        if self._local is None or self._local[0] is not state:
            if self._hosts is not None:
                self._hosts.tell("gather")
            self._local = state, self.gathered(state)
        return self._local[1]

    def gathered(self, state: loop.TrainState) -> loop.TrainState:
        """Copies a placed state to the first device of this process; every process must call it."""
        assert self._mesh is not None
        if jax.process_count() > 1:
            state = jax.block_until_ready(_replicated(state, NamedSharding(self._mesh, PartitionSpec())))
            return jax.tree.map(lambda leaf: leaf.addressable_data(0), state)
        return jax.device_put(state, self._mesh.devices.flat[0])


def initial(config: TrainConfig, dataset: Dataset | HostDataset) -> loop.TrainState:
    """The local state of a run before its first update."""
    members = config.members.values()
    own = hyperparameters.own_settings([member.agent for member in members])
    seeds = tuple(member.seed for member in members)
    return loop.init(config.shared_agent, dataset, seeds, own, batch_size=config.batch_size)


def _replicated(tree: Any, everywhere: NamedSharding) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)


def follow(options: DeviceOptions, hosts: Hosts) -> None:
    """Repeats the operations of the first process until it ends; it sends the options, the data and every state."""
    command, value = hosts.hear()
    if command == STOP:
        return
    config = from_json(TrainConfig, value, "The configuration of the first process")
    mesh = make_mesh(options, config)
    assert mesh is not None  # as there are several processes
    with jax.default_matmul_precision(config.matmul_precision):
        _repeat(config, mesh, hosts)


def _repeat(config: TrainConfig, mesh: Mesh, hosts: Hosts) -> None:
    command, value = hosts.hear()
    if command == STOP:
        return
    dataset = Dataset(*map(jnp.asarray, hosts.receive(value)))
    trainer, template = Trainer(config, dataset, mesh), jax.eval_shape(partial(initial, config), dataset)
    state: Any = None
    while True:
        command, value = hosts.hear()
        if command == STOP:
            return
        if command == "place":
            state = trainer.place(hosts.receive(value, template))
        elif command == "train":
            state = trainer.train(state, value)
        else:
            trainer.gathered(state)
