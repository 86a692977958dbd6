"""A run continues from a checkpoint only where nothing that it depends on has changed, and refuses before it writes."""

import dataclasses
import json
import re
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from sorl import load_policy
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig, read_config
from sorl.convert.convert import convert
from sorl.data import load_logs
from sorl.data.sources import source_of
from sorl.runs import phases, run as runs
from sorl.runs.metrics import MetricLog, check_rows, read_metrics
from sorl.runs.versions import record_versions
from sorl.train.checkpoints import CheckpointError, Checkpoints
from sorl.train.loop import TrainState
from sorl.train.resuming import restore
from sorl.train.session import Session

from .. import recorded_files, synthetic
from ..bits import equal


def train(directory, data, config=None, **options):
    if config is None:
        config = read_config(directory / "config.json")
    return Session(config, directory, data, quiet=True, **options).run()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 20 updates, with checkpoints of updates 10 and 20, and its data."""
    place = tmp_path_factory.mktemp("trained")
    synthetic.write_logs(place / "logs.npz")
    data = load_logs(place / "logs.npz", validation_fraction=0.25)
    config = TrainConfig(
        env=None,
        agent=synthetic.agent(),
        data=DataConfig(path=place / "logs.npz", validation_fraction=0.25),
        evaluation=EvaluationConfig(interval=0),
        seeds=(0, 5),
        updates=20,
        batch_size=16,
        log_interval=5,
        checkpoint_interval=10,
    )
    runs.create(place / "run", config)
    train(place / "run", data, config)
    return place / "run", data


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run", trained[1]


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def results(directory: Path):
    """All that must be equal however a run came to its end."""
    leaves = [np.asarray(x) for seed in (0, 5) for x in jax.tree.leaves(load_policy(directory, seed).networks)]
    return (directory / "metrics.jsonl").read_bytes(), [(leaf.shape, leaf.tobytes()) for leaf in leaves]


def edit_json(path: Path, names: str, value) -> None:
    content = json.loads(path.read_text())
    *parents, last = names.split("/")
    inner = content
    for name in parents:
        inner = inner[name]
    inner[last] = value
    path.write_text(json.dumps(content))


def edit_rows(change):
    def edit(directory: Path) -> None:
        path = directory / "metrics.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return edit


def option(names: str, value):
    return lambda directory: edit_json(directory / "config.json", names, value)


def recorded(name: str, value):
    return lambda directory: edit_json(directory / "versions.json", name, value)


def recorded_later(directory: Path) -> None:
    """As a run of version 0.1.0 that was continued in double precision."""
    path = directory / "versions.json"
    versions = {name: x for name, x in json.loads(path.read_text()).items() if not name.startswith("jax_")}
    path.write_text(json.dumps(versions | {"resumed": [{"jax_enable_x64": True}]}))


EDITS = {
    "later double precision": (recorded_later, "was trained with jax_enable_x64 = True, and here it is False"),
    "learning rate": (option("agent/learning_rate", 0.25), r"agent\.learning_rate was \S+ and is 0\.25;"),
    "seeds": (option("seeds", [0, 6]), r"seeds was \[0, 5\] and is \[0, 6\];"),
    "batch size": (option("batch_size", 8), "batch_size was 16 and is 8;"),
    "task": (option("data/validation_fraction", 0.5), r"data\.validation_fraction was 0\.25 and is 0\.5;"),
    "fewer updates": (option("updates", 19), "updates was 20 and is 19;"),
    "missing row": (edit_rows(lambda rows: rows[:-1]), "has 7 rows up to update 20, but .* saved with 8: rows are mis"),
    "missing rows": (edit_rows(lambda rows: []), "has 0 rows up to update 20, but .* saved with 8: rows are missing"),
    "missing file": (lambda directory: (directory / "metrics.jsonl").unlink(), "has 0 rows up to update 20"),
    "doubled row": (edit_rows(lambda rows: rows + rows[-1:]), "has 9 rows up to update 20, but .* saved with 8"),
    "doubled early row": (edit_rows(lambda rows: rows[:1] + rows), "has 9 rows up to update 20, but .* saved with 8"),
    "edited row": (edit_rows(lambda rows: [rows[0].replace(": 0.", ": 1.", 1), *rows[1:]]), "up to update 20 differ"),
    "swapped rows": (edit_rows(lambda rows: [rows[1], rows[0], *rows[2:]]), "up to update 20 differ"),
    "damaged row": (edit_rows(lambda rows: ["{\n", *rows[1:]]), r"Line 1 of .*metrics\.jsonl is damaged"),
    "damaged timings": (
        lambda directory: (directory / "timings.jsonl").write_text("{\n"),
        r"Line 1 of .*timings\.jsonl is damaged",
    ),
    "damaged failures": (
        lambda directory: (directory / "failed_evaluations.json").write_text("[]"),
        r"failed_evaluations\.json holds a JSON list instead of an object; remove it",
    ),
    "double precision": (
        recorded("jax_enable_x64", True),
        "was trained with jax_enable_x64 = True, and here it is Fal",
    ),
    "generator": (recorded("jax_default_prng_impl", "rbg"), "jax_default_prng_impl = 'rbg', and here it is 'threefry2"),
    "partitionable": (recorded("jax_threefry_partitionable", False), "jax_threefry_partitionable = False, and here"),
    "precision": (recorded("jax_default_matmul_precision", "bfloat16"), "jax_default_matmul_precision = 'bfloat16'"),
    "empty versions": (lambda directory: (directory / "versions.json").write_text(""), r"versions\.json is empty"),
    "no phase": (recorded("phases", [{}]), r"versions\.json does not say what the data were"),
    "no phases": (recorded("phases", 3), r"versions\.json does not say what the data were"),
    "no session": (recorded("resumed", [3]), r"versions\.json does not say under which versions"),
    "no data": (recorded("data", None), r"versions\.json does not say what the data were"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_run_is_refused_in_one_sentence_before_anything_is_written(run, edit):
    directory, data = run
    change, sentence = EDITS[edit]
    change(directory)
    before = snapshot(directory)
    with pytest.raises(ValueError, match=sentence) as error:
        train(directory, data, resume=True)
    assert "\n" not in str(error.value)
    assert snapshot(directory) == before


def test_other_data_are_refused_and_moved_data_are_not(run, tmp_path):
    directory, data = run
    before = snapshot(directory)
    moved = tmp_path / "elsewhere.npz"
    shutil.copy(data.provenance["path"], moved)
    synthetic.write_logs(tmp_path / "other.npz", seed=2)
    other = load_logs(tmp_path / "other.npz", validation_fraction=0.25)
    with pytest.raises(
        ValueError, match=r"The training data .*other\.npz are not those .* with --data if they moved, o"
    ):
        train(directory, other, resume=True)
    assert snapshot(directory) == before
    config = read_config(directory / "config.json")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=moved))
    assert train(directory, load_logs(moved, validation_fraction=0.25), config, resume=True).step == 20
    assert read_config(directory / "config.json").data.path == moved


def test_more_updates_and_other_workers_are_no_change(run):
    directory, data = run
    option("updates", 21)(directory)
    option("evaluation/workers", 3)(directory)
    assert train(directory, data, resume=True).step == 21


def test_an_older_checkpoint_continues_to_the_same_end(run, trained):
    directory, data = run
    assert train(directory, data, resume=True, from_step=10).step == 20
    assert results(directory) == results(trained[0])
    with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [10, 20]
    assert not (directory / "checkpoints" / "replaced").exists()
    with pytest.raises(CheckpointError, match="There is no checkpoint of step 7 in .*; it holds step 10, 20"):
        train(directory, data, resume=True, from_step=7)


def test_a_damaged_last_checkpoint_names_the_one_before(run, trained):
    directory, data = run
    (directory / "checkpoints" / "20" / "description" / "metadata").write_text("")
    before = snapshot(directory)
    with pytest.raises(CheckpointError, match="checkpoint of step 20 .* is damaged .* --resume --from-step 10"):
        train(directory, data, resume=True)
    assert snapshot(directory) == before
    train(directory, data, resume=True, from_step=10)
    assert results(directory) == results(trained[0])


def test_a_kill_after_later_checkpoints_were_set_aside_loses_nothing(run, trained, monkeypatch):
    class Kill(Exception):
        pass

    directory, data = run

    def dies(*arguments, **options):
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr("sorl.train.session.MetricLog", dies)
        with pytest.raises(Kill):
            train(directory, data, resume=True, from_step=10)
    assert train(directory, data, resume=True).step == 20
    assert results(directory) == results(trained[0])


@pytest.mark.parametrize("step", ["set_aside_after", "reload"])
def test_a_kill_before_a_new_phase_from_an_older_checkpoint_loses_nothing(run, trained, tmp_path, monkeypatch, step):
    """Before and after the later checkpoints leave, the run is still on its first data."""

    class Kill(Exception):
        pass

    directory, data = run
    synthetic.write_logs(tmp_path / "more.npz", seed=2, scale=0.5)
    units = runs.normalisation(directory, read_config(directory / "config.json"), new_phase=True)
    more = load_logs(tmp_path / "more.npz", validation_fraction=0.25, normalisation=units)

    def dies(*arguments, **options):
        raise Kill

    with monkeypatch.context() as patch:
        if step == "set_aside_after":
            patch.setattr(Checkpoints, "set_aside_after", dies)
        else:
            patch.setattr("sorl.train.session.record_versions", dies)
        with pytest.raises(Kill):
            train(directory, more, resume=True, from_step=10, new_phase=True)
    assert train(directory, data, resume=True).step == 20
    assert results(directory) == results(trained[0])


def test_a_start_that_was_killed_before_its_versions_were_written_begins_anew(trained, tmp_path):
    directory = tmp_path / "killed"
    runs.create(directory, read_config(trained[0] / "config.json"))
    (directory / "checkpoints").mkdir()
    assert train(directory, trained[1], resume=True).step == 20
    assert results(directory) == results(trained[0])


def test_a_run_without_a_checkpoint_is_refused_other_data_before_anything_is_written(trained, tmp_path):
    directory, data = tmp_path / "killed", trained[1]
    config = read_config(trained[0] / "config.json")
    runs.create(directory, config)
    record_versions(directory, config, data.provenance)
    synthetic.write_logs(tmp_path / "other.npz", seed=2)
    other = load_logs(tmp_path / "other.npz", validation_fraction=0.25)
    before = snapshot(directory)
    with pytest.raises(ValueError, match=r"The training data .*other\.npz are not those"):
        train(directory, other, dataclasses.replace(config, updates=30), resume=True)
    assert snapshot(directory) == before


def _begun(directory: Path, data) -> None:
    path, evaluation = Path(data.provenance["path"]), EvaluationConfig(interval=0)
    config = TrainConfig(env=None, agent=synthetic.agent(), data=DataConfig(path=path), evaluation=evaluation)
    runs.create(directory, config)
    record_versions(directory, config, data.provenance)


def _continues(directory: Path, data, **options) -> None:
    template = object.__new__(TrainState)  # it is not looked at, because the run has no checkpoint
    assert restore(directory, read_config(directory / "config.json"), data.provenance, template, **options) is None


def test_the_columns_of_a_table_must_stay_those_that_its_mapping_named(tmp_path):
    path = recorded_files.write_table(tmp_path / "arm.csv", recorded_files.episodes())
    mapping = path.with_suffix(".toml")
    _begun(tmp_path / "run", source_of(path).load())
    moved = tmp_path / "moved"
    moved.mkdir()
    for found in (path, mapping):
        shutil.copy(found, moved)
    _continues(tmp_path / "run", source_of(moved / "arm.csv").load())
    # The record of an earlier version has no columns, and is not judged by them.
    loaded = source_of(path).load()
    old = {name: value for name, value in loaded.provenance.items() if name != "columns"}
    _begun(tmp_path / "old", dataclasses.replace(loaded, provenance=old))
    _continues(tmp_path / "old", loaded)
    mapping.write_text(mapping.read_text().replace('rewards = "r"', 'rewards = "t"'))
    with pytest.raises(ValueError, match=r"The columns of .*arm\.csv, or .* are not those .* up to update 0; restore"):
        _continues(tmp_path / "run", source_of(path).load())
    _continues(tmp_path / "run", source_of(path).load(), new_phase=True)


def test_converted_data_must_keep_the_record_of_the_episodes_that_they_hold_out(tmp_path):
    dones = [[0, 0, 0, 1], [0, 0, 1], [0, 0, 0, 0, 1]]
    mask = {"mask/valid": np.array([b"demo_1"])}
    path = recorded_files.write_robomimic(tmp_path / "lift.hdf5", recorded_files.episodes(), dones, mask)
    convert(source_of(path).recording(), tmp_path / "lift.npz", quiet=True)
    _begun(tmp_path / "run", load_logs(tmp_path / "lift.npz"))
    _continues(tmp_path / "run", load_logs(tmp_path / "lift.npz"))
    (tmp_path / "lift.npz.json").unlink()
    with pytest.raises(ValueError, match=r"the episodes that its record holds out, are not those .* restore .* record"):
        _continues(tmp_path / "run", load_logs(tmp_path / "lift.npz"))


@pytest.mark.parametrize(("key", "was", "now"), [("observation", "x", "y"), ("action", "u", "v")])
def test_a_new_phase_whose_columns_are_in_another_order_is_refused(tmp_path, key, was, now):
    path = recorded_files.write_table(tmp_path / "arm.csv", recorded_files.episodes())
    _begun(tmp_path / "run", source_of(path).load())
    swapped = path.with_suffix(".toml").read_text().replace(f'"{was}", "{now}"', f'"{now}", "{was}"')
    (tmp_path / "swapped.toml").write_text(swapped)
    other = source_of(path, columns=tmp_path / "swapped.toml").load()
    with pytest.raises(
        ValueError, match=f"arm.csv has {now} in column 0 of its {key}s, where the run .* has {was}; give"
    ):
        _continues(tmp_path / "run", other, new_phase=True)


def _as_version_0_1_0(directory: Path) -> None:
    for path in (directory / "checkpoints").glob("*/description/metadata"):
        description = json.loads(path.read_text())
        path.write_text(json.dumps({name: description[name] for name in ("format_version", "leaves")}))


@pytest.mark.filterwarnings("ignore:The checkpoint of update 20")
def test_a_run_of_version_0_1_0_is_refused_before_anything_is_written(run, tmp_path):
    directory, data = run
    _as_version_0_1_0(directory)
    synthetic.write_logs(tmp_path / "other.npz", seed=2)
    other = load_logs(tmp_path / "other.npz", validation_fraction=0.25)
    config = dataclasses.replace(read_config(directory / "config.json"), updates=30)
    before = snapshot(directory)
    with pytest.raises(ValueError, match=r"The training data .*other\.npz are not those"):
        train(directory, other, config, resume=True)
    assert snapshot(directory) == before
    edit_rows(lambda rows: ["{\n", *rows[1:]])(directory)
    before = snapshot(directory)
    with pytest.raises(ValueError, match=r"Line 1 of .*metrics\.jsonl is damaged"):
        train(directory, data, config, resume=True)
    assert snapshot(directory) == before


def test_a_run_of_version_0_1_0_continues_with_one_warning(run, trained):
    directory, data = run
    _as_version_0_1_0(directory)
    versions = json.loads((directory / "versions.json").read_text())
    old = {name: value for name, value in versions.items() if not name.startswith("jax_")}
    (directory / "versions.json").write_text(json.dumps(old))
    (directory / "bad_seeds.json").unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(directory, data, resume=True, from_step=10)
    assert [str(warning.message) for warning in caught if "sorl" in str(warning.message)] == [
        f"The checkpoint of update 10 in {directory} was written by sorl 0.1.0, which recorded neither options nor "
        "rows with it: they are not checked."
    ]
    assert results(directory) == results(trained[0])


def test_rows_of_an_evaluation_may_follow_a_checkpoint_but_not_twice(tmp_path):
    figures = {f"evaluation/{name}/M4N1": 1.0 for name in ("success", "return", "episode_length")}
    with MetricLog(tmp_path) as log:
        log.write(10, 0, {"training/q_loss": float("nan")})
        digest = log.digest()
        log.write(10, 0, figures)
        log.write(20, 0, {"training/q_loss": 0.25})
        later = log.digest()
    check_rows(tmp_path, 10, digest)
    check_rows(tmp_path, 20, later)
    with MetricLog(tmp_path, resume_step=20) as log:
        assert log.digest() == later and later["count"] == 3
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join([*lines, lines[1]]))
    with pytest.raises(ValueError, match="rows are missing or doubled"):
        check_rows(tmp_path, 10, digest)


def test_policies_carry_no_path_of_this_computer(run):
    directory, data = run
    assert json.loads((directory / "versions.json").read_text())["data"]["path"] == data.provenance["path"]
    provenance = load_policy(directory, 0).provenance
    assert provenance["versions"]["data"]["path"] == "logs.npz"
    assert provenance["versions"]["data"]["sha256"] == data.provenance["sha256"]
    assert str(Path(data.provenance["path"]).parent) not in json.dumps(provenance)


def test_a_new_phase_keeps_the_units_is_recorded_and_continues_bit_for_bit(trained, tmp_path):
    more = tmp_path / "more.npz"
    synthetic.write_logs(more, seed=2, scale=0.5)
    for name, stops in (("whole", (30,)), ("parts", (25, 30))):
        directory = tmp_path / name
        shutil.copytree(trained[0], directory)
        units = runs.normalisation(directory, read_config(directory / "config.json"), new_phase=True)
        data = load_logs(more, validation_fraction=0.25, normalisation=units)
        for updates in stops:
            config = read_config(directory / "config.json")
            options = dataclasses.replace(config.data, path=more)
            config = dataclasses.replace(config, data=options, updates=updates)
            train(directory, data, config, resume=True, new_phase=updates == stops[0])
    assert results(tmp_path / "whole") == results(tmp_path / "parts")
    found = phases.phases(tmp_path / "parts")
    assert [(phase["from_step"], Path(phase["data"]["path"]).name) for phase in found] == [
        (0, "logs.npz"),
        (20, "more.npz"),
    ]
    first, last = load_policy(trained[0], 0).normalisation, load_policy(tmp_path / "parts", 0).normalisation
    assert equal(first, last)
    # From where the phase began, only its data will do; from before, it is dropped and the first data will.
    with pytest.raises(ValueError, match="The training data .* are not those"):
        train(tmp_path / "whole", trained[1], resume=True, from_step=20)
    train(tmp_path / "whole", data, resume=True, from_step=20)
    assert results(tmp_path / "whole") == results(tmp_path / "parts")
    for directory, step in ((tmp_path / "whole", 10), (tmp_path / "parts", 0)):
        record_versions(directory, read_config(directory / "config.json"), trained[1].provenance, step=step)
        assert [phase["from_step"] for phase in phases.phases(directory)] == [0]


def test_a_new_phase_clips_actions_to_the_range_of_the_run_with_a_warning(trained, tmp_path):
    units = runs.normalisation(trained[0], read_config(trained[0] / "config.json"), new_phase=True)
    synthetic.write_logs(tmp_path / "wide.npz", seed=2, scale=2.0)
    with pytest.warns(UserWarning, match=r"wide\.npz leave the run's range in \d+ of \d+ rows and are clipped to it"):
        data = load_logs(tmp_path / "wide.npz", normalisation=units)
    assert float(np.abs(data.train.actions).max()) == np.float32(1 - 1e-5)
    assert data.normalisation is units


def test_rows_without_a_checkpoint_are_not_thrown_away(run):
    directory, data = run
    before = (directory / "metrics.jsonl").read_bytes()
    shutil.rmtree(directory / "checkpoints")
    with pytest.raises(CheckpointError, match="has rows of metrics but no checkpoint; restore its checkpoints"):
        train(directory, data, resume=True)
    assert (directory / "metrics.jsonl").read_bytes() == before


def test_metrics_of_a_refused_run_are_those_of_before(run):
    directory, data = run
    rows = read_metrics(directory)
    option("agent/discount", 0.5)(directory)
    with pytest.raises(
        ValueError, match=re.escape("restore them in its config.json, or start a new run with --config")
    ):
        train(directory, data, resume=True)
    assert read_metrics(directory) == rows
