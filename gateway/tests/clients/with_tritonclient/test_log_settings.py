"""The logging extension: reading, changing, and what cannot be changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http

from calls import FORBIDDEN, INVALID, UNSUPPORTED, refusal
from harness import wait_until

STARTED = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True,
    "log_verbose_level": 0, "log_format": "default",
}  # fmt: skip


def settings(client: Any, change: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings after an optional change, as plain values."""
    call = client.get_log_settings if change is None else client.update_log_settings
    arguments = {} if change is None else {"settings": change}
    if client.protocol == "http":
        return call(**arguments)
    message = call(**arguments)
    found = {}
    for key, value in message.settings.items():
        found[key] = getattr(value, value.WhichOneof("parameter_choice"))
    return found


@pytest.fixture
def restored(client: Any) -> Iterator[Any]:
    """A client whose changes are undone."""
    yield client
    settings(
        client, {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0}
    )


def test_all_settings_are_told(client: Any) -> None:
    assert settings(client) == STARTED


def test_changes_are_answered_with_the_new_settings_and_stay(restored: Any) -> None:
    changed = settings(restored, {"log_info": False})
    assert changed == STARTED | {"log_info": False}
    assert settings(restored) == changed
    assert settings(restored, {"log_verbose_level": 1}) == STARTED | {"log_verbose_level": 1}


def test_severities_are_a_ladder_and_the_answer_says_so(restored: Any) -> None:
    """Who wants to see warnings sees errors too, whatever was asked."""
    assert settings(restored, {"log_error": False}) == STARTED


@pytest.mark.parametrize("change", [{"log_file": "/tmp/elsewhere"}, {"log_format": "ISO8601"}])
def test_where_and_how_to_log_is_fixed(client: Any, change: dict[str, str]) -> None:
    status, text = refusal(lambda: settings(client, change))
    assert status in UNSUPPORTED and next(iter(change)) in text


@pytest.mark.parametrize(
    "change",
    [{"log_colour": True}, {"log_info": "yes"}, {"log_verbose_level": -1}, {"log_error": None}],
)
def test_wrong_changes_are_refused_whole(http_client: Any, change: dict[str, Any]) -> None:
    wrong = {"log_warning": False} | change
    status, text = refusal(lambda: http_client.update_log_settings(wrong))
    assert status in INVALID and next(iter(change)) in text
    assert http_client.get_log_settings() == STARTED


def test_verbose_logging_shows_what_was_refused(start_gateway: Any) -> None:
    quiet = start_gateway('[log]\nlevel = "warn"\nformat = "json"\n')
    with tritonclient.http.InferenceServerClient(quiet.http) as client:
        assert client.get_log_settings() == STARTED | {"log_info": False}
        refusal(lambda: client.infer("nobody", []))
        assert "nobody" not in quiet.log_text()
        client.update_log_settings({"log_verbose_level": 1})
        refusal(lambda: client.infer("nobody", []))
        wait_until(lambda: "nobody" in quiet.log_text())


def test_with_control_off_settings_can_be_read_only(start_gateway: Any) -> None:
    closed = start_gateway('control = "off"\n')
    with tritonclient.http.InferenceServerClient(closed.http) as http:
        assert http.get_log_settings() == STARTED
        assert refusal(lambda: http.update_log_settings({"log_info": False}))[0] == FORBIDDEN[0]
    with tritonclient.grpc.InferenceServerClient(closed.grpc) as grpc:
        grpc.get_log_settings()
        assert refusal(lambda: grpc.update_log_settings({"log_info": False}))[0] == FORBIDDEN[1]
