"""Trains runs as tasks of a Ray cluster; needs the extra `cluster`.

A task starts the same process as the local engine. If its worker or node dies, the attempt counts as killed; the next
one, on any node, continues from the run's last checkpoint in the shared directory.
"""

import dataclasses
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from sorl.sweep.attempt import POLL_SECONDS, Attempt
from sorl.sweep.engines.interface import memory_of_share


CONNECT_SECONDS = 5.0
"""How long a cluster's address may take to accept a connection."""
HEALTH_SECONDS = 60.0
"""How long a cluster may take to answer."""
KILLED = 137
"""The exit code of an attempt whose worker or node died."""
FAILED = 2
"""The exit code of an attempt that could not be made on its node."""


class RayEngine:
    """Trains runs as Ray tasks.

    **Arguments:** `address`, that of a cluster to join (`auto`: the one on this machine; None: start one here, which
    ends with the command); `cpus`, `gpus`, those of each run, which is bound to so many cores, at least one.

    Raises an `ImportError` without Ray, and a `ValueError`, one sentence, if the cluster cannot be reached or has no
    node with so many CPUs and GPUs.
    """

    def __init__(self, address: str | None, *, cpus: float, gpus: float):
        self._ray, self._gpus, self._cores = _connect(address), gpus, max(1, int(cpus))
        try:
            self._refuse_too_few(cpus, gpus)
        except ValueError:
            self._ray.shutdown()
            raise
        # The sweep itself starts killed runs again; retries of Ray would multiply its number of tries.
        self._task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_on_node)
        self._attempts: dict[Any, Attempt] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more attempt may be queued: always."""
        return True

    @property
    def busy(self) -> bool:
        """Whether an attempt has not ended yet."""
        return bool(self._attempts)

    def start(self, attempt: Attempt) -> None:
        """Queues an attempt."""
        bound = dataclasses.replace(attempt, core_count=self._cores)
        reference = self._task.options(name=attempt.directory).remote(bound, memory_of_share(self._gpus))
        self._attempts[reference] = attempt

    def poll(self) -> dict[str, int]:
        """The exit codes of the attempts that have ended since the last call, by run directory."""
        if not self._attempts:
            return {}
        ready, _ = self._ray.wait(list(self._attempts), num_returns=len(self._attempts), timeout=0)
        return {self._attempts.pop(reference).directory: self._code(reference) for reference in ready}

    def stop(self) -> None:
        """Asks all runs to save and stop, waits for them, and leaves the cluster."""
        for reference in self._attempts:
            self._ray.cancel(reference, recursive=False)
        for reference in self._attempts:
            with suppress(self._ray.exceptions.RayError):  # it was cancelled
                self._ray.get(reference)
        self._ray.shutdown()

    def _code(self, reference: Any) -> int:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            reason = " ".join(str(error.cause).split())[:200].removesuffix(".")
            print(
                f"error: A run could not be started on its node ({reason}); check that every node has the same sorl "
                "and sees the sweep's directory.",
                file=sys.stderr,
            )
            return FAILED
        except self._ray.exceptions.RayError:  # its worker or node died
            return KILLED

    def _refuse_too_few(self, cpus: float, gpus: float) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        for name, wanted, option in (("CPU", cpus, "--num-cpus"), ("GPU", gpus, "--num-gpus")):
            most = max((node.get(name, 0.0) for node in nodes), default=0.0)
            if wanted > most:
                raise ValueError(
                    f"{option} is {wanted:g}, and no node of the Ray cluster has more than {most:g} {name}s; lower it, "
                    "or add a node."
                )


def run_on_node(attempt: Attempt, environment: dict[str, str]) -> int:
    """Makes an attempt on the node of the task; **returns** its exit code. A cancelled task stops the run first."""
    process = dataclasses.replace(attempt, with_parent=True, environment=environment).process()
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    code = process.returncode
    return 128 - code if code < 0 else code


def _connect(address: str | None) -> Any:
    """Starts or joins a cluster, and **returns** the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if address not in (None, "auto"):
        _refuse_unreachable(address)
    place: dict[str, Any] = {"include_dashboard": False} if address is None else {"address": address}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **place)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The Ray cluster at {address} cannot be joined ({reason}); start one with ray start --head, or leave "
            "--address out to start one here."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets one of its own, which would end the command without saving
    return ray


def _refuse_unreachable(address: str) -> None:
    """Raises a `ValueError`, one sentence, unless a Ray cluster answers at the address within a minute."""
    found = re.fullmatch(r"(?:ray://)?(\[[^\]]+\]|[^:/]+):(\d+)", address)
    if found is None or int(found[2]) > 65535:
        raise ValueError(f"--address is {address!r}; give HOST:PORT, as ray start --head prints it, or auto.")
    remedy = "check that its head node runs and that this machine may connect to it, or leave --address out"
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_SECONDS).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"There is no Ray cluster at {address} ({reason}); {remedy}.") from error
    if address.startswith("ray://"):
        return
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "health-check", "--address", address]
    try:
        healthy = subprocess.run(command, capture_output=True, timeout=HEALTH_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        healthy = False
    if not healthy:
        raise ValueError(f"What answers at {address} is no Ray cluster that works; {remedy}.")
