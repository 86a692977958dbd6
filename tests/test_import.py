"""Importing the package imports nothing heavy, and every public name exists."""

import subprocess
import sys

import pytest

import sorl


HEAVY = ("jax", "equinox", "mujoco", "ogbench", "orbax", "matplotlib", "wandb", "tensorboardX", "gymnasium")


@pytest.mark.parametrize(
    "module",
    ["sorl", "sorl.environments.pool", "sorl.environments.serial", "sorl.data", "sorl.data.generation.worker"],
)
def test_importing_it_imports_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))".replace(
        repr(HEAVY), repr(set(HEAVY))
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", sorl.__all__)
def test_public_names_exist(name):
    assert getattr(sorl, name) is not None
    assert name in dir(sorl)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        sorl.colour  # noqa: B018
