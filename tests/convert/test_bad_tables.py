"""Tables and own logs that cannot be used: each is refused in one sentence that says where, and what to do."""

import os
from typing import Any

import numpy as np
import pytest

from .refused import assert_refused


MAPPING = 'observations = "x"\nactions = "u"\nrewards = "r"\nepisode = "e"\n'


def _csv(text, mapping=None):
    def made(directory):
        (directory / "a.csv").write_text(text)
        (directory / "a.toml").write_text(mapping or MAPPING)
        return directory / "a.csv"

    return made


def _npz_with_columns(**changes):
    def made(directory):
        arrays: Any = {name: np.zeros(3) for name in "xure"} | changes
        np.savez(directory / "a.npz", **arrays)
        (directory / "a.toml").write_text(MAPPING)
        return directory / "a.npz"

    return made


def _npz(**changes):
    def made(directory):
        arrays = {
            "observations": np.zeros((6, 2)),
            "actions": np.linspace(-1, 1, 6)[:, None],
            "rewards": np.arange(6.0),
            "terminals": np.array([0, 0, 1, 0, 0, 1]),
            "timeouts": np.zeros(6),
            **changes,
        }
        np.savez(directory / "a.npz", **{key: array for key, array in arrays.items() if array is not None})
        return directory / "a.npz"

    return made


def _pipe(directory):
    os.mkfifo(directory / "a.csv")
    (directory / "a.toml").write_text(MAPPING)
    return directory / "a.csv"


BAD = {
    "no number": (_csv("x,u,r,e\n1,2,3,0\n1,oops,3,0\n"), "u of .. is 'oops' in row 1; give a number"),
    "an underscore": (_csv("x,u,r,e\n1,2,3,0\n1,1_0,3,0\n"), "u of .. is '1_0' in row 1; give a number"),
    "a short row": (_csv("x,u,r,e\n1,2,3,0\n1,2\n"), "has 2 cells in row 1, but 4 columns"),
    "an unknown column": (_csv("y,u,r,e\n1,2,3,0\n"), "has no column 'x'; it has y, u, r, e"),
    "episodes that are mixed": (
        _csv("x,u,r,e\n1,2,3,0\n1,2,3,1\n1,2,3,0\n"),
        "Episode 0 of .. continues in row 2 after others; put the rows of each episode together",
    ),
    "a mapping without ends": (
        _csv("x,u\n1,2\n", 'observations = "x"\nactions = "u"\n'),
        "nothing says where episodes end",
    ),
    "a mapping with a slip": (
        _csv("x,u\n1,2\n", 'observatons = "x"\nactions = "u"\n'),
        "has the unknown entry 'observatons' (do you mean 'observations'?)",
    ),
    "pickled arrays": (_npz(actions=np.array([[1.0], None, 2, 3, 4, 5], dtype=object)), "actions of .. cannot be read"),
    "a trajectory that is not closed": (
        _npz(terminals=np.zeros(6)),
        "row 5 is the last and not marked as an end; mark the last row of every trajectory",
    ),
    "limits without an axis": (
        _npz(action_low=np.array(-1.0), action_high=np.array(1.0)),
        "holds action_low of shape [], action_high of shape []; give action_low and action_high, each [1]",
    ),
    "infinite limits": (
        _npz(action_low=np.array([-np.inf]), action_high=np.array([np.inf])),
        "a.npz do not fit its 1 actions; give one low and one high for each, finite and low <= high",
    ),
    "a table's column without an axis": (_npz_with_columns(u=np.array(1.0)), "u of .. has shape []; give a number or"),
    "one limit": (_npz(action_low=np.array([-1.0])), "holds action_low of shape [1]; give action_low and action_high"),
    "observations without an axis": (_npz(observations=np.zeros(6)), "observations of .. has shape [6]; give [rows, s"),
    "masks and time-outs": (_npz(masks=np.ones(6)), "holds both masks and timeouts; give one of them"),
    "neither masks nor time-outs": (_npz(timeouts=None), "holds neither masks nor timeouts; give one of them"),
    "a NaN after the last step": (
        _npz(next_observations=np.array([[0.0, 0]] * 5 + [[0, np.nan]])),
        "observations of .. in the state after row 5 (episode 1): column 1 is nan, which is not finite",
    ),
    "a column twice": (
        _csv("x,u,r,e\n1,2,3,0\n", MAPPING.replace('"x"', '["x", "x"]')),
        "observations names 'x' twice; name each column once",
    ),
    "no CSV file": (lambda directory: directory / "a.csv", "/a.csv; give the CSV file of your logs"),
    "a pipe": (_pipe, "is a directory or a device; give a CSV file"),
    "an episode without number": (_csv("x,u,r,e\n1,2,3,0\n1,2,3,inf\n"), "e of .. is inf in row 1; number episodes by"),
    "limits of another size": (
        _csv("x,u,r,e\n1,2,3,0\n", MAPPING + "action_low = [-1, -1]\naction_high = [1, 1]\n"),
        "action_low [-1.0, -1.0] and action_high [1.0, 1.0] of .. do not fit its 1 actions",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused_in_one_sentence(tmp_path, capsys, name):
    assert_refused(BAD[name], tmp_path, capsys)
