"""Trains on one and on four devices of this process, and prints what is equal; run by `test_devices`."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any


os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import jax  # noqa: E402
import numpy as np  # noqa: E402

from sorl import load_policy  # noqa: E402
from sorl.agents import Iql  # noqa: E402
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig  # noqa: E402
from sorl.config.population import Varied  # noqa: E402
from sorl.data import load_logs  # noqa: E402
from sorl.runs import run as runs  # noqa: E402
from sorl.train.devices import DeviceOptions, make_mesh  # noqa: E402
from sorl.train.session import Session  # noqa: E402
from sorl.train.trainer import Trainer, initial  # noqa: E402
from tests import synthetic  # noqa: E402
from tests.bits import arrays, equal  # noqa: E402


def config(**fields: Any) -> TrainConfig:
    """Four members; rows and checkpoints every ten updates."""
    lengths: dict[str, Any] = {"updates": 20, "batch_size": 8, "log_interval": 10, "checkpoint_interval": 10}
    return TrainConfig(
        env=None,
        agent=synthetic.tiny(Iql),
        data=DataConfig(path=Path("logs.npz")),
        evaluation=EvaluationConfig(interval=0),
        seeds=(0, 5),
        population=(Varied("agent.expectile", (0.6, 0.9)),),
        **(lengths | fields),
    )


def train(directory: Path, data, options: DeviceOptions | None, *, resume: bool = False, **fields) -> list[np.ndarray]:
    """Trains and **returns** the arrays of all policies."""
    made = config(**fields)
    if not resume:
        runs.create(directory, made)
    mesh = None if options is None else make_mesh(options, made)
    Session(made, directory, data, resume=resume, quiet=True, mesh=mesh).run()
    networks = [load_policy(runs.policy_file(directory, made, number)).networks for number in made.members]
    return arrays(networks)


def main(place: Path) -> None:
    synthetic.write_logs(place / "logs.npz")
    data = load_logs(place / "logs.npz", validation_fraction=0.25)
    four = DeviceOptions(devices="4")
    one = train(place / "one", data, None)
    found = {"devices": jax.device_count(), "four": equal(one, train(place / "four", data, four))}
    rows = {name: (place / name / "metrics.jsonl").read_bytes() for name in ("one", "four")}
    found["rows"] = rows["one"] == rows["four"]
    # Members on four devices need nothing of each other.
    made = config()
    trainer = Trainer(made, data.train, make_mesh(four, made))
    program = str(trainer.lowered(trainer.place(initial(made, data.train))).compile().as_text())
    found["collectives"] = re.findall(r"all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter", program)
    # A run that changes its devices at update 10, and back.
    for name, first, second in (("apart", four, None), ("together", None, four)):
        train(place / name, data, first, updates=10)
        found[name] = equal(one, train(place / name, data, second, resume=True))
    # Two members on two devices each, which share a batch.
    batch = train(place / "batch", data, DeviceOptions(mesh=("seed=2", "batch=2")))
    found["batch"] = max(float(np.max(np.abs(a - b), initial=0)) for a, b in zip(one, batch, strict=True))
    for name, options, fields in (
        ("seeds", DeviceOptions(devices="3"), {}),
        ("rows of a batch", DeviceOptions(mesh=("seed=1", "batch=4")), {"batch_size": 10}),
        ("too many", DeviceOptions(devices="5"), {}),
        ("platform", DeviceOptions(devices="gpu:2"), {}),
        ("product", DeviceOptions(devices="4", mesh=("seed=2", "batch=1")), {}),
    ):
        try:
            make_mesh(options, config(**fields))
        except ValueError as error:
            found[name] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
