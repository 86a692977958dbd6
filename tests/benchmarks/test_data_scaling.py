"""Success against data: the sweep that it describes, and its table of finished runs."""

import data_scaling
import pytest

from sorl.sweep import __main__ as sweep
from sorl.sweep.grid import expand

from .test_compare import TASK, TINY, make_run


def _config(out, **changes):
    return data_scaling.Config(**{"episodes": (10, 30), "seeds": (0, 1), "options": TINY, "out": out} | changes)


class _Member:
    """A planned run as `make_run` takes it."""

    def __init__(self, out, planned):
        self.config, self.directory, self.seed = planned.config, out / planned.run.directory, planned.run.seeds[0]


def test_the_printed_command_is_the_same_sweep(tmp_path):
    config = _config(tmp_path)
    parsed = sweep.parse(config.words)
    assert (parsed.grid, parsed.out, parsed.extend) == (config.grid, tmp_path, True)
    found = [(planned.config.data.episodes, planned.run.seeds) for planned in expand(config.grid)]
    assert found == [(10, (0,)), (30, (0,)), (10, (1,)), (30, (1,))]
    assert data_scaling.Config().env == TASK


def test_the_table_has_a_row_for_each_number_of_episodes(tmp_path, capsys):
    config = _config(tmp_path)
    success = {10: (0.9, 0.1, 0.2, 0.3), 30: (0.0, 0.5, 0.6, 0.7)}
    for planned in expand(config.grid):
        assert planned.config.data.episodes is not None
        # The second seed is 0.1 better.
        rates = [rate + 0.1 * planned.run.seeds[0] for rate in success[planned.config.data.episodes]]
        make_run(_Member(tmp_path, planned), rates)
    rows, complete = data_scaling.main(config)
    assert complete and [(row["agent"], row["episodes"], row["seeds"]) for row in rows] == [
        ("sorl", 10, 2),
        ("sorl", 30, 2),
    ]
    assert [row["success"] for row in rows] == pytest.approx([0.25, 0.65])
    # Two seeds that differ by 0.1: a standard error of 0.05, and 12.7 of them.
    assert (rows[0]["success_low"], rows[0]["success_high"]) == pytest.approx((0.0, 0.25 + 12.706 * 0.05), abs=1e-4)
    table = (tmp_path / "data_scaling.md").read_text()
    assert "| `sorl` | 30 | 2 | 0.65 | 0.01 .. 1.00 |\n" in table
    said = capsys.readouterr().out
    assert table in said and "--set data.episodes 10 30\n" in said
    assert (tmp_path / "data_scaling.json").exists()


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match=r"episodes are \(10, 0\); give one or more, each at least 1"):
        data_scaling.Config(episodes=(10, 0))
