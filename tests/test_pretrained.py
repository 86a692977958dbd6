"""Pretrained policies: the one that comes with the package acts, others are fetched whole or not at all."""

import hashlib
import http.server
import json
import os
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import sorl
from sorl import Budget, Normalisation, Policy
from sorl.policy.planning import score_budget
from sorl.pretrained import __main__ as command, addresses, index as indices, store
from sorl.statistics.intervals import wilson_interval

from . import synthetic
from .random_networks import make_policy


OWN = "cube-single-quickstart"
EXPECTED = [-0.107024, 0.018207, 0.125013, -0.310606, 0.138816]
"""Actions of the published policy for zeros, at four steps with the key 0."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (store.ADDRESS, "HF_ENDPOINT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "sorl" / "pretrained"


# The policy of the package


def test_the_packages_policy_acts_without_training_or_network(monkeypatch):
    monkeypatch.setattr(addresses, "pieces", lambda address: pytest.fail(f"{address} was read"))
    policy = sorl.load_policy(OWN)
    assert (policy.observation_size, policy.action_size) == (28, 5)
    # Made by this policy when it was published; single precision may round otherwise elsewhere.
    actions = policy(np.zeros(28), key=jax.random.key(0), steps=4)
    np.testing.assert_allclose(actions, EXPECTED, atol=1e-4)


def test_its_entry_is_that_of_its_file_and_small():
    entry = store.own_index()[OWN]
    content = (store.PACKAGE / entry.file).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)
    assert entry.bytes < 1_500_000
    policy = sorl.load_policy(OWN)
    assert [dict(row) for row in entry.scores] == policy.scores
    assert entry.about["command"] == "python -m sorl.train" and entry.about["env"] == policy.provenance["env"]


def test_its_scores_are_counts_with_wilsons_intervals():
    scores = store.own_index()[OWN].scores
    assert Budget(4) in [score_budget(row) for row in scores]
    for row in scores:
        assert row["success"] == row["successes"] / row["episodes"] and row["success_timing"] == "pre"
        np.testing.assert_allclose(
            (row["success_low"], row["success_high"]), wilson_interval(row["successes"], row["episodes"])
        )
    assert scores[0]["difference"] == 0.0


# A directory, a server, and the hub's layout


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A directory with a policy `tiny` and its index."""
    directory = tmp_path_factory.mktemp("published")
    agent = synthetic.agent()
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0), Normalisation.identity(3, 2))
    (directory / "more").mkdir()
    policy.save(directory / "more" / "tiny.sorl")
    write_index(directory, {})
    return directory


def write_index(directory: Path, changes: dict[str, Any], name: str = "tiny") -> None:
    content = (directory / "more" / "tiny.sorl").read_bytes()
    entry = {
        "file": "more/tiny.sorl",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "scores": [{"inference_steps": 4, "candidates": 1, "return": -3.0, "return_low": -4.0, "return_high": -2.0}],
    }
    found = {"format": "sorl-pretrained", "format_version": 1, "policies": {name: entry | changes}}
    (directory / "index.json").write_text(json.dumps(found))


class Server(http.server.ThreadingHTTPServer):
    """Serves a directory; `requests` are the paths asked for, `cut` is what is left out of the end of a policy.

    With `is_chunked`, policies have no length, and their last byte and the end of the chunks are missing.
    """

    def __init__(self, directory: Path, prefix: str = ""):
        self.directory, self.prefix, self.cut, self.requests = directory, prefix, 0, list[str]()
        self.is_chunked = False
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, server = urllib.parse.unquote(self.path), self.server
        assert isinstance(server, Server)
        server.requests.append(path)
        file = server.directory / path.removeprefix(server.prefix).lstrip("/")
        if not path.startswith(server.prefix) or not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        self.send_response(200)
        if server.is_chunked and file.suffix == ".sorl":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b" % (len(content), content[:-1]))
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - (server.cut if file.suffix == ".sorl" else 0)])

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def serve():
    """A function that serves a directory in a thread until the test ends."""
    servers: list[Server] = []

    def start(directory: Path, prefix: str = "") -> Server:
        servers.append(Server(directory, prefix))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_policy_is_fetched_once_and_loads_by_its_name(published, serve, cache, capsys):
    server = serve(published)
    command.main(command.Config(("tiny",), f"{server.address}/index.json"))
    assert str(cache / "tiny.sorl") in capsys.readouterr().out
    assert (cache / "tiny.sorl").read_bytes() == (published / "more" / "tiny.sorl").read_bytes()
    assert server.requests == ["/index.json", "/more/tiny.sorl"]
    command.main(command.Config(("tiny",), server.address))  # the directory of the index
    assert server.requests[2:] == ["/index.json"]
    assert sorl.load_policy("tiny").observation_size == 3
    assert [path.name for path in cache.iterdir()] == ["tiny.sorl"]


def test_the_layout_of_the_hugging_face_hub(published, serve, cache, monkeypatch):
    server = serve(published, "/ada/policies/resolve/v1")
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv(store.ADDRESS, "hf:ada/policies@v1")
    assert store.fetch("tiny", store.read_index()) == cache / "tiny.sorl"
    assert server.requests == ["/ada/policies/resolve/v1/index.json", "/ada/policies/resolve/v1/more/tiny.sorl"]
    monkeypatch.delenv("HF_ENDPOINT")
    expected = "https://huggingface.co/ada/policies/resolve/main/index.json"
    assert addresses.index_address("hf:ada/policies") == expected


@pytest.mark.parametrize("form", ["{}", "{}/index.json", "file://{}/index.json", "file://{}"])
def test_a_directory_is_an_address(published, form, cache):
    index = store.read_index(form.format(published))
    assert store.fetch("tiny", index) == cache / "tiny.sorl"


def test_the_list_has_scores_and_says_what_comes_with_the_package(published, capsys):
    command.main(command.Config())
    printed = capsys.readouterr().out
    assert f"{OWN}: Sorl, cube-single-play-singletask-task1-v0, 0.92 MB, comes with sorl" in printed
    assert "command: python -m sorl.train" in printed and "success timing pre" in printed
    assert "M4N1: success 0.700 (0.562 .. 0.809), 50 episodes" in printed
    command.main(command.Config(index=str(published)))
    printed = capsys.readouterr().out
    assert "tiny: of unknown origin" in printed and "M4N1: return -3 (-4 .. -2)" in printed


def test_control_characters_of_an_index_do_not_reach_the_terminal(published, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.sorl").write_bytes(b"x")
    write_index(tmp_path, {"description": "an arm\x1b]0;title\x07\nadmin: new"})
    command.main(command.Config(index=str(tmp_path)))
    assert "\n  an arm ]0;title  admin: new\n" in capsys.readouterr().out


def test_the_list_says_how_the_scored_decisions_were_made(tmp_path, cache, capsys):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.sorl").write_bytes(b"x")
    sizes = {"inference_steps": 4, "candidates": 8}
    success = {"success": 0.5, "success_low": 0.25, "success_high": 0.75}
    others = [{"verifier": "min", "noise_scale": 0.5}, {"verifier": None, "noise_scale": 1.0}]
    write_index(tmp_path, {"scores": [sizes | success | other for other in others]})
    command.main(command.Config(index=str(tmp_path)))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "    M4N8-min, noise scale 0.5: success 0.500 (0.250 .. 0.750)",
        "    M4N8: success 0.500 (0.250 .. 0.750)",
    ]


def test_the_packages_own_policy_is_not_copied(cache):
    assert store.fetch(OWN, store.own_index()) == store.PACKAGE / f"{OWN}.sorl"
    assert not cache.exists()


# Refusals


def refused(*arguments: Any) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        command.main(command.Config(*arguments))
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_an_unknown_name_names_the_nearest(published, cache):
    assert "has no policy 'tiney' (do you mean 'tiny'?); it has tiny." in refused(("tiney",), str(published))
    with pytest.raises(FileNotFoundError, match=r"no file or directory cube-single-quick, .* \(do you mean '" + OWN):
        sorl.load_policy("cube-single-quick")
    with pytest.raises(FileNotFoundError, match=r"There is no file cube\.sorl; give"):
        sorl.load_policy("cube.sorl")
    with pytest.raises(ValueError, match="is one policy, of which seed 1 cannot be asked"):
        sorl.load_policy(OWN, seed=1)


def test_a_damaged_download_leaves_the_earlier_file(published, serve, cache, tmp_path):
    store.fetch("tiny", store.read_index(str(published)))
    before = (cache / "tiny.sorl").read_bytes()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.sorl").write_bytes(before[:-1] + b"?")
    server = serve(tmp_path)
    # Another SHA-256 than that of the index, another size, and a connection that ends early.
    write_index(tmp_path, {"sha256": "0" * 64})
    assert "tiny.sorl has SHA-256 " in (said := refused(("tiny",), server.address)) and "says 000000000000.." in said
    write_index(tmp_path, {"sha256": "0" * 64, "bytes": len(before) + 5})
    assert f"has {len(before)} bytes where its index says {len(before) + 5}" in refused(("tiny",), server.address)
    write_index(tmp_path, {"sha256": "0" * 64, "bytes": 10})
    assert "has more than 10 bytes where its index says 10" in refused(("tiny",), server.address)
    server.cut = 7
    write_index(tmp_path, {"sha256": "0" * 64})
    assert "more/tiny.sorl ended 7 bytes early; try it again." in refused(("tiny",), server.address)
    server.is_chunked = True
    assert "more/tiny.sorl ended early; try it again." in refused(("tiny",), server.address)
    assert [path.name for path in cache.iterdir()] == ["tiny.sorl"]
    assert (cache / "tiny.sorl").read_bytes() == before


def test_addresses_that_cannot_be_read_are_one_sentence(published, serve, tmp_path):
    server = serve(published)
    assert "/other/index.json answers 404 (Not Found); check" in refused((), f"{server.address}/other")
    closed = serve(published)
    closed.shutdown()
    closed.server_close()
    assert "cannot be read (Connection refused); check the address and" in refused((), closed.address)
    assert "index.json cannot be read (No such file or directory)" in refused((), str(tmp_path / "none"))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "index.json")
    assert "pipe/index.json cannot be read (it is no file); check the address." in refused((), str(tmp_path / "pipe"))
    assert "ftp://x/y is no address that sorl can read; give" in refused((), "ftp://x/y")
    assert "hf:ada is no address" in refused((), "hf:ada")
    assert "http://[x is no address (Invalid IPv6 URL); check its host." in refused((), "http://[x")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<html>", "is no JSON in UTF-8"),
        (b"\xff", "is no JSON in UTF-8"),
        (b"[]", "is no index of pretrained policies"),
        (b'{"format": "sorl-pretrained", "format_version": 2, "policies": {}}', "has format version 2 where this sorl"),
    ],
)
def test_other_content_is_no_index(content, message):
    with pytest.raises(ValueError, match=message):
        indices.parse(content, "an address")


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../tiny.sorl"},
        {"file": "/etc/passwd"},
        {"file": "http://other/tiny.sorl"},
        {"bytes": -1},
        {"bytes": 2**31},
        {"sha256": "abc"},
        {"scores": {}},
    ],
)
def test_entries_that_do_not_fit_are_refused(published, tmp_path, changes):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.sorl").write_bytes(b"")
    write_index(tmp_path, {"bytes": 1} | changes)
    assert "has an entry 'tiny' without a relative file, bytes, sha256 and scores" in refused((), str(tmp_path))


def test_names_that_leave_the_cache_are_refused(published, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.sorl").write_bytes(b"x")
    write_index(tmp_path, {}, "../tiny")
    assert "has an entry '../tiny'" in refused((), str(tmp_path))


def test_another_policy_cannot_take_the_name_of_the_packages_own(published, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.sorl").write_bytes(b"x")
    write_index(tmp_path, {}, OWN)
    assert f"has another {OWN} than the one that comes with sorl" in refused((OWN,), str(tmp_path))
