"""A file is whole under its name, or the old one stays."""

import json

import pytest

from sorl.files import whole_file, write_json


@pytest.mark.parametrize("mode, old, new", [("w", "old\n", "new\n"), ("wb", b"old", b"new")])
def test_replaces_only_when_whole(tmp_path, mode, old, new):
    path = tmp_path / "file"
    read = path.read_bytes if "b" in mode else path.read_text
    with whole_file(path, mode) as file:
        file.write(old)
        assert not path.exists()
    with pytest.raises(RuntimeError, match="half way"), whole_file(path, mode) as file:
        file.write(new)
        raise RuntimeError("half way")
    assert read() == old
    with whole_file(path, mode) as file:
        file.write(new)
    assert read() == new
    assert list(tmp_path.iterdir()) == [path]


def test_json(tmp_path):
    write_json(tmp_path / "file.json", {"a": [1, None]})
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": [1, None]}
