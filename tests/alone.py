"""A fresh process in which only the packages named can be imported, and what these need themselves."""

import os
import subprocess
import sys


REQUIREMENTS = {
    "jax": ("jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy"),
    "equinox": ("jax", "jaxtyping", "typing_extensions", "wadler_lindig"),
}

BLOCKER = """
import sys
import sysconfig

sysconfig.get_config_vars()  # imports a module of the standard library whose name depends on the machine

class Allowed:
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ALLOWED | sys.stdlib_module_names:
            return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)

    def find_distributions(self, *context):
        for finder in self.finders:
            if hasattr(finder, "find_distributions"):
                yield from finder.find_distributions(*context)

ALLOWED = %r
sys.meta_path[:] = [Allowed(list(sys.meta_path))]
"""


def run_alone(code: str, packages: tuple[str, ...], cwd) -> str:
    """Runs `code` in the directory `cwd` where only `packages` can be imported; **returns** what it printed."""
    allowed = {"coverage", *packages}  # coverage measures subprocesses too
    for _ in REQUIREMENTS:
        allowed |= {need for package in allowed for need in REQUIREMENTS.get(package, ())}
    command = [sys.executable, "-c", BLOCKER % allowed + code]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
