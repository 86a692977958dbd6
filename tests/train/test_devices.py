"""Many devices and several processes give the numbers of one device, and a run may change its devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from sorl import load_policy
from sorl.agents import Bc
from sorl.system import entry
from sorl.train import __main__ as train
from sorl.train.cli import parse
from sorl.train.devices import DeviceOptions
from sorl.train.hosts import together

from .. import synthetic


ROOT = Path(__file__).parents[2]


def _environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}


def test_four_devices_equal_one_and_a_run_changes_them(tmp_path):
    command = [sys.executable, "-m", "tests.train.four_devices", str(tmp_path)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    assert found["four"] and found["rows"] and found["apart"] and found["together"]
    assert found["collectives"] == []
    assert found["batch"] < 1e-6
    divided = "cannot be divided among"
    for name, sentence in {
        "seeds": f"4 members {divided} 3 devices of the axis seed; give a number of devices that divides 4.",
        "rows of a batch": f"10 rows of a batch {divided} 4 devices of the axis batch; give a number of devices that "
        "divides 10.",
        "too many": "5 devices are asked for, but JAX found 4 cpu; give from 1 to 4.",
        "platform": "devices is gpu:2, but JAX found no gpu here, only 4 cpu; install sorl[cuda] or sorl[tpu], or "
        "leave --devices out.",
        "product": "mesh is 'seed=2 batch=1' but devices is 4; give as many devices as the axes have together, or "
        "leave --devices out.",
    }.items():
        assert found[name] == sentence


def test_two_processes_that_resume_equal_one_process(tmp_path, monkeypatch):
    synthetic.write_logs(tmp_path / "logs.npz")
    other = tmp_path / "other"  # the second process has neither the data nor the run
    other.mkdir()
    sizes = "--batch-size 8 --log-interval 10 --checkpoint-interval 10 --seeds 0 5"
    options = ["agent:bc", *synthetic.tiny_options(Bc), "--data", "logs.npz", *sizes.split()]
    common = ["--quiet", "--no-compilation-cache"]

    def start(place: Path, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sorl.train", *common, "--run-dir", "two", *words]
        return subprocess.Popen(
            command, env=_environment(), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def train_on_two(*words: str) -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        first = start(tmp_path, *words, "--distributed", f"{address},2,0")
        second = start(other, *words, "--distributed", f"{address},2,1")
        said = [process.communicate(timeout=500)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], "\n".join(said)
        return said

    said = train_on_two(*options, "--updates", "10")
    assert "Run directory" in said[0] and "Run directory" not in said[1]
    train_on_two("--resume", "--updates", "20")
    assert not list(other.iterdir())
    monkeypatch.chdir(tmp_path)
    assert train.main([*options, *common, "--updates", "20", "--run-dir", "alone"]) == 0
    assert (tmp_path / "alone" / "metrics.jsonl").read_bytes() == (tmp_path / "two" / "metrics.jsonl").read_bytes()
    for seed in (0, 5):
        assert load_policy(tmp_path / "two", seed).digest == load_policy(tmp_path / "alone", seed).digest


def test_a_process_that_died_is_one_sentence():
    said = r"could not continue \(UNKNOWN: Gloo failed: Connection reset by peer\), probably because one of them"
    with pytest.raises(RuntimeError, match=said) as found, together():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo failed:\n Connection reset by peer")
    assert entry.sentence(found.value) == str(found.value)


@pytest.mark.parametrize(
    "words, refusal",
    [
        (
            ["--mesh", "seed=2", "rows=4"],
            "mesh is 'seed=2 rows=4'; give each of seed and batch once, as in",
        ),
        (["--mesh", "seed=0"], "mesh is 'seed=0'; give each of seed and batch once"),
        (["--devices", "4-5"], "devices is '4-5'; give a number, all, a platform such as gpu, or gpu:4"),
        (["--distributed", "10.0.0.1,2,0"], "distributed is '10.0.0.1,2,0'; give auto, or the first process's address"),
        (["--distributed", "10.0.0.1:80,2,2"], "this one's number from 0, as in 10.0.0.1:1234,2,0"),
    ],
)
def test_what_names_no_devices_is_one_sentence(words, refusal):
    with pytest.raises(ValueError, match=refusal):
        parse(words)


def test_the_command_line_has_the_devices():
    _, options, _ = parse("--mesh seed=2 batch=4 --devices 8 --seeds 0 1".split())
    assert options.hardware == DeviceOptions(devices="8", mesh=("seed=2", "batch=4"))
