"""`penstock feedback send` of files to gateways that have no room for a while."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import harness

Reply = tuple[int, dict[str, str], bytes]


def send(url: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Sends feedback."""
    line = [harness.gateway_binary(), "feedback", "send", f"--url={url}", "--json", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def write(file: Path, lines: int) -> list[str]:
    """Writes feedback with ids of its own; returns these."""
    ids = [f"f{number}" for number in range(lines)]
    told = [json.dumps({"caller_id": "c", "reward": 1, "id": one}) for one in ids]
    file.write_text("\n".join(told))
    return ids


class Busy:
    """Answers as `replies` say, one after the other, or hangs up; then it takes what comes."""

    def __init__(self) -> None:
        self.replies: list[Reply | None] = []
        self.asked: list[tuple[float, list[str]]] = []
        self.taken: list[str] = []
        busy = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                ids = [one["id"] for one in body["feedback"]]
                busy.asked.append((time.monotonic(), ids))
                reply = busy.replies.pop(0) if busy.replies else busy.take(ids)
                if reply is None:
                    self.close_connection = True
                    return
                status, headers, text = reply
                self.send_response(status)
                for name, value in ({"content-length": str(len(text))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, ids: list[str]) -> Reply:
        """Takes feedback."""
        self.taken += ids
        results = [{"id": one, "outcome": "stored"} for one in ids]
        return 200, {}, json.dumps({"results": results}).encode()

    def pauses(self) -> list[float]:
        """Seconds between what was asked."""
        times = [at for at, _ in self.asked]
        return [later - before for before, later in zip(times, times[1:])]


@pytest.fixture
def busy() -> Iterator[Busy]:
    """A server that has no room when told so."""
    made = Busy()
    yield made
    made.server.shutdown()
    made.server.server_close()


def no_room(status: int, **headers: str) -> Reply:
    """What a gateway says that has no room."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, b'{"error": "too much"}'


def test_a_file_waits_as_long_as_it_is_asked_to_and_goes_on_where_it_was(
    busy: Busy, tmp_path: Path
) -> None:
    file = tmp_path / "told.jsonl"
    ids = write(file, 25)
    taken = busy.take(ids[:10])
    busy.taken.clear()
    proxy = (503, {"content-type": "text/html"}, b"<h1>no</h1>")
    refused: list[Reply | None] = [no_room(429, retry_after="1"), no_room(503, retry_after="2")]
    refused += [proxy, None]
    busy.replies = [taken, *refused]
    done = send(busy.url, "--file", file, "--part", "10")
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    assert (report["sent"], report["outcomes"]) == (25, {"stored": 25})
    assert (report["waits"], report["first_unsent_line"]) == (4, None)
    assert [part for _, part in busy.asked] == [ids[:10], *[ids[10:20]] * 5, ids[20:]]
    assert busy.taken == ids[10:], "what was taken is not sent again"
    _, one, two, own, again, _ = busy.pauses()
    assert one >= 1 and two >= 2 and min(own, again) > 1, busy.pauses()
    assert 5 < report["waited_seconds"] <= one + two + own + again
    assert done.stderr.count("next try in") == 4 and "too much" in done.stderr, done.stderr


def test_a_gateway_that_has_no_room_for_too_long_is_given_up_and_the_rest_is_named(
    busy: Busy, tmp_path: Path
) -> None:
    file = tmp_path / "told.jsonl"
    ids = write(file, 25)
    busy.replies = [busy.take(ids[:10]), *[no_room(503)] * 100]
    begun = time.monotonic()
    done = send(busy.url, "--file", file, "--part", "10", "--patience", "2s")
    assert done.returncode != 0 and 2 <= time.monotonic() - begun < 10
    report = json.loads(done.stdout)
    assert (report["sent"], report["first_unsent_line"]) == (10, 11)
    assert report["waits"] >= 2 and report["waited_seconds"] == pytest.approx(2)
    assert "10 were sent until then" in done.stderr and "line 11 is the first" in done.stderr
    assert "the gateway is given up: too much" in done.stderr
    tries = len(busy.asked)
    for words in [("--patience", "0s"), ("--patience", "10s")]:
        busy.replies = [no_room(429, retry_after="11")]
        begun = time.monotonic()
        done = send(busy.url, "--file", file, *words)
        assert done.returncode != 0 and time.monotonic() - begun < 5, "it is given up at once"
        assert "asks to wait 11s" in done.stderr and "line 1 is the first" in done.stderr
        tries += 1
        assert len(busy.asked) == tries
    # One that never answered is not waited for: it may be another address.
    busy.replies = [None]
    begun = time.monotonic()
    done = send(busy.url, "--file", file)
    assert done.returncode != 0 and time.monotonic() - begun < 5
    assert "cannot reach a gateway" in done.stderr, done
    # An answer that says nothing of what was sent is no success.
    busy.replies = [(200, {}, b"{}")]
    done = send(busy.url, "--file", file)
    assert done.returncode != 0 and "tells of 0 of 25" in done.stderr, done


def test_a_file_is_sent_whole_within_the_limits_of_its_caller(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    harness.write_identity(repository, "FP32")
    limit = '[[rate_limit]]\nname = "callers"\nkey = "address"\nrate = "2/s"\nburst = 2\n'
    log = f'[prediction_log]\npath = "{tmp_path / "log"}"\nmin_free = "0B"\n'
    gateway = harness.start(tmp_path, repository, log + limit)
    try:
        file = tmp_path / "told.jsonl"
        write(file, 60)
        done = send(f"http://{gateway.http}", "--file", file, "--part", "10")
        report = json.loads(done.stdout)
        assert done.returncode == 0 and report["outcomes"] == {"stored": 60}, done
        assert report["waits"] > 0 and report["waited_seconds"] > 1
        assert harness.metric(gateway, "penstock_feedback_total", outcome="duplicate") == 0
    finally:
        gateway.stop()
