"""The benchmark runs and counts what it says; its times decide nothing."""

import importlib.util
import json
from pathlib import Path


def test_rows_and_file(tmp_path, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "runtime.py"
    specification = importlib.util.spec_from_file_location("runtime", path)
    assert specification is not None and specification.loader is not None
    runtime = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(runtime)
    out = tmp_path / "runtime.json"
    config = runtime.Config(
        backprop_steps=(1, 2),
        seeds=(2,),
        width=8,
        layers=1,
        rows=50,
        batch_size=4,
        chunks=2,
        chunk_seconds=0.01,
        out=out,
    )
    rows = runtime.main(config)
    assert [(row["backprop_steps"], row["seeds"]) for row in rows] == [(1, 2), (2, 2)]
    assert all(row["p10"] <= row["milliseconds"] <= row["p90"] for row in rows)
    assert json.loads(out.read_text())["rows"] == rows
    assert "ms/update" in capsys.readouterr().out
