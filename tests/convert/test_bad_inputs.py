"""Inputs that cannot be used: each is refused in one sentence that says where, and what to do."""

import json
import shutil

import numpy as np
import pytest

from .. import recorded_files
from ..data import test_minari
from .refused import assert_refused, refusal
from .test_bad_tables import MAPPING


h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ENDS = ["terminal", "timeout", "terminal"]
REWARD = [np.zeros(n, np.float32) for n in (4, 3, 5)]


def _d4rl(change):
    def made(directory):
        found = recorded_files.episodes()
        path = recorded_files.write_d4rl(directory / "a.hdf5", found, ENDS)
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return made


def _robomimic(change):
    def made(directory):
        path = recorded_files.write_robomimic(
            directory / "a.hdf5", recorded_files.episodes(), [[0, 0, 0, 1], [0, 0, 1], [0, 0, 0, 0, 1]]
        )
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return made


def _lerobot(version="v3.0", changes=None, columns=None, spoil=None):
    def made(directory):
        path = directory / "set"
        recorded_files.write_lerobot(
            path, recorded_files.episodes(), version, {"next.reward": REWARD, **(columns or {})}, changes
        )
        if spoil:
            spoil(path)
        return path

    return made


def _put(key, value):
    def change(file):
        del file[key]
        file[key] = value

    return change


def _only_images(file):
    for number in range(3):
        for key in ("object", "eef_pos"):
            del file[f"data/demo_{number}/obs/{key}"]


def _number(key, place, value):
    def change(file):
        file[key][place] = value

    return change


def _linked(file):
    del file["actions"]
    file["actions"] = h5py.ExternalLink("other.hdf5", "/actions")


def _features(path, **changes):
    info = json.loads((path / "meta/info.json").read_text())
    info["features"] |= changes
    (path / "meta/info.json").write_text(json.dumps(info))


def _column(name, values):
    """Replaces a column in the first file of a LeRobot set."""

    def spoil(path):
        file = path / "data/chunk-000/file-000.parquet"
        table = parquet.read_table(file)
        place = table.schema.get_field_index(name)
        parquet.write_table(table.set_column(place, name, pa.array(values, table.schema.field(name).type)), file)

    return spoil


def _listed_again(path):
    file = path / "meta/episodes.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]))


def _without_data_of_the_last(path):
    (path / "data/chunk-000/episode_000002.parquet").unlink()
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"total_frames": 7}))


def _no_width(file):
    for number in range(3):
        steps = len(file[f"data/demo_{number}/actions"])
        _put(f"data/demo_{number}/actions", np.zeros((steps, 0)))(file)


def _states_only(file):
    for number in range(3):
        demo = file[f"data/demo_{number}"]
        demo["states"] = demo["obs/object"][:]
        del demo["obs"]


def _two_formats(path):
    (path / "data.json").write_text("{}")


def _two_columns(directory):
    table = pa.Table.from_arrays([pa.array([1.0, 2.0])] * 5, names=["x", "u", "u", "r", "e"])
    parquet.write_table(table, directory / "a.parquet")
    (directory / "a.toml").write_text(MAPPING)
    return directory / "a.parquet"


BAD = {
    "a NaN": (
        _d4rl(_number("observations", (5, 1), np.nan)),
        "row 5 (episode 1): column 1 is nan, which is not",
    ),
    "an infinity": (
        _d4rl(_number("rewards", 11, np.inf)),
        "row 11 (episode 2): inf, which is not finite; repair",
    ),
    "a NaN in a demonstration": (
        _robomimic(_number("data/demo_1/actions", (2, 0), np.nan)),
        "step 2 of demo_1: column 0 is nan",
    ),
    "huge actions": (_d4rl(_number("actions", (0, 0), 1e31)), "beyond 1e+30, where training overflows; give them in a"),
    "discrete actions of D4RL": (
        _d4rl(_put("actions", np.arange(12))),
        "as discrete actions have; give continuous ones",
    ),
    "whole numbers as actions": (
        _d4rl(_put("actions", np.zeros((12, 1), np.int64))),
        "dtype int64, as discrete actions have, but policies act with real numbers; give continuous actions as floats",
    ),
    "rows of different number": (_d4rl(_put("rewards", np.zeros(11))), "rewards 11; give all the same number"),
    "an array of objects": (
        _d4rl(_put("actions", np.array([b"a"] * 12, dtype=object))),
        "actions of .. has dtype object; give arrays of real numbers",
    ),
    "a link to another file": (_d4rl(_linked), "is a link to another file; store it in this one"),
    "flags that are none": (_d4rl(_put("terminals", np.arange(12))), "terminals of .. is 2 in row 2; give 0 or 1"),
    "no time-outs": (_d4rl(lambda file: file.pop("timeouts")), "lacks timeouts; it has actions, next_observations"),
    "steps out of order": (
        _d4rl(_number("next_observations", (1, 0), 9.0)),
        "next_observations of .. in row 1 is not the observation of row 2, although row 1 ends no trajectory",
    ),
    "images only": (
        _robomimic(_only_images),
        "has only images as observations (front_image), but policies need vectors",
    ),
    "observations of another size": (
        _robomimic(_put("data/demo_2/obs/object", np.zeros((5, 2), np.float32))),
        "data/demo_2 has 4 columns, but next_obs 3; give both the same",
    ),
    "a demonstration without rewards": (
        _robomimic(lambda file: file["data/demo_0"].pop("rewards")),
        "data/demo_0 has no rewards; say where they come from with --reward success-at-end, last-step, or from COLUMN",
    ),
    "fewer actions than observations": (
        _robomimic(_put("data/demo_1/actions", np.zeros((1, 2), np.float32))),
        "demo_1",
    ),
    "another HDF5 file": (_d4rl(lambda file: file.pop("actions") and file.pop("observations")), "layout; give a file"),
    "discrete actions of LeRobot": (
        _lerobot(spoil=lambda path: _features(path, action={"dtype": "int64", "shape": [1], "names": None})),
        "action of .. has dtype int64 and shape [1], but policies act with vectors of real numbers",
    ),
    "an unknown version": (
        _lerobot(changes={"codebase_version": "v9.0"}),
        "is of version v9.0; give a data set of LeRobot",
    ),
    "no parquet files": (
        _lerobot(spoil=lambda path: shutil.rmtree(path / "data")),
        "holds no parquet file; fetch the data set again",
    ),
    "a damaged parquet file": (
        _lerobot("v2.1", spoil=lambda path: (path / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1")),
        "episode_000001.parquet cannot be read as parquet",
    ),
    "a NaN in LeRobot": (
        _lerobot(columns={"next.reward": [*REWARD[:2], np.array([0, 0, np.nan, 0, 0], np.float32)]}),
        "row 9 (episode 2): nan, which is not finite",
    ),
    "no frame rate": (_lerobot(changes={"fps": 0}), "says fps 0; give a number of frames per second above 0"),
    "another shape than described": (
        _lerobot(
            spoil=lambda path: _features(
                path, **{"observation.state": {"dtype": "float32", "shape": [7], "names": None}}
            )
        ),
        "observation.state of .. has 3 numbers in each step, but meta/info.json says 7",
    ),
    "a shape that is none": (
        _lerobot(spoil=lambda path: _features(path, action={"dtype": "float32", "shape": ["2"], "names": None})),
        "says shape ['2'] of action; fetch the data set again",
    ),
    "another number of episodes": (_lerobot(changes={"total_episodes": 4}), "lists 3 episodes, but .. says 4"),
    "an episode that is listed twice": (_lerobot("v2.1", spoil=_listed_again), "lists episode 1 twice"),
    "an episode without data": (
        _lerobot("v2.0", spoil=_without_data_of_the_last),
        "lists episode 2, but has no step of it; fetch the data set again",
    ),
    "no description of episodes": (
        _lerobot(spoil=lambda path: shutil.rmtree(path / "meta/episodes")),
        "has neither episodes/*/*.parquet nor episodes.jsonl",
    ),
    "frames out of order": (
        _lerobot(spoil=_column("frame_index", [0, 2, 1, 3])),
        "frame_index of .. is 1 in row 2, after 2 in the same episode 0; put the frames of each episode in order",
    ),
    "times that go back": (
        _lerobot(spoil=_column("timestamp", [0.0, 0.5, 0.25, 0.75])),
        "in row 2 (episode 0) is 0.25, which comes before the 0.5 of the last step",
    ),
    "a time that is none": (
        _lerobot(spoil=_column("timestamp", [0.0, 0.5, np.nan, 0.75])),
        "in row 2 (episode 0) is nan, which is not finite",
    ),
    "a directory of two formats": (_lerobot(spoil=_two_formats), "has data.json and meta/info.json, which are of diff"),
    "a directory of no format": (lambda directory: _lerobot()(directory) / "meta", "is a directory without data.json"),
    "an array in place of demonstrations": (_robomimic(_put("data", np.zeros(3))), "lacks the group data; it has data"),
    "an array in place of observations": (_robomimic(_put("data/demo_0/obs", np.zeros((4, 3)))), "lacks the group obs"),
    "simulator states only": (_robomimic(_states_only), "no observations; write them with robomimic's dataset_states_"),
    "a group within itself": (
        _robomimic(lambda file: file["data/demo_0/obs"].__setitem__("more", h5py.SoftLink("/data/demo_0/obs"))),
        "has groups nested more than 16 deep; remove links of groups to themselves",
    ),
    "actions without columns": (_robomimic(_no_width), "actions of .. have no column; give at least one number"),
    "flags of another shape": (
        _robomimic(_put("data/demo_1/dones", np.zeros((3, 2)))),
        "dones of demo_1 of .. has shape [3, 2]; give one number for each step",
    ),
    "a split of unknown demonstrations": (
        _robomimic(lambda file: file.__setitem__("mask/valid", np.array([b"demo_9"]))),
        "mask/valid of .. names 'demo_9', which is not in data",
    ),
    "an infinity in half precision": (
        _d4rl(_put("rewards", np.array([0.0] * 11 + [np.inf], np.float16))),
        "row 11 (episode 2): inf, which is not finite",
    ),
    "a list that names a demo twice": (
        _robomimic(lambda file: file.create_dataset("mask/valid", data=[b"demo_1", b"demo_1"])),
        "mask/valid of .. names 'demo_1' twice; name each demonstration once",
    ),
    "next observations that lack a step": (
        _robomimic(_put("data/demo_0/next_obs/object", np.zeros((3, 1), np.float32))),
        "next_obs/object of .. data/demo_0 has 3 rows for 4 steps; give the observation after each step",
    ),
    "two columns of one name": (_two_columns, "has two columns named 'u'; give each another name"),
    "no file": (lambda directory: directory / "a.hdf5", "There is no file"),
    "a text as HDF5": (lambda directory: _text(directory / "a.hdf5"), "cannot be read as HDF5"),
}


def _text(path):
    path.write_text("no data")
    return path


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(tmp_path, capsys, name):
    assert_refused(BAD[name], tmp_path, capsys)


def test_minari_sets_that_cannot_be_used_are_refused(tmp_path, capsys, monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    test_minari.record("pendulum/random-v0", episodes=2)
    file = tmp_path / "sets/pendulum/random-v0/data/main_data.hdf5"
    with h5py.File(file, "a") as content:
        content["episode_1/observations"].resize((5, 3))
    said = refusal(tmp_path / "sets/pendulum/random-v0", tmp_path / "out.npz", capsys)
    assert "has 5 observations for 5 steps in episode 1, without the state after the last one; record it" in said
    for key in ("actions", "rewards", "terminations", "truncations", "observations"):
        with h5py.File(file, "a") as content:
            content[f"episode_1/{key}"].resize(int(key == "observations"), axis=0)
    said = refusal(tmp_path / "sets/pendulum/random-v0", tmp_path / "out.npz", capsys)
    assert "has no step in episode 1; drop that episode" in said
    metadata = tmp_path / "sets/pendulum/random-v0/data/metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"total_episodes": 1}))
    said = refusal(tmp_path / "sets/pendulum/random-v0", tmp_path / "out.npz", capsys)
    assert "has 5 steps in its 1 episodes, but data/metadata.json says 10; fetch or record it again" in said
    file.write_bytes(b"no data")
    said = refusal(tmp_path / "sets/pendulum/random-v0", tmp_path / "out.npz", capsys)
    assert "cannot be read as a Minari data set (" in said and "fetch or record it again" in said

    class Discrete(gymnasium.ActionWrapper):
        action_space = gymnasium.spaces.Discrete(3)

        def action(self, action):
            return np.array([action - 1.0], np.float32)

    test_minari.record("pendulum/discrete-v0", [Discrete], episodes=1)
    said = refusal(tmp_path / "sets/pendulum/discrete-v0", tmp_path / "out.npz", capsys)
    assert "are Discrete(3), but policies act with vectors of real numbers; give data whose action space is" in said
