"""The parts of a space by name, where dictionaries are in each other and keys have slashes."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple

from sorl.environments.spaces import leaves, part


BOX = Box(-1.0, 1.0, (1,))


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (BOX, 1),
        (Dict({"arm": BOX, "goal": Dict({"x": BOX, "y": BOX})}), {"arm": 1, "goal": {"x": 2, "y": 3}}),
        (Tuple((BOX, Dict({"x": BOX}))), (1, {"x": 2})),
        (Dict({"arm": BOX, "arm/pos": BOX, "/tf": Dict({"/x": BOX})}), {"arm": 1, "arm/pos": 2, "/tf": {"/x": 3}}),
    ],
    ids=["alone", "nested", "tuple", "slashes"],
)
def test_each_part_is_found_by_its_name(space, value):
    names = list(leaves(space))
    assert sorted(part(value, name) for name in names) == list(range(1, len(names) + 1))


def test_a_part_that_an_environment_leaves_out_is_named():
    with pytest.raises(KeyError, match="goal"):
        part({"arm": np.zeros(1)}, "goal")
