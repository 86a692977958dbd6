"""CPU cores for attempts that share a machine without knowing of each other, such as tasks of a cluster."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from sorl.system import locks


def reserve(count: int, stack: ExitStack) -> tuple[int, ...]:
    """Chooses `count` cores of this machine, and keeps them from other calls until `stack` is closed.

    Cores that nobody keeps are chosen first; if there are too few of them, others are shared. Fewer are chosen if the
    machine has fewer, and none where a process cannot be bound to cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores, kept = sorted(os.sched_getaffinity(0)), []
    for core in cores:
        if len(kept) < count and _keep(core, stack):
            kept.append(core)
    others = [core for core in cores if core not in kept]
    return tuple(sorted((kept + others)[:count]))


def _keep(core: int, stack: ExitStack) -> bool:
    """Locks a core until `stack` is closed; **returns** whether nobody else had locked it."""
    path = Path(tempfile.gettempdir()) / f"sorl-cores-{os.getuid()}" / f"core-{core}.lock"
    if locks.is_held(path):  # at once, while a busy lock is tried for a while
        return False
    try:
        stack.enter_context(locks.exclusive(path, "Another attempt runs on this core."))
    except BlockingIOError:
        return False
    return True
