"""Downloads from a local server that misbehaves."""

import errno
import http.server
import io
import os
import pathlib
import threading

import numpy as np
import pytest

from sorl.data import records
from sorl.data.ogbench.download import fetch


NAME = "set.npz"


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, values=np.arange(50_000))
    return buffer.getvalue()


CONTENT = _npz()


class _Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `answers`: a status, "whole", "damaged", or the most bytes to send.

    The last answer is repeated.
    """

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.ranges = []
        self.understands_ranges = True

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/data"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert isinstance(self.server, _Server)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.ranges.append(self.headers.get("Range"))
        if self.path != f"/data/{NAME}":
            return self.send_error(404)
        if answer in (404, 500):
            return self.send_error(answer)
        start = self._start(self.server.understands_ranges)
        if start and start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = bytearray(CONTENT)
        if answer == "damaged":
            content[1000] ^= 255
        body = bytes(content[start:])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:answer] if isinstance(answer, int) else body)

    def _start(self, understands_ranges):
        asked = self.headers.get("Range")
        if asked is None or not understands_ranges:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format, *args):
        del format, args


@pytest.fixture
def serve():
    servers = []

    def start(*answers):
        server = _Server(answers)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _fetch(directory, *servers):
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    return fetch(NAME, directory, addresses, progress=False)


def _no_trace(directory):
    return not [path for path in directory.iterdir() if path.suffix != ".lock"]


def test_a_file_arrives_whole_and_is_recorded(serve, tmp_path):
    server = serve("whole")
    path = _fetch(tmp_path / "new", server)
    assert path.read_bytes() == CONTENT
    record = records.verified(path)
    assert record is not None
    assert (record["size"], record["source"], record["url"]) == (len(CONTENT), "mirror", f"{server.address}/{NAME}")
    assert sorted(p.name for p in path.parent.iterdir()) == [".sorl.lock", NAME, f"{NAME}.json"]


def test_a_cut_off_is_continued_by_range(serve, tmp_path):
    server = serve(1000, 5000, "whole")
    assert _fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=6000-"]


def test_a_later_call_continues_what_an_earlier_one_left(serve, tmp_path):
    server = serve(1000, 0)
    with pytest.raises(ConnectionError, match=f"cut off after 1000 of {len(CONTENT)} bytes"):
        _fetch(tmp_path, server)
    assert not (tmp_path / NAME).exists()
    again = serve("whole")
    assert _fetch(tmp_path, again).read_bytes() == CONTENT
    assert again.ranges == ["bytes=1000-"]


def test_a_server_without_ranges_starts_again(serve, tmp_path):
    server = serve(1000, "whole")
    server.understands_ranges = False
    assert _fetch(tmp_path, server).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_is_reported_and_leaves_nothing(serve, tmp_path, status):
    server = serve(status)
    with pytest.raises(ConnectionError, match=f"{server.address}/{NAME}: HTTP Error {status}"):
        _fetch(tmp_path, server)
    assert _no_trace(tmp_path)


def test_mirrors_are_tried_in_order(serve, tmp_path):
    broken, whole, unused = serve(500), serve("whole"), serve("whole")
    path = _fetch(tmp_path, "http://127.0.0.1:9", broken, whole, unused)
    assert path.read_bytes() == CONTENT
    assert (len(broken.ranges), len(unused.ranges)) == (1, 0)


def test_a_mirror_continues_what_another_host_began(serve, tmp_path):
    first, second = serve(3000, 0), serve("whole")
    assert _fetch(tmp_path, first, second).read_bytes() == CONTENT
    assert second.ranges == ["bytes=3000-"]


def test_a_damaged_file_never_gets_its_name(serve, tmp_path):
    with pytest.raises(ConnectionError, match="the file it sent is damaged"):
        _fetch(tmp_path, serve("damaged"))
    assert _no_trace(tmp_path)


def test_a_continuation_that_does_not_fit_is_fetched_anew(serve, tmp_path):
    (tmp_path / f".{NAME}.part").write_bytes(b"of another file" * 100)
    server = serve("whole")
    assert _fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1500-", None]


def test_a_download_killed_before_the_renaming_is_completed(serve, tmp_path):
    (tmp_path / f".{NAME}.part").write_bytes(CONTENT)
    assert _fetch(tmp_path, serve("whole")).read_bytes() == CONTENT


def test_more_bytes_than_the_file_has_are_dropped(serve, tmp_path):
    (tmp_path / f".{NAME}.part").write_bytes(CONTENT + b"more")
    assert _fetch(tmp_path, serve("whole")).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched(serve, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    server = serve("whole")
    assert _fetch(tmp_path, server).read_bytes() == b"mine"
    assert server.ranges == []


def test_a_file_changed_after_it_was_recorded_is_refused(serve, tmp_path):
    path = _fetch(tmp_path, serve("whole"))
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ValueError, match="sha256.*changed or damaged; delete it"):
        records.verified(path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"size {len(CONTENT) - 1} bytes.*{len(CONTENT)} bytes"):
        records.verified(path)


@pytest.mark.parametrize("harder", [False, True])
def test_a_link_in_the_place_of_the_partial_file_is_replaced(serve, tmp_path, harder):
    other, directory = tmp_path / "other", tmp_path / "data"
    other.write_bytes(CONTENT[:1000])
    directory.mkdir()
    if harder:
        (directory / f".{NAME}.part").hardlink_to(other)
    else:
        (directory / f".{NAME}.part").symlink_to(other)
    server = serve("whole")
    assert _fetch(directory, server).read_bytes() == CONTENT
    assert not (directory / NAME).is_symlink()
    assert server.ranges == [None]
    assert other.read_bytes() == CONTENT[:1000]


def test_a_directory_in_the_place_of_the_partial_file_is_named(serve, tmp_path):
    (tmp_path / f".{NAME}.part").mkdir()
    with pytest.raises(IsADirectoryError, match=rf"^{tmp_path}/.{NAME}.part is a directory[^\n]*; remove it\.$"):
        _fetch(tmp_path, serve("whole"))


def test_a_link_in_the_place_of_the_lock_is_refused(serve, tmp_path):
    (tmp_path / "other").write_text("precious")
    (tmp_path / ".sorl.lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=r"^[^\n]*\.sorl\.lock is a link or a directory[^\n]*\.$"):
        _fetch(tmp_path, serve("whole"))
    assert (tmp_path / "other").read_text() == "precious"


@pytest.mark.parametrize("understands_ranges", [True, False])
def test_a_damaged_part_is_made_anew(serve, tmp_path, understands_ranges):
    damaged = bytearray(CONTENT[:300_000])
    damaged[1000] ^= 255
    (tmp_path / f".{NAME}.part").write_bytes(damaged)
    server = serve("whole")
    server.understands_ranges = understands_ranges
    assert _fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges == ["bytes=300000-", None][: 1 + understands_ranges]


def test_a_full_disk_is_no_fault_of_the_hosts(serve, tmp_path, monkeypatch):
    def full(file, chunk):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.FileIO):
        write = full

    monkeypatch.setattr(pathlib.Path, "open", lambda path, mode, buffering: Full(path, mode))
    unused = serve("whole")
    with pytest.raises(OSError, match=r"^[^\n]*\.set\.npz\.part cannot be written: no space left[^\n]*; free some"):
        _fetch(tmp_path, serve("whole"), unused)
    assert unused.ranges == []


def test_a_read_only_directory_names_the_option(serve, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(PermissionError, match=r"^[^\n]*permission denied; give a directory[^\n]*--data-dir\.$"):
        _fetch(tmp_path, serve("whole"))
