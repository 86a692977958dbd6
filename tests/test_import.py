"""Importing the package imports nothing heavy, every public name exists, and rooms import in the documented order."""

import ast
import re
import subprocess
import sys
from pathlib import Path

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


def test_rooms_import_only_from_rooms_before_them():
    design = (Path(__file__).parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in design.splitlines() if line.startswith("| `")]
    *rooms, last, least = [room for row in rows for room in re.findall(r"`(\w+)/`", row)]
    order = [last, least, *rooms]
    assert order[:3] == ["statistics", "system", "functional"]
    package = Path(sorl.__file__).parent
    assert {path.name for path in package.iterdir() if (path / "__init__.py").exists()} == {*order}
    for path in package.glob("*/**/*.py"):
        room = path.relative_to(package).parts[0]
        imports = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
        ]
        found = {(node.module or "").split(".")[1] for node in imports if (node.module or "").startswith("sorl.")}
        later = {one for one in found & {*order} if order.index(one) > order.index(room)}
        assert not later, f"{path} imports from {later}"
