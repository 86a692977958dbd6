"""A replacement for OGBench in worker processes, whose environment hangs, dies, exits or fails when a file says so."""

SOURCE = """
import os, pathlib, signal, sys, time
import gymnasium
import numpy as np


FAULT = pathlib.Path(__file__).with_name("fault")


class Scripted(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, **settings):
        pass

    @property
    def action_space(self):
        return gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.array([seed % 100 / 50 - 1, 0.0]), {}

    def step(self, action):
        fault = FAULT.read_text() if FAULT.exists() else ""
        if fault == "hang":
            time.sleep(3600)
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "fail":
            raise OSError("the simulator is gone")
        if fault == "exit":
            sys.exit(4)
        success = float(action[0] > 0)
        return np.array([success, action[1]]), success, False, False, {"success": success}


gymnasium.register("ENV", Scripted, max_episode_steps=4)
"""


def install(directory, monkeypatch, gymnasium_id):
    """Makes workers that start after this use it. **Returns:** the file to which a test writes the fault."""
    (directory / "ogbench.py").write_text(SOURCE.replace("ENV", gymnasium_id))
    monkeypatch.syspath_prepend(directory)  # a pool hands its own path on to the workers
    return directory / "fault"
