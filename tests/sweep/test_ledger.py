"""The state of a run, from its directory alone."""

import dataclasses
import json

import pytest

from sorl.runs.sweeps import SweepRun
from sorl.sweep import status, table
from sorl.sweep.ledger import state_of
from sorl.sweep.plan import write_plan
from sorl.system.locks import exclusive


RUN = SweepRun(
    "run", "bc", "cube", (0, 1), ("seed-0", "seed-1"), {"updates": "40"}, 40, True, "d" * 16, (), "the quickstart's."
)


def write(directory, *, policies, evaluated=(), bad=None, failed=None, code=None, log=""):
    """What `sorl.train` and an attempt leave in a run directory."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    for seed, step in policies.items():
        header = json.dumps({"provenance": {"step": step}})
        (directory / f"policy-seed-{seed}.sorl").write_text(f"sorl-policy 3 -\n{header}\nweights")
    rows = [{"training_seed": seed, "step": step} for seed, step in evaluated]
    for name, content in (
        ("evaluation.json", {"rows": rows} if rows else None),
        ("bad_seeds.json", bad),
        ("failed_evaluations.json", failed),
        ("attempt.json", None if code is None else {"exit_code": code, "peak_bytes": 1}),
    ):
        if content is not None:
            (directory / name).write_text(json.dumps(content))
    (directory / "log.txt").write_text(log)
    row = json.dumps({"step": 30, "updates_per_second": 5.0})
    (directory / "timings.jsonl").write_text(f'{row}\n{{"step": 40, "checkpoint_seconds": 1.0}}\n{{"step": 4')


DONE = {0: 40, 1: 40}
TABLE = ((0, 40), (1, 40))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"policies": DONE, "evaluated": TABLE, "code": 0}, "finished"),
        ({"policies": DONE, "evaluated": TABLE, "code": 137}, "finished"),  # an earlier attempt was killed
        ({"policies": DONE}, "stopped"),  # killed before its table
        ({"policies": DONE, "evaluated": ((0, 20), (1, 20))}, "stopped"),  # the table of fewer updates
        ({"policies": {0: 40, 1: 30}, "evaluated": TABLE}, "stopped"),
        ({"policies": {0: 40, 1: 30}, "evaluated": TABLE[:1], "bad": {"1": 35}}, "finished"),
        ({"policies": {0: 0, 1: 0}, "bad": {"0": 3, "1": 2}, "code": 1}, "finished"),
        ({"policies": DONE, "evaluated": TABLE, "failed": {"40": "it hung."}, "code": 1}, "failed"),
        ({"policies": {0: 10, 1: 10}, "code": 143}, "stopped"),
        ({"policies": {0: 10, 1: 10}, "code": 137}, "failed"),
        ({"policies": {0: 10, 1: 10}, "code": 2}, "failed"),
    ],
)
def test_a_run_is_finished_only_with_its_last_policies_and_table(tmp_path, found, kind):
    write(tmp_path / "run", **found)
    assert state_of(tmp_path / "run", RUN).kind == kind


def test_a_run_that_has_not_begun_is_missing_and_a_locked_one_is_running(tmp_path):
    assert state_of(tmp_path / "run", RUN).kind == "missing"
    write(tmp_path / "run", policies=DONE, evaluated=TABLE)
    with exclusive(tmp_path / "run" / ".lock"):
        state = state_of(tmp_path / "run", RUN)
    assert (state.kind, state.step, state.updates_per_second) == ("running", 40, 5.0)


def test_a_damaged_row_of_timings_is_left_out(tmp_path):
    write(tmp_path / "run", policies=DONE)
    with (tmp_path / "run" / "timings.jsonl").open("a") as file:
        file.write('{"step": 1e999}\n{"step": "60"}\n[]\n{"st')
    assert state_of(tmp_path / "run", RUN).step == 40


@pytest.mark.parametrize("content", ['{"rows": null}', '{"rows": [1]}', '{"rows": [{"training_seed": 0}]}', "{"])
def test_a_damaged_table_of_evaluations_is_refused(tmp_path, content):
    write(tmp_path / "run", policies=DONE)
    (tmp_path / "run" / "evaluation.json").write_text(content)
    with pytest.raises(ValueError, match=r"evaluation.json .*; remove it, and the command that trained the run writes"):
        state_of(tmp_path / "run", RUN)


@pytest.mark.parametrize("name", ["attempt.json", "bad_seeds.json", "failed_evaluations.json"])
def test_a_damaged_record_of_a_run_is_refused_with_what_to_do(tmp_path, name):
    write(tmp_path / "run", policies={0: 10, 1: 10})
    (tmp_path / "run" / name).write_text("{")
    with pytest.raises(ValueError, match=rf"{name} .*; remove it, and the sweep continues the run\.$"):
        state_of(tmp_path / "run", RUN)
    (tmp_path / "run" / name).unlink()
    assert state_of(tmp_path / "run", RUN).kind == "stopped"


def test_the_table_counts_lists_and_estimates(tmp_path, capsys):
    failed = SweepRun("failed", "fql", None, (0,), ("seed-0",), {}, 40, False, "d", (), "-")
    runs = [RUN, failed, SweepRun("none", "bc", None, (3,), ("seed-3",), {}, 100, False, "d", (), "-")]
    write(tmp_path / "run", policies={0: 10, 1: 10})
    write(tmp_path / "failed", policies={}, code=2, log="start\nerror: There is no file.\n\n")
    (tmp_path / "failed" / "timings.jsonl").unlink()
    with exclusive(tmp_path / "run" / ".lock"):
        states = table.read_states(tmp_path, runs)
    assert table.summary(runs, states) == (
        "0 of 3 runs finished, 1 running, 1 failed, 1 missing; 5 updates/s, 28 s left"  # 0 + 40 + 100 updates
    )
    assert table.lines(runs, states, ("running", "failed")) == [
        "  running   bc on cube, updates 40, seeds 0 1: update 40 of 40, 5/s",
        "  failed    fql on own logs, seed 0: update 0 of 40; error: There is no file.",
    ]
    write(tmp_path / "run", policies={0: 40, 1: 3}, evaluated=TABLE, bad={"1": 2})
    states = table.read_states(tmp_path, runs)
    assert table.flawed(runs, states) == [RUN]
    assert table.lines(runs, states, ("finished",))[0].endswith("; losses of seed 1 became non-finite")
    of_members = dataclasses.replace(RUN, policies=("member-0", "member-1"))
    assert state_of(tmp_path / "run", of_members).flaw == "losses of member 1 became non-finite"


@pytest.mark.parametrize(
    ("log", "end"),
    [("start\nresidence: host\n", "update 40 of 40"), ("start\nStopped at update 40.\n", "; Stopped at update 40.")],
)
def test_a_stopped_run_has_a_reason_only_if_it_gave_one(tmp_path, log, end):
    write(tmp_path / "run", policies={0: 10, 1: 10}, code=143, log=log)
    (line,) = table.lines([RUN], table.read_states(tmp_path, [RUN]), ("stopped",))
    assert line.endswith(end)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.0, "9 s"), (150.0, "2 min"), (7500.0, "2 h 5 min"), (169200.0, "47 h 0 min"), (180000.0, "2 d 2 h")],
)
def test_times_have_two_units(seconds, text):
    assert table.duration(seconds) == text


def test_status_reads_the_directory(tmp_path, capsys):
    from .test_grid import SMALL, expand

    (planned,) = expand(SMALL)
    write_plan(tmp_path, SMALL, [planned], extend=False)
    status.main(status.parse([str(tmp_path), "--all"]))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0 of 1 runs finished, 1 missing"
    assert said[1].startswith("  missing   bc on cube-single-play-singletask-task1-v0, seed 0: update 0 of 40000")
