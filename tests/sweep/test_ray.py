"""A Ray cluster trains a sweep, also if a node dies; and what cannot be reached or had is refused."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sorl.sweep import run
from sorl.sweep.attempt import Attempt
from sorl.sweep.drive import drive
from sorl.sweep.grid import Grid, expand
from sorl.sweep.plan import write_plan

from .. import synthetic
from .test_drive import trainers


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError) as refused:
        run.parse(["--engine", "ray"]).where.make()
    assert run.entry.sentence(refused.value).endswith("pip install 'sorl[cluster]'.")  # pyright: ignore


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:0x1", "host:99999"])
def test_an_address_is_a_host_and_a_port(address):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="give HOST:PORT, as ray start --head prints it, or auto"):
        run.parse(["--engine", "ray", "--address", address]).where.make()


def test_an_address_at_which_nothing_listens_is_refused():
    pytest.importorskip("ray")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"There is no Ray cluster at {address} \\(connection refused\\); check"):
            run.parse(["--engine", "ray", "--address", address]).where.make()


def ancestors(process: int) -> Iterator[int]:
    """The parent of a process, its parent, and so on."""
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        yield process


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_runs_finish_though_a_node_dies(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from sorl.sweep.engines.ray import RayEngine

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    synthetic.write_logs(tmp_path / "logs.npz")
    sizes = "--agent.hidden-sizes 8 --batch-size 4 --log-interval 500 --checkpoint-interval 1000 --updates 2000"
    # Both runs have the same numbers, for the option that differs changes none.
    grid = Grid(("bc",), options=f"--data {tmp_path / 'logs.npz'} {sizes}", set=(("data.download", "True", "False"),))
    out = tmp_path / "sweep"
    runs = write_plan(out, grid, expand(grid), extend=False)
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "_system_config": health})

    def kill_a_node(nodes: list[Any]) -> None:
        """Kills the node on which a run trains, as soon as the run has a checkpoint."""
        while not (begun := list(out.glob("*/*/*/*/checkpoints/[0-9]*"))):
            time.sleep(0.02)
        (trainer,) = trainers(begun[0].parents[1])
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
        (raylet,) = raylets.keys() & set(ancestors(trainer))
        cluster.remove_node(raylets[raylet], allow_graceful=False)

    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        with pytest.raises(ValueError, match="--num-gpus is 1, and no node of the Ray cluster has more than 0 GPUs"):
            RayEngine(cluster.address, cpus=1.0, gpus=1.0)
        engine = RayEngine(cluster.address, cpus=1.0, gpus=0.0)
        # What fails before the training starts is told, and counts as failed, not as killed.
        (tmp_path / "a file").write_text("")
        engine.start(Attempt(str(tmp_path / "a file" / "run"), (), ("seed-0",), 1, False))
        while not (codes := engine.poll()):
            time.sleep(0.05)
        assert codes == {str(tmp_path / "a file" / "run"): 2}
        assert "error: A run could not be started on its node (" in capsys.readouterr().err
        threading.Thread(target=kill_a_node, args=(nodes,), daemon=True).start()
        assert drive(out, runs, engine, retries=3, workers=1)
    finally:
        cluster.shutdown()
    one, other = ((out / each.directory / "metrics.jsonl").read_bytes() for each in runs)
    assert one == other and one.count(b"\n") == 4
    logs = [(out / each.directory / "log.txt").read_text() for each in runs]
    assert sum("Stopped by SIGTERM at update " in log for log in logs) == 1
