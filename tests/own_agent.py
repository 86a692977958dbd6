"""Agents of a user's own, for tests: a file that registers one, and a registry that forgets it afterwards."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from sorl.agents import modules, registry
from sorl.agents.actors import ACTORS


SOURCE = '''"""An agent of a user."""

import sorl


@sorl.register_agent
class {name}(sorl.Bc):
    """Clones, under another name."""

    own_logs = {{"learning_rate": 1e-2}}
'''


@contextlib.contextmanager
def forgotten_afterwards() -> Iterator[None]:
    """What is registered and imported in the context is forgotten after it."""
    stores = registry._agents, ACTORS, registry._loaded, registry._installed, modules._options
    before = [store.copy() for store in stores]
    path, imported = sys.path.copy(), set(sys.modules)
    try:
        yield
    finally:
        for store, content in zip(stores, before, strict=True):
            store.clear()
            store.update(content)  # pyright: ignore[reportArgumentType, reportCallIssue]
        added = [place for place in sys.path if place not in path]
        sys.path[:] = path
        for name in sys.modules.keys() - imported:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and any(Path(file).is_relative_to(place) for place in added):
                del sys.modules[name]


def write(directory: Path, name: str = "Mine", stem: str = "my_agents") -> Path:
    """Writes a file that registers an agent."""
    path = directory / f"{stem}.py"
    path.write_text(SOURCE.format(name=name))
    return path
