"""What a command says of input that it refuses."""

from sorl.convert import __main__ as command
from sorl.system import entry


def refusal(source, out, capsys):
    """What standard error says of a conversion that is refused; nothing is written."""
    before = sorted(out.parent.iterdir())
    config = command.Config(source, out, quiet=True)
    assert entry.guarded(lambda: command.main(config) and None) == 2
    assert sorted(out.parent.iterdir()) == before
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said
    return said


def assert_refused(case, directory, capsys):
    """The conversion of a bad input is refused with the words of its case.

    **Arguments:** `case`, a function that makes the input in a directory, and what is said, in parts between " .. ".
    """
    make, words = case
    said = refusal(make(directory), directory / "out.npz", capsys)
    for part in words.split(" .. "):
        assert part in said, said
