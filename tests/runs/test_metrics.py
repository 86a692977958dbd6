"""Every row is written once and exactly, also if a run is killed and resumed; and the progress on the terminal."""

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sorl.runs.metrics import METRICS, MetricLog, read_metrics, read_timings
from sorl.system.progress import Progress
from sorl.train.sinks import TensorBoardSink, WandbSink


ROWS = [
    (0, 0, {"evaluation/success": 0.25}),
    (10, 0, {"training/q_loss": 1 / 3, "training/critic_loss": 1e-300}),
    (10, 1, {"training/q_loss": -0.1, "training/critic_loss": 2.0}),
    (20, 0, {"training/q_loss": 0.5, "validation/q_loss": 0.625}),
]


def write_all(log: MetricLog, rows: list[tuple[int, int, dict[str, float]]]) -> None:
    for step, seed, metrics in rows:
        log.write(step, seed, metrics)


def test_rows_are_json_one_per_line(tmp_path):
    with MetricLog(tmp_path / "run") as log:
        write_all(log, ROWS)
    log.close()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (
        '{"step": 0, "seed": 0, "evaluation/success": 0.25}\n'
        '{"step": 10, "seed": 0, "training/q_loss": 0.3333333333333333, "training/critic_loss": 1e-300}\n'
        '{"step": 10, "seed": 1, "training/q_loss": -0.1, "training/critic_loss": 2.0}\n'
        '{"step": 20, "seed": 0, "training/q_loss": 0.5, "validation/q_loss": 0.625}\n'
    )
    expected = [{"step": step, "seed": seed, **metrics} for step, seed, metrics in ROWS]
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "run" / "metrics.jsonl") == expected


def test_the_csv_holds_the_same_in_documented_order(tmp_path):
    with MetricLog(tmp_path, order=["critic_loss", "q_loss"]) as log:
        write_all(log, ROWS)
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,seed,training/critic_loss,training/q_loss,validation/q_loss,evaluation/success\n"
        "0,0,,,,0.25\n"
        "10,0,1e-300,0.3333333333333333,,\n"
        "10,1,2.0,-0.1,,\n"
        "20,0,,0.5,0.625,\n"
    )


def test_the_csv_is_up_to_date_after_every_sync(tmp_path):
    with MetricLog(tmp_path) as log:
        assert (tmp_path / "metrics.csv").read_text() == "step,seed\n"
        log.write(1, 0, {"training/q_loss": 2.0})
        log.sync()
        assert (tmp_path / "metrics.csv").read_text() == "step,seed,training/q_loss\n1,0,2.0\n"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5))
def test_every_number_comes_back_exactly(tmp_path_factory, values):
    directory = tmp_path_factory.mktemp("numbers")
    with MetricLog(directory) as log:
        for step, value in enumerate(values):
            log.write(step, 3, {"training/q_loss": value})

    def same(a: float, b: float) -> bool:
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))

    assert all(same(row["training/q_loss"], x) for row, x in zip(read_metrics(directory), values, strict=True))
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    with (directory / "metrics.csv").open(newline="") as file:
        assert all(same(float(row["training/q_loss"]), x) for row, x in zip(csv.DictReader(file), values, strict=True))


def test_arrays_of_one_number_are_numbers(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(1, 0, {"training/q_loss": np.float32(0.1), "training/q_mean": np.array(2)})
        assert log.has(1, 0, "training/q_loss")
    assert read_metrics(tmp_path) == [
        {"step": 1, "seed": 0, "training/q_loss": 0.10000000149011612, "training/q_mean": 2.0}
    ]


def test_names_without_a_phase_are_refused_and_columns_have_the_order_given(tmp_path):
    with MetricLog(tmp_path, order=["q_mean", "q_loss"]) as log:
        for name in ("q_loss", "testing/q_loss", "training/", "training/q loss", "training/a,b"):
            with pytest.raises(ValueError, match=f"The metric '{name}' cannot be logged; give it a name of letters"):
                log.write(0, 0, {"training/q_loss": 1.0, name: 1.0})
        with pytest.raises(ValueError, match="The figure hours is not documented"):
            log.write_timings(0, {"hours": 1.0})
        assert read_metrics(tmp_path) == []
        log.write(1, 0, {"training/mine": 1.0, "training/q_loss": 2.0})
    assert (tmp_path / "metrics.csv").read_text() == "step,seed,training/q_loss,training/mine\n1,0,2.0,1.0\n"
    assert all(text and not text.endswith(".") for text in METRICS.values())


def test_nothing_is_logged_twice(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(5, 0, {"training/q_loss": 1.0})
        log.write(5, 0, {"evaluation/success": 1.0})
        log.write(5, 1, {"training/q_loss": 1.0})
        assert log.has(5, 1, "training/q_loss") and not log.has(5, 1, "evaluation/success")
        with pytest.raises(ValueError, match="training/q_loss of step 5 and seed 0 is logged already"):
            log.write(5, 0, {"training/q_loss": 2.0})
    with MetricLog(tmp_path, resume_step=5) as log, pytest.raises(ValueError, match="is logged already"):
        log.write(5, 0, {"evaluation/success": 1.0})
    assert len(read_metrics(tmp_path)) == 3


def test_a_run_is_not_overwritten_in_silence(tmp_path):
    with MetricLog(tmp_path) as log:
        write_all(log, ROWS)
    with pytest.raises(FileExistsError, match=r"metrics.jsonl holds rows already; resume that run, or choose another"):
        MetricLog(tmp_path)
    assert len(read_metrics(tmp_path)) == 4


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400), resume_step=st.sampled_from([-1, 0, 5, 10, 20, 99]))
def test_a_resumed_run_has_the_rows_of_one_that_never_stopped(tmp_path_factory, cut, resume_step):
    """If a kill cuts the file anywhere after the checkpoint's rows, the resumed run ends with the same rows."""
    whole, resumed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("resumed")
    with MetricLog(whole) as log:
        write_all(log, ROWS)
    content = (whole / "metrics.jsonl").read_bytes()
    before = b"".join(line for line in content.splitlines(keepends=True) if json.loads(line)["step"] <= resume_step)
    (resumed / "metrics.jsonl").write_bytes(content[: max(len(before), cut)])
    with MetricLog(resumed, resume_step=resume_step) as log:
        assert (resumed / "metrics.jsonl").read_bytes() == before
        write_all(log, [row for row in ROWS if row[0] > resume_step])
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(os.listdir(resumed)) == ["metrics.csv", "metrics.jsonl", "timings.jsonl"]


def test_a_half_written_last_line_is_tolerated_only_at_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seed": 0}\n{"step": 2, "se')
    assert read_metrics(tmp_path) == [{"step": 1, "seed": 0}]
    wrong = (
        '"training/q_loss": "high"',
        '"training/q_loss": [1]',
        '"training/q_loss": null',
        '"training/q_loss": true',
    )
    rows = ['{"step": 2, "se', "[2]", '{"seed": 0}', '{"step": 2}', '{"step": 2.5, "seed": 0}', "[" * 100_000]
    rows += ['{"step": 2, "seed": "NaN"}', '{"step": "Infinity", "seed": 0}', '{"step": 1e999, "seed": 0}']
    rows += [f'{{"step": 2, "seed": 0, {one}}}' for one in wrong]
    for damaged in [f"{row}\n" for row in rows]:
        path.write_text('{"step": 1, "seed": 0}\n' + damaged + '{"step": 3, "seed": 0}\n')
        with pytest.raises(ValueError, match=r"Line 2 of .*metrics.jsonl is damaged"):
            MetricLog(tmp_path, resume_step=9)
        with pytest.raises(ValueError, match="Line 2 of"):
            read_metrics(path)
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "nowhere.jsonl")


def test_a_pipe_in_place_of_the_rows_is_one_sentence(tmp_path):
    for name, read in (("metrics", read_metrics), ("timings", read_timings)):
        os.mkfifo(tmp_path / f"{name}.jsonl")
        with pytest.raises(ValueError, match=rf"{name}\.jsonl is no file; restore it from a copy\.$"):
            read(tmp_path)


def test_rows_of_another_release_stay_in_the_csv(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seed": 0, "training/old": 1.0, "training/q_loss": 2.0}\n')
    MetricLog(tmp_path, resume_step=1, order=["q_loss"]).close()
    assert (tmp_path / "metrics.csv").read_text() == "step,seed,training/q_loss,training/old\n1,0,2.0,1.0\n"


def test_timings_have_their_own_file(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(10, 0, {"training/q_loss": 1.0})
        log.write_timings(10, {"updates_per_second": 105.5})
        log.write_timings(20, {"updates_per_second": 100.0})
    with MetricLog(tmp_path, resume_step=10) as log:
        log.write_timings(20, {"updates_per_second": 99.0})
    rows = read_timings(tmp_path)
    assert rows == [{"step": 10, "updates_per_second": 105.5}, {"step": 20, "updates_per_second": 99.0}]
    assert "second" not in (tmp_path / "metrics.jsonl").read_text()


_WRITE_UNTIL_KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from sorl.runs.metrics import MetricLog

    log = MetricLog(sys.argv[1], resume_step=int(sys.argv[2]))
    for step in range(int(sys.argv[2]) + 1, 100):
        log.write(step, 0, {"training/q_loss": step / 3})
        if step % 10 == 0:
            log.sync()
        if step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    log.close()
    """
)


@pytest.mark.parametrize("kill_at", [23, 30])
def test_rows_survive_a_kill(tmp_path, kill_at):
    def run(resume_step: int, kill_at: int) -> int:
        arguments = [str(tmp_path), str(resume_step), str(kill_at)]
        return subprocess.run([sys.executable, "-c", _WRITE_UNTIL_KILLED, *arguments]).returncode

    assert run(-1, kill_at) == -signal.SIGKILL
    assert run(kill_at // 10 * 10, 1000) == 0
    assert [(row["step"], row["training/q_loss"]) for row in read_metrics(tmp_path)] == [
        (step, step / 3) for step in range(100)
    ]


class Recorder:
    """Replaces an optional package, and records every call."""

    def __init__(self, calls: list[Any], name: str = ""):
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> "Recorder":
        return Recorder(self._calls, f"{self._name}.{name}".lstrip("."))

    def __call__(self, *args: Any, **kwargs: Any) -> "Recorder":
        self._calls.append((self._name, args, kwargs))
        return Recorder(self._calls, "writer" if self._name == "SummaryWriter" else "run")


def stand_in(monkeypatch: pytest.MonkeyPatch, package: str) -> list[Any]:
    calls: list[Any] = []
    module: Any = ModuleType(package)
    module.__getattr__ = Recorder(calls).__getattr__
    monkeypatch.setitem(sys.modules, package, module)
    return calls


def test_rows_are_copied_to_tensorboard(tmp_path, monkeypatch):
    calls = stand_in(monkeypatch, "tensorboardX")
    with MetricLog(tmp_path, resume_step=5, sinks=[TensorBoardSink(tmp_path / "board", resume_step=5)]) as log:
        log.write(6, 0, {"training/q_loss": 1.5})
        log.write(6, 2, {"training/q_loss": 2.5})
        log.write(7, 0, {"training/q_loss": 3.5})
    assert calls == [
        ("SummaryWriter", (str(tmp_path / "board" / "seed_0"),), {"purge_step": 6, "flush_secs": 1}),
        ("writer.add_scalar", ("training/q_loss", 1.5, 6), {}),
        ("SummaryWriter", (str(tmp_path / "board" / "seed_2"),), {"purge_step": 6, "flush_secs": 1}),
        ("writer.add_scalar", ("training/q_loss", 2.5, 6), {}),
        ("writer.add_scalar", ("training/q_loss", 3.5, 7), {}),
        ("writer.close", (), {}),
        ("writer.close", (), {}),
    ]


def test_rows_are_copied_to_wandb_under_one_id(tmp_path, monkeypatch):
    calls = stand_in(monkeypatch, "wandb")
    for resume_step in (None, 6):
        sink = WandbSink(tmp_path / "wandb", config={"batch_size": 256})
        with MetricLog(tmp_path, resume_step=resume_step, sinks=[sink]) as log:
            log.write(6 if resume_step is None else 7, 1, {"training/q_loss": 1.5})
    names = [name for name, _, _ in calls]
    assert names == ["init", "run.define_metric", "run.log", "run.finish"] * 2
    first, second = (kwargs for name, _, kwargs in calls if name == "init")
    assert first == second and len(first["id"]) == 16
    assert (first["project"], first["resume"], first["config"]) == ("sorl", "allow", {"batch_size": 256})
    assert [args for name, args, _ in calls if name == "run.log"] == [
        ({"step": 6, "seed_1/training/q_loss": 1.5},),
        ({"step": 7, "seed_1/training/q_loss": 1.5},),
    ]


def test_wandb_that_cannot_start_is_one_sentence(tmp_path, monkeypatch):
    def init(**settings):
        raise UsageError("No API key configured.\nUse `wandb login` to log in.")

    class UsageError(Exception):
        pass

    package: Any = ModuleType("wandb")
    package.Error, package.init = UsageError, init
    monkeypatch.setitem(sys.modules, "wandb", package)
    with pytest.raises(RuntimeError, match=r"cannot start \(No API key configured\); run `wandb login`"):
        WandbSink(tmp_path / "wandb")


@pytest.mark.parametrize(
    "sink, package, extra", [(TensorBoardSink, "tensorboardX", "tensorboard"), (WandbSink, "wandb", "wandb")]
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, sink, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'needs {package}, .* pip install "sorl\[{extra}\]"'):
        sink(tmp_path)


def test_logs_and_progress_are_light(tmp_path):
    """Worker processes import these modules, so they must import neither jax nor an optional package."""
    script = (
        "import sys; import sorl.runs.metrics, sorl.system.progress; print(*{n.split('.')[0] for n in sys.modules})"
    )
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "sorl" in imported
    assert not {"jax", "equinox", "orbax", "wandb", "tensorboardX", "torch", "matplotlib"} & set(imported)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that advances only when a test sets it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_a_line_now_and_then(capsys):
    clock = Clock()
    with Progress(1000, 100, clock=clock) as progress:
        progress.show({"q_loss": -0.98765, "success": 0.75})
        for _ in range(5):
            clock.now += 10
            progress.advance(60)
            progress.show({"q_loss": -0.5})
    assert capsys.readouterr().err.splitlines() == [
        "280/1000 updates, 6/s, 02:00 left, q_loss -0.5, success 0.75",
        "400/1000 updates, 6/s, 01:40 left, q_loss -0.5, success 0.75",
    ]


def test_there_is_no_estimate_from_the_steps_that_compiled(capsys):
    clock = Clock()
    with Progress(1000, clock=clock) as progress:
        clock.now += 100
        progress.advance(1)
        clock.now += 40
        progress.advance(400)
    assert capsys.readouterr().err == "401/1000 updates, 10/s, 00:59 left\n"


def test_the_end_has_its_line(capsys):
    clock = Clock()
    with Progress(1000, unit="episodes", clock=clock) as progress:
        clock.now += 20
        progress.advance(400)
        clock.now += 30
        progress.advance(600)
    progress.close()
    Progress(10, 10).close()
    assert capsys.readouterr() == ("", "1000/1000 episodes, 20/s\n")


def test_an_unknown_total_is_not_shown(capsys):
    clock = Clock()
    with Progress(None, unit="steps", clock=clock) as progress:
        progress.advance(40)
        clock.now += 40
        progress.advance(400)
    assert capsys.readouterr().err == "440 steps, 10/s\n"


def test_quiet_shows_messages_only(monkeypatch):
    for terminal in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", terminal)
        clock = Clock()
        with Progress(10, quiet=True, clock=clock) as progress:
            clock.now += 1000
            progress.advance(5)
            progress.show({"q_loss": 1.0})
            progress.message("Stopped at step 5.")
        assert terminal.getvalue() == "Stopped at step 5.\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(10, 4) as progress:
        progress.advance(2)
        progress.show({"success": 0.75})
        first = terminal.getvalue().split("\r")[-1]
        # The time of the first steps includes compilation, and so does not count.
        assert "6/10" in first and "/s" not in first and "<" not in first
        progress.advance(4)
        progress.show({"q_loss": -0.98765, "success": 0.75})
        progress.message("A checkpoint is damaged.")
    last = terminal.getvalue().split("\r")[-1]
    assert "100%" in last and "10/10" in last and "updates/s" in last and "success 0.75, q_loss -0.988" in last
    assert "A checkpoint is damaged.\n" in terminal.getvalue()


def test_replacing_a_file_is_all_or_nothing(tmp_path, monkeypatch):
    with MetricLog(tmp_path) as log:
        log.write(1, 0, {"training/q_loss": 1.0})
        log.sync()
        before = (tmp_path / "metrics.csv").read_text()
        log.write(2, 0, {"training/q_loss": 2.0})

        def fail(*args: Any) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            log.sync()
        assert (tmp_path / "metrics.csv").read_text() == before
        monkeypatch.undo()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
