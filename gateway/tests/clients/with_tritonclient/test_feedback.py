"""Feedback about predictions: told over both protocols, kept once, and joined with rows."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import harness

SERVICE = "penstock.v1.FeedbackService"
LABELS = 'labels = ["cat", "dog", "cow"]\n'


class Rig:
    """A gateway with a log whose model answers its input as scores of three classes."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.log, self.more = folder, folder / "log", more
        self.repository = folder / "repository"
        harness.write_identity(self.repository, "FP32", name="animals", more=LABELS)
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Starts the gateway, again perhaps, on the same log."""
        settings = (
            f'[prediction_log]\npath = "{self.log}"\nsegment_age = "300ms"\nmin_free = "0B"\n'
            f'{self.more}[prediction_log.feedback]\nhorizon = "1h"\n'
        )
        self.starts += 1
        own = self.folder / f"run-{self.starts}"
        own.mkdir()
        self.gateway = harness.start(own, self.repository, settings)

    def kill(self) -> None:
        """Ends the gateway without a word."""
        self.gateway.process.send_signal(signal.SIGKILL)
        self.gateway.process.wait()
        self.gateway.ended = True

    def call(self, scores: list[list[float]], request_id: str = "") -> str:
        """The id of a prediction of these scores."""
        with tritonclient.http.InferenceServerClient(self.gateway.http) as client:
            x = tritonclient.http.InferInput("x", [len(scores), 3], "FP32")
            x.set_data_from_numpy(np.array(scores, np.float32))
            answer = client.infer("animals", [x], request_id=request_id).get_response()
        return str(uuid.UUID(answer["parameters"]["prediction_id"]))

    def post(self, body: Any) -> tuple[int, Any]:
        """Status and JSON of the answer to feedback."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.gateway.http}/v2/feedback", data)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def told(self, *feedback: dict[str, Any]) -> list[str]:
        """What became of feedback that is taken."""
        status, answer = self.post({"feedback": list(feedback)})
        assert status == 200, answer
        return [result["outcome"] for result in answer["results"]]

    def count(self, name: str, **labels: str) -> int:
        """A metric of feedback."""
        return int(harness.metric(self.gateway, f"penstock_feedback_{name}", **labels))

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs `penstock feedback`."""
        line = [harness.gateway_binary(), "feedback", *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    def export(self, *words: str | Path) -> tuple[list[dict[str, Any]], str]:
        """Exported lines, and what the command says beside them."""
        done = self.command("export", "--path", self.log, "--format", "jsonl", *words)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.gateway.stop()


def known(rig: Rig, prediction: str) -> None:
    """Waits until a prediction can be matched: its row is recorded once it is answered."""
    probe = {"prediction_id": prediction, "reward": 0}
    ids = iter(range(1000))
    harness.wait_until(
        lambda: rig.told(probe | {"id": f"probe-{prediction}-{next(ids)}"}) == ["matched"]
    )


def test_feedback_is_joined_with_the_items_that_it_is_about(rig: Rig) -> None:
    first = rig.call([[0, 1, 0], [1, 0, 0]], "order-7")
    other = rig.call([[0, 0, 1]])
    known(rig, other)
    told = [
        {"prediction_id": first, "item": 0, "label": "dog", "event_time": "2026-01-31T12:00:00Z"},
        {"caller_id": "order-7", "item": 1, "label": "cow", "source": "shop", "id": "a"},
        {"prediction_id": other, "label": 2, "reward": 1.5, "note": "good"},
    ]
    assert rig.told(*told) == ["matched"] * 3
    assert rig.count("labels_total", model="animals", agrees="yes") == 2
    assert rig.count("labels_total", model="animals", agrees="no") == 1
    assert harness.metric(rig.gateway, "penstock_feedback_reward_sum", model="animals") == 1.5
    rig.gateway.stop()
    lines, said = rig.export()
    found = {(line["prediction_id"], line["item"]): line for line in lines}
    assert len(found) == len(lines) == 3
    dog, cow, two = found[first, 0], found[first, 1], found[other, 0]
    assert (dog["label_text"], dog["event_time"]) == ("dog", "2026-01-31T12:00:00Z")
    assert (cow["label_text"], cow["source"], cow["feedback_id"]) == ("cow", "shop", "a")
    assert (two["label_number"], two["reward"], two["note"]) == (2, 1.5, "good")
    assert dog["out_y"] == [0, 1, 0] and " 0 belong to no line" in said


def test_what_is_told_again_counts_once_also_after_a_kill(rig: Rig) -> None:
    prediction = rig.call([[0, 1, 0]])
    known(rig, prediction)
    told = {"prediction_id": prediction, "label": "dog"}
    assert rig.told(told, told) == ["matched", "duplicate"]
    assert rig.told(told) == ["duplicate"]
    named = {"prediction_id": prediction, "label": "cat", "id": "mine"}
    assert rig.told(named, named | {"label": "cow"}) == ["matched", "duplicate"]
    rig.kill()
    rig.start()
    ready = lambda: rig.told(told) == ["duplicate"]
    harness.wait_until(ready)
    before = rig.call([[1, 0, 0]])
    known(rig, before)
    assert rig.told({"prediction_id": before, "label": "cat"}) == ["matched"]
    rig.kill()
    lines, _ = rig.export("--only-known")
    labels = {line["prediction_id"]: line for line in lines}
    # Of the two about one item the later one holds; what was acknowledged survived the kill.
    assert labels[prediction]["label_text"] == "cat"
    assert labels[before]["label_text"] == "cat", "acknowledged feedback is there"
    rig.start()


def test_early_late_and_unknown_predictions_are_told_apart_and_exported_apart(
    rig: Rig, tmp_path: Path
) -> None:
    def made(seconds_ago: int) -> str:
        moment = np.datetime64("now", "ms").astype(int) - seconds_ago * 1000
        return str(uuid.UUID(int=(int(moment) << 80) | (7 << 76) | (2 << 62) | 5))

    told = [
        {"prediction_id": made(0), "label": "cat"},
        {"prediction_id": made(2 * 3600), "label": "cat"},
        {"prediction_id": made(600), "label": "cat"},
        {"prediction_id": str(uuid.uuid4()), "label": "cat"},
        {"caller_id": "nobody", "label": "cat"},
    ]
    assert rig.told(*told) == ["early", "late", "stored", "unmatched", "unmatched"]
    for outcome, count in [("early", 1), ("late", 1), ("stored", 1), ("unmatched", 2)]:
        assert rig.count("total", outcome=outcome) == count
    # The call comes after what is said of it.
    prediction = rig.call([[1, 0, 0]], "nobody")
    agreed = lambda: rig.count("labels_total", model="animals", agrees="yes") == 1
    harness.wait_until(agreed)
    rig.gateway.stop()
    rest = tmp_path / "rest.jsonl"
    lines, said = rig.export("--unmatched", rest)
    assert "feedback: 5, told again 0 times; 4 belong to no line" in said
    assert [(line["prediction_id"], line["label_text"]) for line in lines] == [(prediction, "cat")]
    unmatched = [json.loads(line) for line in rest.read_text().splitlines()]
    ids = {line["prediction_id"] for line in unmatched}
    assert ids == {one["prediction_id"] for one in told[:4]}


def test_a_batch_with_anything_wrong_is_refused_whole_and_each_place_is_named(rig: Rig) -> None:
    good = {"prediction_id": str(uuid.uuid4()), "label": "cat"}
    wrong = [
        good,
        {"prediction_id": "7", "label": "cat"},
        {"prediction_id": good["prediction_id"], "lable": "cat"},
        {"label": "cat"},
        {"prediction_id": good["prediction_id"], "reward": 1, "event_time": "noon", "item": -1},
    ]
    status, answer = rig.post({"feedback": wrong})
    assert status == 400
    places = {(problem["index"], problem["field"]) for problem in answer["problems"]}
    # Unknown fields are told before what is missing without them.
    assert places == {(2, "lable")} and "feedback[2].lable: there is no such field" in answer["error"]
    status, answer = rig.post({"feedback": [one for one in wrong if "lable" not in one]})
    places = {(problem["index"], problem["field"]) for problem in answer["problems"]}
    expected = {(1, "prediction_id"), (2, "prediction_id"), (3, "event_time"), (3, "item")}
    assert (status, places) == (400, expected)
    for body in [b"", b"{", b"[]", b'"x"', b'{"feedback": 1}', b'{"feedback": [], "x": 1}']:
        status, answer = rig.post(body)
        assert status == 400 and answer["error"], body
    # Refused by its length, before any of it is read.
    connection = http.client.HTTPConnection(rig.gateway.http, timeout=30)
    connection.putrequest("POST", "/v2/feedback")
    connection.putheader("content-length", str((4 << 20) + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    status, answer = rig.post({"feedback": [good] * 4097})
    assert status == 413 and "4096" in answer["error"]
    assert rig.told(good) == ["unmatched"], "nothing of the refused ones was kept"
    assert rig.count("total", outcome="refused") > 0


@pytest.fixture
def channel(rig: Rig) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(rig.gateway.grpc) as channel:
        yield channel


def test_grpc_takes_feedback_in_messages_and_streams(rig: Rig, channel: grpc.Channel) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    messages = {
        name: GetMessageClass(pool.FindMessageTypeByName(f"penstock.v1.{name}"))
        for name in ["FeedbackRequest", "FeedbackResponse", "FeedbackSummary"]
    }
    request, serialize = messages["FeedbackRequest"], lambda message: message.SerializeToString()
    send = channel.unary_unary(
        f"/{SERVICE}/Send", serialize, messages["FeedbackResponse"].FromString
    )
    stream = channel.stream_unary(
        f"/{SERVICE}/SendStream", serialize, messages["FeedbackSummary"].FromString
    )
    prediction = rig.call([[0, 1, 0]])
    known(rig, prediction)
    told = lambda **more: request(feedback=[{"prediction_id": prediction} | more])
    answer = send(told(text="dog", id="a"), timeout=30)
    assert [(one.id, one.outcome) for one in answer.results] == [("a", "matched")]
    assert send(told(text="dog", id="a"), timeout=30).results[0].outcome == "duplicate"
    assert send(told(flag=True), timeout=30).results[0].outcome == "matched"
    assert rig.count("labels_total", model="animals", agrees="yes") == 2
    parts = [told(number=1, id="b"), told(reward=2, id="b"), told(reward=2, id="c", item=7)]
    summary = stream(iter(parts), timeout=30)
    assert summary.messages == 3
    assert dict(summary.outcomes) == {"matched": 1, "duplicate": 1, "unmatched": 1}
    with pytest.raises(grpc.RpcError) as error:
        send(request(feedback=[{"caller_id": "c"}]), timeout=30)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "feedback[0].label" in error.value.details()
    with pytest.raises(grpc.RpcError) as error:
        stream(iter([told(reward=1, id="d"), request(feedback=[{}])]), timeout=30)
    assert "message 1: feedback[0].prediction_id" in error.value.details()
    assert rig.told({"prediction_id": prediction, "reward": 1, "id": "d"}) == ["duplicate"]
    with pytest.raises(grpc.RpcError) as error:
        send(request(feedback=[{"caller_id": "c"}] * 4097), timeout=30)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    # A stream that says nothing holds up no stop.
    begun, open_end = threading.Event(), threading.Event()

    def silent() -> Iterator[Any]:
        yield told(reward=3, id="e")
        begun.set()
        open_end.wait(60)

    waiting = stream.future(silent(), timeout=60)
    assert begun.wait(30)
    harness.wait_until(
        lambda: rig.told({"prediction_id": prediction, "reward": 3, "id": "e"}) == ["duplicate"]
    )
    rig.gateway.stop()
    open_end.set()
    assert waiting.result(timeout=30).messages == 1


def test_the_command_sends_one_or_a_file_and_names_every_bad_line(
    rig: Rig, tmp_path: Path
) -> None:
    url = f"--url=http://{rig.gateway.http}"
    prediction = rig.call([[0, 1, 0]], "order-1")
    known(rig, prediction)
    one = ["--prediction-id", prediction, "--label", "dog", "--id", "x", "--json"]
    done = rig.command("send", url, *one)
    calm = {"first_unsent_line": None, "waits": 0, "waited_seconds": 0.0}
    expected = {"sent": 1, "outcomes": {"matched": 1}, "bad_lines": []} | calm
    assert json.loads(done.stdout) == expected, done.stderr
    lines = [json.dumps({"caller_id": "order-1", "reward": i, "id": f"r{i}"}) for i in range(25)]
    lines[3], lines[11] = "nonsense", json.dumps({"caller_id": "order-1", "lable": "cat"})
    file = tmp_path / "told.jsonl"
    file.write_text("\n".join(lines))
    done = rig.command("send", url, "--file", file, "--part", "10", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "sent": 23, "outcomes": {"matched": 23}, "bad_lines": [4, 12],
    } | calm  # fmt: skip
    assert f"{file}:4: is not JSON" in done.stderr
    assert f"{file}:12: lable: there is no such field" in done.stderr
    table = tmp_path / "told.csv"
    table.write_text("caller_id,label,reward\norder-1,dog,\norder-1,,high\norder-1,cat,0.5\n")
    done = rig.command("send", url, "--file", table)
    assert done.returncode == 1 and f"{table}:3: reward: 'high' is no number" in done.stderr
    assert "matched" in done.stdout and "left out: 1" in done.stdout
    again = rig.command("send", url, "--file", table, "--json")
    assert json.loads(again.stdout)["outcomes"] == {"duplicate": 2}
    for words in [[], ["--file", file, "--label", "x"], ["--file", tmp_path / "none.jsonl"]]:
        assert rig.command("send", url, *words).returncode != 0


def test_ids_of_callers_that_are_hashed_match_all_the_same(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a key of hashes for tests")
    redact = '[[prediction_log.redact]]\nfield = "caller_id"\nhow = "hash"\n'
    rig = Rig(tmp_path, f'hash_key = "file:{key}"\n{redact}')
    known(rig, rig.call([[0, 1, 0]], "order-4711"))
    assert rig.told({"caller_id": "order-4711", "label": "dog"}) == ["matched"]
    rig.gateway.stop()
    lines, _ = rig.export("--only-known")
    assert lines[0]["label_text"] == "dog" and len(lines[0]["caller_id"]) == 32
    for path in rig.log.rglob("*"):
        assert path.is_dir() or b"order-4711" not in path.read_bytes(), path


def test_without_a_log_feedback_is_refused_clearly(start_gateway: Any) -> None:
    gateway = start_gateway("")
    request = urllib.request.Request(f"http://{gateway.http}/v2/feedback", b"{}")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)
    assert error.value.code == 501 and "prediction log" in json.load(error.value)["error"]


def test_another_key_of_hashes_in_its_file_counts_without_a_restart(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a key of hashes for tests")
    redact = '[[prediction_log.redact]]\nfield = "caller_id"\nhow = "hash"\n'
    rig = Rig(tmp_path, f'hash_key = "file:{key}"\n{redact}')
    rig.call([[0, 1, 0]], "order-4711")
    # As secrets are exchanged: the file is replaced as a whole.
    other = tmp_path / "other"
    other.write_text("another key of hashes for tests")
    other.rename(key)
    harness.wait_until(lambda: "key of hashes read again" in rig.gateway.log_text())
    prediction = rig.call([[0, 0, 1]], "order-4711")
    known(rig, prediction)
    assert rig.told({"caller_id": "order-4711", "label": "cow"}) == ["matched"]
    key.write_text("short")
    harness.wait_until(lambda: "cannot read the key of hashes again" in rig.gateway.log_text())
    rig.call([[1, 0, 0]], "order-4711")
    rig.gateway.stop()
    lines, _ = rig.export()
    lines.sort(key=lambda line: line["arrived"])
    first, second, third = (line["caller_id"] for line in lines)
    assert first != second == third and len(first) == len(second) == 32
    assert [line.get("label_text") for line in lines] == [None, "cow", "cow"]
