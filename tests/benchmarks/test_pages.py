"""Tables of the pages are the figures in `benchmarks/results`, each rounded once."""

import json
from pathlib import Path


ROOT = Path(__file__).parents[2]


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def page(name):
    return (ROOT / "docs" / name).read_text()


def test_near_the_data():
    found = results("wasserstein.json")
    for slope in found["slopes"]:
        first, *_ = rows = [row for row in found["rows"] if row["law"] == slope["law"]]
        cells = [slope["law"], *(f"{row['w2']:.3f}" for row in rows)]
        cells += [f"{first[name]:.3f}" for name in ("discretisation", "fm_error", "sc_error")]
        (line,) = [line for line in page("studies/near-the-data.md").splitlines() if f"| {slope['law']} |" in line]
        assert line.startswith(f"| {' | '.join(cells)} | {first['lipschitz']:.1f} |")
        assert line.endswith(f"| {slope['slope']:.2f} |")


def test_own_logs():
    found = [row for row in results("own_logs.json")["rows"] if row.get("updates") in (None, 8_000)]
    setting = "sorl --agent.learning-rate 3e-4 --agent.q-coefficient 1"
    for kind in ("sparse", "positive", "noisy", "good", "few", "short"):
        rows = [row for row in found if row["kind"] == kind and row["setting"] in ("demonstrator", "bc", setting)]
        returns, reached = (
            [f"{row[name]:.{digits}f}" for row in rows] for name, digits in (("return", 1), ("reached", 2))
        )
        (line,) = [line for line in page("studies/own-logs.md").splitlines() if line.startswith(f"| `{kind}`: ")]
        assert line.endswith(f"| {' | '.join(returns)} | {', '.join(reached)} |")


def test_times_of_an_update():
    for row in results("runtime.json")["updates"]:
        if row["seeds"] == 8 and row["backprop_steps"] in (2, 4):
            continue  # the page leaves these out
        digits = 1 if row["seeds"] == 1 else 0
        times = [f"{row[name]:.{digits}f}" for name in ("milliseconds", "p10", "p90")]
        shown = f"| {row['backprop_steps']} | {row['seeds']} | {times[0]} ({times[1]}, {times[2]}) "
        shown += f"| {row['seed_updates_per_second']:.1f} | {row['gigaflops_per_update']:.1f} "
        shown += f"| {row['compile_seconds']:.1f} | {row['peak_megabytes']:.0f} | {row['fraction_of_roofline']:.2f} |"
        assert shown in page("studies/speed.md")


def test_the_released_manner():
    for row in results("released.json")["rows"]:
        digits = 1 if row["update_ms"] < 100 else 0
        speed = "1" if row["program"] == "released manner" else f"{row['speed']:.2f}"
        assert f" | {row['update_ms']:.{digits}f} | {speed} |" in page("studies/speed.md")


def test_one_jump():
    for row in results("ablate_one_jump.json")["rows"]:
        low, high = row["headline_low"], row["headline_high"]
        shown = f"{row['headline']:.2f} ({low:.2f} to {high:.2f})"
        lines = [line for line in page("agents/sorl-plus.md").splitlines() if shown in line]
        assert any(line.endswith(f"| {row['update_ms']:.1f} |") for line in lines)
