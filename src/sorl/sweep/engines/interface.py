"""What a sweep asks of an engine."""

from typing import Protocol, runtime_checkable

from sorl.sweep.attempt import Attempt


@runtime_checkable
class Engine(Protocol):
    """Trains runs, some at a time."""

    @property
    def has_room(self) -> bool:
        """Whether one more attempt may be started now."""
        ...

    @property
    def busy(self) -> bool:
        """Whether an attempt has not ended yet."""
        ...

    def start(self, attempt: Attempt) -> None:
        """Starts an attempt, or queues it."""
        ...

    def poll(self) -> dict[str, int]:
        """The exit codes of the attempts that have ended since the last call, by run directory."""
        ...

    def stop(self) -> None:
        """Starts no more attempts, asks all to save and stop, and waits for them."""
        ...


MEMORY_SHARE = 0.9
"""Share of a GPU's memory for all runs on it together."""


def memory_of_share(gpus: float) -> dict[str, str]:
    """The environment variables that keep a run on a fraction of a GPU within its share of the memory."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY_SHARE * gpus:.3f}"} if 0 < gpus < 1 else {}
