"""The devices of a run: a mesh with an axis over seeds, or members of a population, and one over rows of a batch."""

import dataclasses
import math
import re
from collections import Counter

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sorl.config.options import TrainConfig
from sorl.train.loop import TrainState


AXES = ("seed", "batch")


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """The devices that a run trains on; a run may be continued on others."""

    devices: str | None = None
    """Devices to train on: a number, all, a platform (gpu), or both (gpu:4); seeds, or members of a population, are
    divided among them; default: one, or all with --distributed."""
    mesh: tuple[str, ...] = ()
    """Numbers of devices along the axes, such as seed=2 batch=4: a batch axis divides each batch of wide networks;
    default: all devices along the axis seed."""
    distributed: str | None = None
    """Train with several processes, which all get the same command: auto (Slurm, Open MPI, Kubernetes), or the first
    process's ADDRESS:PORT, the number of processes and this one's number, joined by commas; the first alone reads data,
    evaluates and writes files; default: one process."""

    def __post_init__(self):
        axis_sizes(self.mesh)
        if self.distributed not in (None, "auto"):
            coordinates(self.distributed)
        if self.devices is not None and not re.fullmatch(r"\d+|[a-z]+(:\d+)?", self.devices):
            raise ValueError(f"devices is {self.devices!r}; give a number, all, a platform such as gpu, or gpu:4.")


def axis_sizes(mesh: tuple[str, ...]) -> dict[str, int]:
    """The sizes of the axes in words such as `seed=2`; raises a `ValueError` for other words."""
    sizes: dict[str, int] = {}
    for word in mesh:
        axis, _, size = word.partition("=")
        if axis not in AXES or axis in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"mesh is {' '.join(mesh)!r}; give each of seed and batch once, as in seed=2 batch=4.")
        sizes[axis] = int(size)
    return sizes


def coordinates(distributed: str) -> tuple[str, int, int]:
    """Address, number of processes and this one's number; raises a `ValueError` for a text of another form."""
    found = re.fullmatch(r"(\S+:\d+),(\d+),(\d+)", distributed)
    if not found or not int(found[3]) < int(found[2]):
        raise ValueError(
            f"distributed is {distributed!r}; give auto, or the first process's address, the number of processes, and "
            "this one's number from 0, as in 10.0.0.1:1234,2,0."
        )
    return found[1], int(found[2]), int(found[3])


def connect(options: DeviceOptions) -> None:
    """Connects the processes of a run, if it has several; call it before anything else uses a device.

    Raises a `RuntimeError`, one sentence, if the processes do not find each other.
    """
    if options.distributed is None:
        return
    try:
        if options.distributed == "auto":
            jax.distributed.initialize()
        else:
            address, count, number = coordinates(options.distributed)
            jax.distributed.initialize(address, count, number)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RuntimeError(
            f"The processes of --distributed {options.distributed} did not find each other ({reason}); start all of "
            "them, with the same address."
        ) from error


def make_mesh(options: DeviceOptions, config: TrainConfig) -> Mesh | None:
    """The mesh that a run asks for; None if it asks for one device.

    Raises a `ValueError`, one sentence, if there are too few devices, none of the platform, or a number of seeds or
    rows that an axis does not divide.
    """
    if options.devices is None and not options.mesh and jax.process_count() == 1:
        return None
    sizes = axis_sizes(options.mesh)
    devices = _asked(options, math.prod(sizes.values()) if sizes else None)
    sizes = {"batch": 1} | sizes
    sizes = {"seed": len(devices) // sizes["batch"]} | sizes
    if sizes["seed"] * sizes["batch"] != len(devices):
        raise ValueError(
            f"mesh is {' '.join(options.mesh)!r} but devices is {options.devices}; give as many devices as the axes "
            "have together, or leave --devices out."
        )
    noun = "members" if config.population else "seeds"
    for axis, number, what in (("seed", len(config.members), noun), ("batch", config.batch_size, "rows of a batch")):
        if number % sizes[axis]:
            raise ValueError(
                f"{number} {what} cannot be divided among {sizes[axis]} devices of the axis {axis}; give a number of "
                f"devices that divides {number}."
            )
    return jax.make_mesh(
        (sizes["seed"], sizes["batch"]), AXES, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices
    )


def _asked(options: DeviceOptions, product: int | None) -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]
    """The devices that the options ask for."""
    found = jax.devices()
    counts = Counter(device.platform for device in found)
    shown = ", ".join(f"{count} {platform}" for platform, count in counts.items())
    asked = options.devices or (str(product) if product else "all")
    platform, _, count = asked.partition(":") if not asked.isdecimal() else ("all", "", asked)
    # CUDA and ROCm devices are both called gpu.
    known = found if platform == "all" else [device for device in found if device.platform == platform]
    if not known:
        raise ValueError(
            f"devices is {asked}, but JAX found no {platform} here, only {shown}; install sorl[cuda] or sorl[tpu], or "
            "leave --devices out."
        )
    number = int(count) if count else product or len(known)
    if not 1 <= number <= len(known):
        raise ValueError(f"{number} devices are asked for, but JAX found {shown}; give from 1 to {len(known)}.")
    if jax.process_count() > 1 and number < len(found):
        raise ValueError(f"{number} devices are asked for, but several processes use all of theirs: {shown}.")
    return known[:number]


def shardings(mesh: Mesh, state: TrainState) -> TrainState:
    """The sharding of each array of a state: members along the axis `seed`, the step everywhere."""
    members = jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec("seed")), state)
    return dataclasses.replace(members, step=NamedSharding(mesh, PartitionSpec()))


def placed(tree: PyTree, sharding: PyTree) -> PyTree:
    """Arrays that every process holds, placed on the mesh; `sharding` is one for all, or one for each array."""
    if isinstance(sharding, NamedSharding):
        sharding = jax.tree.map(lambda leaf: sharding, tree)
    return jax.tree.map(_placed, tree, sharding)


def _placed(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    if jax.process_count() == 1:
        return jax.device_put(array, sharding)
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(array))
        return jax.random.wrap_key_data(_placed(data, sharding), impl=jax.random.key_impl(array))  # type: ignore
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
