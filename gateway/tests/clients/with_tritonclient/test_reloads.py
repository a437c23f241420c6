"""The configuration file is followed however it changes, and no call notices."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

import harness
import wire
from harness import metric, wait_until
from load import under_load, wait_for_answers
from routed import CANARY, MODEL, Rig, two_versions

StartRig = Callable[..., Rig]


def replace(path: Path, text: str) -> None:
    """Puts a file in place at once, as editors and tools of operators do."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)


def canary_is(rig: Rig, share: str) -> None:
    """Waits until the canary has this share."""
    target = f"/v1/routes/{MODEL}"

    def holds() -> bool:
        arms = rig.ask("GET", target).json()["arms"]
        return {arm["name"]: arm["share"] for arm in arms}["canary"] == share

    wait_until(holds)


def test_renamed_files_are_taken_under_calls(start_rig: StartRig) -> None:
    rig = start_rig(watch="1h")
    with under_load(rig.gateway) as book:
        for share in ("30%", "70%", "5%"):
            replace(rig.file, rig.text(CANARY.replace("20%", share)))
            canary_is(rig, share)
            wait_for_answers(book)
    assert not book.failed, book.failed[:3]
    assert metric(rig.gateway, "penstock_config_reloads_total", result="applied") == 3


def test_a_config_map_is_taken_when_its_link_changes(start_rig: StartRig, tmp_path: Path) -> None:
    """The file is a link into a folder that is a link, and only that one is exchanged."""
    (tmp_path / "..1").mkdir()
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "penstock.toml").symlink_to("..data/penstock.toml")
    rig = start_rig(watch="1h")
    with under_load(rig.gateway) as book:
        for number, share in enumerate(("30%", "70%"), start=2):
            folder = tmp_path / f"..{number}"
            folder.mkdir()
            (folder / "penstock.toml").write_text(rig.text(CANARY.replace("20%", share)))
            (tmp_path / "..new").symlink_to(folder.name)
            os.replace(tmp_path / "..new", tmp_path / "..data")
            canary_is(rig, share)
            wait_for_answers(book)
    assert not book.failed, book.failed[:3]


def test_files_are_found_by_looking_where_nothing_tells_of_them(start_rig: StartRig) -> None:
    """A link to a folder far away, such as a mount: only a look now and then finds changes."""
    rig = start_rig(watch="200ms")
    rig.write(CANARY.replace("20%", "45%"))
    canary_is(rig, "45%")


def test_a_signal_makes_it_read_the_file(start_rig: StartRig) -> None:
    rig = start_rig()
    with under_load(rig.gateway) as book:
        for share in ("30%", "70%"):
            rig.write(CANARY.replace("20%", share))
            rig.gateway.process.send_signal(signal.SIGHUP)
            canary_is(rig, share)
            wait_for_answers(book)
    assert not book.failed, book.failed[:3]


def test_half_a_file_changes_nothing_and_the_whole_one_does(start_rig: StartRig) -> None:
    """What is torn is no file; what completes it is."""
    rig = start_rig(watch="1h")
    whole = rig.text(CANARY.replace("20%", "30%"))
    cut = whole.index("[[route.arm]]") + len("[[route.")
    with under_load(rig.gateway) as book:
        rig.file.write_text(whole[:cut])
        wait_until(lambda: metric(rig.gateway, "penstock_config_valid") == 0)
        assert rig.shares()["canary"] == "20%"
        wait_for_answers(book)
        with rig.file.open("a") as file:
            file.write(whole[cut:])
        canary_is(rig, "30%")
    assert not book.failed, book.failed[:3]
    assert metric(rig.gateway, "penstock_config_valid") == 1


def test_another_salt_is_warned_of(start_rig: StartRig) -> None:
    """By the check beforehand and by the reload."""
    rig = start_rig()
    salted = CANARY.replace("testers", 'salt = "other"\ntesters')
    warning = f"route '{MODEL}': warning: all callers are divided anew"
    text = rig.text(salted).encode()
    checked = wire.request(rig.gateway.admin, "POST", "/v1/check", text).json()
    assert checked["problems"] == [] and warning in checked["diff"], checked
    rig.write(salted)
    assert warning in rig.done("reload")["diff"]


def unlike(folder: Path) -> None:
    """A model of another type beside the usual ones."""
    two_versions(folder)
    harness.write_identity(folder, "INT32")


def test_arms_that_do_not_fit_each_other_are_refused_with_their_place(
    start_rig: StartRig,
) -> None:
    rig = start_rig(prepare=unlike)
    before = rig.done("route", "list")
    rig.write(CANARY.replace('version = "2"', 'model = "identity_int32"'))
    refused = rig.run("reload")
    assert refused.returncode == 64
    place = f"route[{MODEL}].arm[canary].version: does not fit arm 'stable': "
    assert place in refused.stderr and "FP32" in refused.stderr, refused.stderr
    assert rig.done("route", "list") == before


def test_what_a_route_pins_cannot_be_unloaded(start_rig: StartRig) -> None:
    """It goes on answering."""
    rig = start_rig()
    target = f"/v2/repository/models/{MODEL}/unload"

    def unload(parameters: dict[str, str]) -> wire.Response:
        body = json.dumps({"parameters": parameters}).encode()
        return wire.request(rig.gateway.http, "POST", target, body)

    for parameters in ({"version": "2"}, {}):
        answer = unload(parameters)
        assert answer.status == 409, answer
        assert "the routes name" in answer.error()
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        with pytest.raises(InferenceServerException, match="stays") as refused:
            client.unload_model(MODEL)
    assert refused.value.status() == "StatusCode.ABORTED"
    assert rig.infer(path="/versions/2").status == 200
