"""Trains runs as processes on this machine, each on its share of the CPU cores and of the GPUs."""

import dataclasses
import glob
import math
import os
import subprocess

from sorl.sweep.attempt import Attempt
from sorl.sweep.engines.interface import memory_of_share


class LocalEngine:
    """Trains at most `jobs` runs at a time.

    Every place has the same number of cores, so that a run's results do not depend on its place.

    **Arguments:** `jobs`; `gpus`, those of each run: none, one, or a fraction of one that runs share.

    Raises a `ValueError`, one sentence, if the machine has too few GPUs.
    """

    def __init__(self, jobs: int, gpus: float = 0.0):
        self._jobs, self._gpus = jobs, gpus
        self._devices = gpus_here() if gpus else []
        # As many runs share a GPU as fit on it.
        self._runs_of_device = int(1 / gpus + 1e-9) if gpus else 1
        needed = math.ceil(jobs / self._runs_of_device) if gpus else 0
        if needed > len(self._devices):
            raise ValueError(
                f"{jobs} runs at a time with {gpus:g} GPUs each need {needed}, and this machine has "
                f"{len(self._devices)}; lower --num-gpus or --jobs."
            )
        self._places: dict[int, tuple[Attempt, subprocess.Popen[bytes]]] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more attempt may be started now."""
        return len(self._places) < self._jobs

    @property
    def busy(self) -> bool:
        """Whether an attempt has not ended yet."""
        return bool(self._places)

    def start(self, attempt: Attempt) -> None:
        """Starts an attempt at a free place."""
        place = next(place for place in range(self._jobs) if place not in self._places)
        placed = dataclasses.replace(
            attempt, cores=self._cores(place), environment=attempt.environment | self._devices_of(place)
        )
        self._places[place] = placed, placed.process()

    def poll(self) -> dict[str, int]:
        """The exit codes of the attempts that have ended since the last call, by run directory."""
        ended = {place: process.poll() for place, (_, process) in self._places.items()}
        codes = {place: code for place, code in ended.items() if code is not None}
        return {self._places.pop(place)[0].directory: 128 - code if code < 0 else code for place, code in codes.items()}

    def stop(self) -> None:
        """Asks all runs to save and stop, and waits for them."""
        for _, process in self._places.values():
            process.terminate()
        for _, process in self._places.values():
            process.wait()

    def _cores(self, place: int) -> tuple[int, ...]:
        if not hasattr(os, "sched_getaffinity"):
            return ()
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // self._jobs
        return tuple(cores[place * share : (place + 1) * share]) if share else (cores[place % len(cores)],)

    def _devices_of(self, place: int) -> dict[str, str]:
        if not self._gpus:
            return {}
        device = self._devices[place // self._runs_of_device]
        return {"CUDA_VISIBLE_DEVICES": device} | memory_of_share(self._gpus)


def gpus_here() -> list[str]:
    """The NVIDIA GPUs that processes started here may use, as `CUDA_VISIBLE_DEVICES` names them; none is opened."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device and device != "-1"]
    return [str(index) for index in range(len(glob.glob("/dev/nvidia[0-9]*")))]
