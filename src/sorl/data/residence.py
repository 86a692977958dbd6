"""Where training data stay: on the device, in the host's memory, or in mapped files on disk."""

import dataclasses
import os
import pathlib
from typing import Literal

import jax


Residence = Literal["auto", "device", "host", "disk"]
SHARE = 0.5
"""The largest share of the free memory that `auto` gives to the data; training and evaluation need the rest."""
MAX_TRANSITIONS = 2**31 - 1
"""Transitions are numbered with 32 bits."""


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of a data set, known before it is loaded."""

    rows: int
    observation_size: int
    action_size: int
    raw_bytes: int
    """Number of bytes in the logs' own dtypes."""
    mappable: bool
    """Whether its files can be mapped into memory, as those of a data directory can."""

    @property
    def device_bytes(self) -> int:
        """Number of bytes on the device: each row's numbers, in 32 bits, with its reward, mask and start."""
        return 4 * self.rows * (self.observation_size + self.action_size + 3)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A residence with the reason for it."""

    residence: Literal["device", "host", "disk"]
    reason: str


def choose(residence: Residence, size: Size, path: pathlib.Path) -> Chosen:
    """The residence of a data set: the one asked for, or with `auto` the fastest for which there is memory.

    Raises a `ValueError`, one sentence, if it cannot be had.
    """
    if size.rows > MAX_TRANSITIONS:
        raise ValueError(f"{path} has {size.rows:,} steps; give at most {MAX_TRANSITIONS:,}.")
    if residence == "disk" and not size.mappable:
        raise ValueError(
            f"data.residence is disk, but {path} is no data directory, and other files cannot be mapped; convert it "
            f"with `python -m sorl.convert {path} DIRECTORY`, or give host."
        )
    if residence != "auto":
        return Chosen(residence, "as asked for")
    return _fastest(size)


def _fastest(size: Size) -> Chosen:
    host = free_host_memory()
    device, place = free_device_memory(), "the device"
    if device is None:
        device, place = host, "memory"
    if device is None or size.device_bytes <= SHARE * device:
        found = "memory of unknown size" if device is None else f"half of the {_text(device)} free in {place}"
        return Chosen("device", f"its {_text(size.device_bytes)} fit {found}")
    too_large = f"its {_text(size.device_bytes)} exceed half of the {_text(device)} free in {place}"
    if not size.mappable or (host is not None and size.raw_bytes <= SHARE * host):
        return Chosen("host", too_large)
    return Chosen("disk", f"{too_large}, and {_text(size.raw_bytes)} as logged half of the host's")


def free_device_memory() -> int | None:
    """Free bytes of the first device; None if it shares the host's memory or does not say."""
    found = jax.local_devices()[0].memory_stats()
    if not found or "bytes_limit" not in found:
        return None
    return found["bytes_limit"] - found.get("bytes_in_use", 0)


def free_host_memory() -> int | None:
    """Bytes of memory that the system could give to this process; None if it does not say."""
    try:
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _text(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
