"""Damaged policy files: each is one clear error, and never another."""

import gzip
import hashlib
import io
import json
import os
import pickle
import re

import numpy as np
import pytest

from sorl import Normalisation, Policy, load_policy
from sorl.agents.registry import UnknownAgent

from .. import synthetic
from ..random_networks import make_policy


def _save(path, seed: int = 0) -> bytes:
    agent = synthetic.agent(hidden_sizes=(8,), critic_hidden_sizes=(8,))
    networks = make_policy(agent, 3, 2, seed)
    policy = Policy(agent.actor, networks, Normalisation.identity(3, 2), {"env": "made up", "seed": seed})
    policy.with_scores([synthetic.score(1, 1), synthetic.score(4, 8)]).save(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "policy.sorl"


def _one_sentence(path) -> str:
    with pytest.raises(ValueError) as caught:
        load_policy(path)
    assert type(caught.value) is ValueError  # not a UnicodeDecodeError, say
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert re.fullmatch(r"[^.].*[;,] (give|copy|write|install) .*\.", message.removeprefix(str(path))), message
    return message


def _parts(content: bytes) -> tuple[bytes, bytes, bytes]:
    """Seal, header and payload."""
    seal, header, payload = content.split(b"\n", 2)
    return seal, header, payload


def _flip(content: bytes, index: int, bit: int = 0) -> bytes:
    return content[:index] + bytes([content[index] ^ 1 << bit]) + content[index + 1 :]


def _header_bit(content: bytes) -> bytes:
    return _flip(content, len(_parts(content)[0]) + 20)


def _weight_bit(content: bytes) -> bytes:
    """The lowest bit of the mantissa of the last weight: the smallest change that there is."""
    return _flip(content, len(content) - 4)


def _npz(content: bytes) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, weights=np.zeros(3))
    return stream.getvalue()


FOREIGN = {
    "empty": lambda content: b"",
    "one line end": lambda content: b"\n",
    "gzip": gzip.compress,
    "npz": _npz,
    "pickle": lambda content: pickle.dumps({"policy": content}),
    "json": lambda content: json.dumps({"actor": {"type": "ShortcutActor"}}).encode(),
    "text in UTF-16": lambda content: "sorl-policy 3".encode("utf-16"),
    "zeros": lambda content: bytes(1000),
    "another format of sorl": lambda content: content.replace(b"sorl-policy", b"sorl-exported-policy", 1),
    "something before": lambda content: b"PK\x03\x04" + content,
    "the first bit": lambda content: _flip(content, 0),
    "the name alone": lambda content: b"sorl-policy",
}


@pytest.mark.parametrize("damage", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_files(path, damage):
    path.write_bytes(damage(_save(path)))
    assert "is not a sorl-policy file" in _one_sentence(path)


VERSIONS = {
    "older": lambda content: content.replace(b"sorl-policy 3 ", b"sorl-policy 1 ", 1),
    "newer": lambda content: content.replace(b"sorl-policy 3 ", b"sorl-policy 30 ", 1),
    "no number": lambda content: content.replace(b"sorl-policy 3 ", b"sorl-policy \xff ", 1),
}


@pytest.mark.parametrize("damage", VERSIONS.values(), ids=VERSIONS.keys())
def test_other_versions(path, damage):
    path.write_bytes(damage(_save(path)))
    assert "has format version" in _one_sentence(path)


ALTERED = {
    "a weight's lowest bit": _weight_bit,
    "a header's bit": _header_bit,
    "a bit of the seal": lambda content: _flip(content, 20),
    "bytes after it": lambda content: content + b"\0",
    "a line end after it": lambda content: content + b"\n",
    "a byte taken out": lambda content: content[:-100] + content[-99:],
    "two bytes swapped": lambda content: content[:-6] + content[-5:-4] + content[-6:-5] + content[-4:],
    "line ends of Windows": lambda content: content.replace(b"\n", b"\r\n", 2),
    "a second copy": lambda content: content + content,
    "zeros in its middle": lambda content: content[:800] + bytes(100) + content[900:],
}


@pytest.mark.parametrize("damage", ALTERED.values(), ids=ALTERED.keys())
def test_altered_files(path, damage):
    path.write_bytes(damage(_save(path)))
    assert "does not match its own SHA-256" in _one_sentence(path)


def test_the_seal_of_another_policy(path):
    other = _parts(_save(path, seed=1))[0]
    seal, header, payload = _parts(_save(path))
    assert other != seal
    path.write_bytes(b"\n".join([other, header, payload]))
    assert "does not match its own SHA-256" in _one_sentence(path)


def test_a_bit_anywhere(path):
    content = _save(path)
    for index in np.random.default_rng(0).integers(0, len(content), 200):
        path.write_bytes(_flip(content, int(index), bit=int(index) % 8))
        _one_sentence(path)


def test_truncated_anywhere(path):
    content = _save(path)
    header = len(b"\n".join(_parts(content)[:2]))
    lengths = {*range(0, 100, 7), header - 1, header, header + 1, header + 2, *range(header, len(content), 97)}
    for length in sorted(lengths | {len(content) - 1}):
        path.write_bytes(content[:length])
        _one_sentence(path)


def _sealed(header: bytes, payload: bytes) -> bytes:
    content = header + b"\n" + payload
    return b"sorl-policy 3 " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


UNREADABLE_HEADERS = {
    "not JSON": b"{actor}",
    "nothing": b"",
    "not UTF-8": b'{"actor": "\xff\xfe"}',
    "no object": b"[1, 2]",
    "too deep": b"[" * 100_000,
    "a number too long": b"1" * 10_000,
}


@pytest.mark.parametrize("header", UNREADABLE_HEADERS.values(), ids=UNREADABLE_HEADERS.keys())
def test_sealed_headers_that_are_no_json_object(path, header):
    _, _, payload = _parts(_save(path))
    path.write_bytes(_sealed(header, payload))
    assert "has a header that is no" in _one_sentence(path)


def _without(key):
    def change(header):
        del header[key]

    return change


def _with(value, *keys):
    def change(header):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


WRONG_HEADERS = {
    "without the actor": (_without("actor"), "lacks ['actor']"),
    "without the normalisation": (_without("normalisation"), "lacks ['normalisation']"),
    "with something more": (_with(1, "colour"), "colour"),
    "an actor without a name": (_with({"type": ["ShortcutActor"]}, "actor"), "whose type is the name of an actor"),
    "no actor": (_with(None, "actor"), "the actor is None"),
    "an actor with a field of another type": (_with("wide", "actor", "hidden_sizes"), "hidden_sizes is 'wide'"),
    "an actor with an impossible setting": (_with(3, "actor", "backprop_steps"), "power of two"),
    "an actor of another size": (_with([16], "actor", "hidden_sizes"), "its arrays are not those"),
    "an actor too large to be": (_with([10**30], "actor", "hidden_sizes"), "its hidden_sizes is above 65536"),
    "layers wider than the file": (_with([50_000, 50_000], "actor", "hidden_sizes"), "its arrays are not those"),
    "more layers than the file": (_with([8] * 1_000_000, "actor", "critic_hidden_sizes"), "its arrays are not those"),
    "too many heads": (_with(10**9, "actor", "critic_heads"), "its critic_heads is above"),
    "too many steps": (_with(2**200, "actor", "discretization_steps"), "its discretization_steps is above"),
    "too many candidates": (_with(10**12, "budget", "candidates"), "its candidates is above"),
    "a score of too many steps": (_with(10**9, "scores", 0, "inference_steps"), "its inference_steps is above"),
    "an observation too large to be": (_with(10**10, "observation_size"), "sizes"),
    "a verifier that is none": (_with("median", "budget", "verifier"), "expected a verifier such as"),
    "another observation size": (_with(4, "observation_size"), "its arrays are not those"),
    "no observation size": (_with("3", "observation_size"), "sizes"),
    "a negative action size": (_with(-2, "action_size"), "sizes"),
    "trained steps, as version 2 had them": (_with([1, 2], "trained_steps"), "trained_steps"),
    "a normalisation of another size": (_with([0.0], "normalisation", "observation_mean"), "normalisation"),
    "a scale of zero": (_with([1.0, 0.0, 1.0], "normalisation", "observation_scale"), "positive"),
    "a mean that is not a number": (_with([0, 0, float("nan")], "normalisation", "observation_mean"), "finite"),
    "an unknown unit": (
        _with([0.0], "normalisation", "volume"),
        "has the unknown 'volume', perhaps of a newer version",
    ),
    "no normalisation": (_with([], "normalisation"), "makes no policy"),
    "a budget that cannot act": (_with(0, "budget", "candidates"), "cannot act"),
    "an unknown budget": (_with({"patience": 3}, "budget"), "patience"),
    "scores without success": (_with([{"inference_steps": 1, "candidates": 1}], "scores"), "success"),
    "scores that are no list": (_with(5, "scores"), "scores"),
    "a provenance that is no object": (_with("here", "provenance"), "provenance"),
    "a long list for a size": (
        _with([0] * 100_000, "observation_size"),
        "the sizes of observation and action are ([0, 0",
    ),
    "a long list in a score": (_with([0] * 100_000, "scores", 0, "success"), "The score {"),
}


@pytest.mark.parametrize("change, message", WRONG_HEADERS.values(), ids=WRONG_HEADERS.keys())
def test_sealed_headers_that_make_no_policy(path, change, message):
    _, line, payload = _parts(_save(path))
    header = json.loads(line)
    change(header)
    path.write_bytes(_sealed(json.dumps(header).encode(), payload))
    found = _one_sentence(path)
    assert "makes no policy" in found and message in found
    assert len(found) < 600 + len(str(path))


def test_an_actor_that_is_not_registered_is_refused_with_what_to_give(path):
    _, line, payload = _parts(_save(path))
    header = json.loads(line) | {"actor": {"type": "Dreamer"}}
    path.write_bytes(_sealed(json.dumps(header).encode(), payload))
    with pytest.raises(UnknownAgent, match="names the actor 'Dreamer', which is not registered; .* --agent-module"):
        load_policy(path)


def test_missing_fields_of_a_header_take_their_defaults_with_one_warning(path):
    _, line, payload = _parts(_save(path))
    header = json.loads(line)
    for name in ("budget", "scores", "provenance"):
        del header[name]
    del header["actor"]["critic_sees_steps"]
    path.write_bytes(_sealed(json.dumps(header).encode(), payload))
    with pytest.warns(UserWarning) as caught:
        policy = load_policy(path)
    (message,) = {str(warning.message) for warning in caught}
    assert message.startswith(f"{path}: the header does not have critic_sees_steps;")
    assert "the header does not have budget, scores, provenance; the defaults are taken." in message
    assert (policy.budget, policy.scores, policy.provenance) == (policy.actor.budgets.usual, [], {})


NUMBERS = (-1, 0, 3, 10**9, 2**62, 10**30, -(10**30), 1e30, float("nan"), float("inf"))
OTHERS = (None, True, "", "min", [], {}, [[]], [10**9], [-3], ["x"], {"type": "Bc"}, "a" * 10_000)


@pytest.mark.filterwarnings("ignore:.*the header does not have|.*the budget does not have")
def test_mutated_headers_load_or_are_one_sentence(path):
    """A field or two of the header, at any depth, become anything else, or are taken out; the seal is made anew."""
    random = np.random.default_rng(0)
    _, line, payload = _parts(_save(path))
    refused = 0
    for _ in range(100):
        header = json.loads(line)
        for _ in range(random.integers(1, 3)):
            _mutate(header, random)
        path.write_bytes(_sealed(json.dumps(header).encode(), payload))
        try:
            load_policy(path)
        except ValueError:
            _one_sentence(path)
            refused += 1
    assert refused >= 50


def _mutate(header, random) -> None:
    place, key = header, random.choice(list(header))
    while isinstance(place[key], dict | list) and place[key] and random.random() < 0.7:
        place = place[key]
        key = random.choice(list(place)) if isinstance(place, dict) else int(random.integers(len(place)))
    if random.random() < 0.2:
        del place[key]
    else:
        choices = NUMBERS + OTHERS
        place[key] = choices[random.integers(len(choices))]


WRONG_PAYLOADS = {
    "nothing": lambda payload: b"",
    "half": lambda payload: payload[: len(payload) // 2],
    "something after it": lambda payload: payload + b"\0",
    "the arrays in another order": lambda payload: payload[len(payload) // 2 :] + payload[: len(payload) // 2],
    "npz": lambda payload: _npz(payload),
    "pickle": lambda payload: pickle.dumps(np.zeros(3)),
    "zeros": lambda payload: bytes(len(payload)),
    "whole numbers for floats": lambda payload: payload.replace(b"<f4", b"<i4"),
    "an array larger than the file": lambda payload: payload.replace(b"(8, 7)", b"(8, 7777777)", 1),
}


@pytest.mark.parametrize("change", WRONG_PAYLOADS.values(), ids=WRONG_PAYLOADS.keys())
def test_sealed_payloads_that_are_no_networks(path, change):
    _, header, payload = _parts(_save(path))
    assert change(payload) != payload
    path.write_bytes(_sealed(header, change(payload)))
    found = _one_sentence(path)
    assert "makes no policy (its arrays are not" in found or "something follows" in found


def test_the_seal_made_anew_over_an_unchanged_content_is_the_same(path):
    content = _save(path)
    assert _sealed(*_parts(content)[1:]) == content


def test_a_file_that_is_missing_is_not_found(path):
    with pytest.raises(FileNotFoundError):
        load_policy(path)


def test_directories_without_a_policy(tmp_path):
    assert "is a directory without a policy" in _one_sentence(tmp_path)
    (tmp_path / "policy-seed-one.sorl").touch()
    (tmp_path / "config.json").write_text("{}")
    assert "is a directory without a policy" in _one_sentence(tmp_path)


def test_what_cannot_be_opened(path):
    path.symlink_to(path)
    assert "cannot be read" in _one_sentence(path)


def test_what_is_no_regular_file(path):
    os.mkfifo(path)
    assert "is no file" in _one_sentence(path)
