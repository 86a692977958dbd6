"""`python -m sorl.export RUN`: a policy at one budget as a StableHLO program or an ONNX file, to run without sorl."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.export")

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sorl.config.own_agents import OwnAgents
from sorl.policy import Policy, exported, load_policy
from sorl.policy.stablehlo import save_exported
from sorl.system import command_line
from sorl.system.files import make_directory, refuse_other_file, refuse_overwriting, whole_file


@dataclasses.dataclass(frozen=True)
class Config:
    """Exports a policy at one budget, as a StableHLO program or as an ONNX file with a contract beside it.

    The program takes observations [batch, observation] in the environment's units, with any batch size, and standard
    normal noise, for most agents [batch, candidates, action] (the file records the shape). It returns actions
    [batch, action] in the environment's units, or [batch, chunk, action] if the policy gives action chunks.

    An ONNX file is compared with the policy in onnxruntime before it is written. Its contract, `policy.onnx.json`,
    describes the inputs and outputs, so that the file can be run without sorl and its documentation.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, a policy file, or the name of a pretrained policy."""
    out: Path | None = None
    """File to write; its directory is created if missing. Default: policy.stablehlo or policy.onnx."""
    format: Literal["stablehlo", "onnx"] = "stablehlo"
    """Format of the program; onnx needs sorl[onnx]."""
    steps: int | None = None
    """Number of inference steps M^inf; default: the policy's own budget."""
    candidates: int | None = None
    """Number of candidate actions N, from which the critic picks one; default: the policy's own budget."""
    noise_scale: float | None = None
    """Factor on the noise: 1 as trained, 0 for the deterministic path; default: the policy's own budget."""
    platforms: tuple[str, ...] = ("cpu", "cuda")
    """Platforms that a StableHLO program can run on: any of cpu, cuda, rocm and tpu."""
    seed: int | None = None
    """Training seed of the policy in a run directory, or member of a population; default: the lowest."""
    with_loader: bool = False
    """Also write the loader `exported.py` next to a StableHLO program; it needs only jax, flatbuffers and numpy."""
    names: Path | None = None
    """JSON file with names and units for an ONNX file's contract: any of the lists observations, observation_units,
    actions and action_units. Default: the names that the data had."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""


def main(config: Config) -> None:
    """Exports the policy and prints what was written."""
    _refuse_options_of_another_format(config)
    config.own_agents.load()
    out = Path(f"policy.{config.format}") if config.out is None else config.out
    make_directory(out.parent)  # fail before the work
    _refuse_other_files(out, config)
    policy = load_policy(config.run, config.seed)
    given = {"inference_steps": config.steps, "candidates": config.candidates, "noise_scale": config.noise_scale}
    budget = dataclasses.replace(policy.budget, **{name: x for name, x in given.items() if x is not None})
    policy = policy.with_budget(budget)
    if config.format == "onnx":
        return _export_onnx(policy, out, config.names)
    save_exported(policy, out, config.platforms)
    print(f"Wrote {out}: {budget.name}, for {', '.join(config.platforms)}")
    if config.with_loader:
        loader = out.parent / "exported.py"
        with whole_file(loader, "wb") as file:
            file.write(Path(exported.__file__).read_bytes())
        print(f"Wrote {loader}")


def _refuse_other_files(out: Path, config: Config) -> None:
    """Raises a `FileExistsError` if something that is written would replace what is no earlier export."""
    refuse_overwriting(out, [config.run])
    if config.format == "onnx":
        from sorl.policy.onnx.contract import FORMAT
        from sorl.policy.onnx.file import contract_path

        names = [] if config.names is None else [config.names]
        refuse_overwriting(out, names)
        refuse_overwriting(contract_path(out), names)
        refuse_other_file(contract_path(out), f'{{\n  "format": "{FORMAT}"'.encode())
        # An ONNX file has no beginning of its own: a contract beside it tells an earlier export.
        if out.is_dir() or not contract_path(out).exists():
            refuse_other_file(out, None)
        return
    refuse_other_file(out, f"{exported.FORMAT} ".encode())
    if config.with_loader:
        loader = Path(exported.__file__).read_bytes()
        refuse_other_file(out.parent / "exported.py", loader[: loader.index(b"\n")])
        if out.name == "exported.py":
            raise ValueError("--out exported.py is the name of the loader; give another name.")


def _refuse_options_of_another_format(config: Config) -> None:
    if config.format == "onnx" and (config.with_loader or config.platforms != ("cpu", "cuda")):
        raise ValueError("--with-loader and --platforms are for StableHLO; leave them out with --format onnx.")
    if config.format == "stablehlo" and config.out is not None and config.out.suffix == ".onnx":
        raise ValueError(f"--out {config.out} is the name of an ONNX file; add --format onnx, or give another name.")
    if config.format == "stablehlo" and config.names is not None:
        raise ValueError("--names is for the contract of an ONNX file; add --format onnx.")


def _export_onnx(policy: Policy, out: Path, names: Path | None) -> None:
    from sorl.policy.onnx.file import contract_path, save_onnx
    from sorl.policy.onnx.names import names_of

    comparisons = save_onnx(policy, out, names_of(policy, names))
    print("Largest difference to the policy, as a share of half the action's range, in onnxruntime on this CPU:")
    for batch, difference, ties in comparisons:
        left_out = f" (without {ties} whose best candidate changes when an observation is rounded)" if ties else ""
        print(f"  batch {batch:3d}: {difference:.2g}{left_out}")
    print(f"Wrote {out}: {policy.budget.name}\nWrote {contract_path(out)}: its contract")


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.export"))
