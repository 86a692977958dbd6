"""The documentation's example agent through the commands: nothing of the package knows it until it is registered."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sorl import load_policy
from sorl.agents.registry import UnknownAgent
from sorl.export import Config as ExportConfig, main as export
from sorl.report.__main__ import Config as ReportConfig, main as report
from sorl.train import __main__ as train

from .. import own_agent, synthetic


pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "docs/examples/mean_flow.py"


def test_the_example_trains_resumes_and_acts_in_another_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, "mean_flow.py")
    synthetic.write_logs("logs.npz")
    module, quiet = ["--agent-module", "mean_flow.py"], ["--quiet", "--no-compilation-cache"]
    start = [*module, "agent:mean-flow", "--data", "logs.npz", "--seeds", "0", "1", "--agent.hidden-sizes", "8"]
    start += ["--batch-size", "8", "--log-interval", "4", *quiet]
    with own_agent.forgotten_afterwards():
        assert train.main([*start, "--run-dir", "whole", "--updates", "8"]) == 0
        assert "python -m sorl.export whole --agent-module mean_flow.py" in capsys.readouterr().out
        assert train.main([*start, "--run-dir", "parts", "--updates", "4"]) == 0
        assert train.main(["--run-dir", "parts", "--resume", "--updates", "8", *module, *quiet]) == 0
        export(ExportConfig(Path("whole"), platforms=("cpu",)))
        report(ReportConfig((Path("whole"),)))
        actions = load_policy("whole")(np.full((2, 3), 50.0), key=jax.random.key(0))
    assert Path("whole/metrics.jsonl").read_bytes() == Path("parts/metrics.jsonl").read_bytes()
    assert "mean_flow.py" not in Path("whole/config.json").read_text()
    # Forgotten, it is refused; another process that imports the module acts the same.
    with pytest.raises(UnknownAgent, match="--agent-module"):
        load_policy("whole")
    assert train.main(["--run-dir", "whole", "--resume", *quiet]) == 2
    assert "names the agent 'MeanFlow', which is not registered" in capsys.readouterr().err
    code = (
        "import jax, json, mean_flow, numpy, sorl; "
        "print(json.dumps(sorl.load_policy('whole')(numpy.full((2, 3), 50.0), key=jax.random.key(0)).tolist()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(found.stdout), actions, rtol=1e-6)
