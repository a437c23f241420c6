"""A shadow sees the calls of a route; the report compares it with what callers got."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tritonclient.grpc

import harness
from calls import grpc_inputs
from harness import metric, wait_until
from routed import MODEL, X, Rig, parameters

StartRig = Callable[..., Rig]

SHADOWED = f"""
[[route]]
name = "{MODEL}"
  [[route.arm]]
  name = "stable"
  [[route.shadow]]
  name = "candidate"
  model = "tags"
  sample = "SAMPLE"
"""
TAGS = "identity_bool"


def routes(sample: str, model: str = MODEL) -> str:
    """A route with a shadow that is another model."""
    text = SHADOWED.replace("SAMPLE", sample).replace('"tags"', f'"shadow_of_{model}"')
    return text.replace(f'name = "{MODEL}"', f'name = "{model}"')


def models(folder: Path) -> None:
    """Two models of floats that do the same, and two of flags."""
    for dtype in ("FP32", "BOOL"):
        harness.write_identity(folder, dtype)
        harness.write_identity(folder, dtype, name=f"shadow_of_identity_{dtype.lower()}")


def compared(rig: Rig, route: str, calls: int) -> None:
    """Waits until the shadow has been compared for so many calls."""
    labels = {"route": route, "shadow": "candidate", "outcome": "compared"}
    wait_until(lambda: metric(rig.gateway, "penstock_shadow_requests_total", **labels) == calls)


def test_the_report_of_a_shadow_that_answers_alike(start_rig: StartRig) -> None:
    """Callers get the live answer alone; what the shadow made of it is in the report."""
    rig = start_rig(routes("100%"), prepare=models)
    for _ in range(30):
        answer = rig.infer()
        assert answer.json()["model_name"] == MODEL and parameters(answer)["arm"] == "stable"
    compared(rig, MODEL, 30)
    told = rig.done("route", "report", MODEL)
    [report] = told["shadows"]
    assert (report["name"], report["calls"], report["rows"]) == ("candidate", 30, 30)
    assert report["errors"] == {} and report["failed"]["count"] == 0
    assert report["lane"]["sampled"] == 30
    [output] = report["outputs"]
    assert (output["name"], output["kind"]) == ("y", "vector")
    assert output["difference"]["max"] == 0 and abs(output["cosine"]["min"] - 1) < 1e-6
    shown = rig.run("route", "report", MODEL)
    assert shown.returncode == 0 and "candidate" in shown.stdout, shown
    rig.done("route", "report", MODEL, "--reset")
    [report] = rig.done("route", "report", MODEL)["shadows"]
    assert report["calls"] == 0


def test_what_is_no_float_agrees_wholly(start_rig: StartRig) -> None:
    """Agreement 1.0, by the report and by the metric, over gRPC."""
    rig = start_rig(routes("100%", TAGS), prepare=models)
    flags = {"x": np.array([[True, False]])}
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        for _ in range(20):
            client.infer(TAGS, grpc_inputs(flags))
    compared(rig, TAGS, 20)
    [report] = rig.done("route", "report", TAGS)["shadows"]
    [output] = report["outputs"]
    assert output["kind"] == "exact"
    assert (output["agreement"]["share"], output["agreement"]["of"]) == (1.0, 20)
    assert output["equal_elements"]["share"] == 1.0
    agreement = metric(rig.gateway, "penstock_shadow_agreement", route=TAGS, shadow="candidate")
    assert agreement == 1.0


def test_a_shadow_sees_a_part_of_the_callers(start_rig: StartRig) -> None:
    """Those that it sees it sees always."""
    rig = start_rig(routes("50%"), prepare=models)

    def sampled() -> int:
        [report] = rig.done("route", "report", MODEL)["shadows"]
        return report["lane"]["sampled"]

    for user in range(60):
        rig.infer(penstock_key=f"user-{user}")
    first = sampled()
    assert 15 < first < 45
    for user in range(60):
        rig.infer(penstock_key=f"user-{user}")
    assert sampled() == 2 * first
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        for user in range(60):
            headers = {"penstock-key": f"user-{user}"}
            client.infer(MODEL, grpc_inputs({"x": X}), headers=headers)
    assert sampled() == 3 * first
