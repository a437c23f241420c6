"""Answers of the admin port have the schemas that docs/openapi.yaml gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
import wire
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from ruamel.yaml import YAML

DOCUMENT = harness.ROOT / "docs" / "openapi.yaml"
URI = "urn:penstock:openapi"


@pytest.fixture(scope="module")
def document() -> Any:
    """The OpenAPI document."""
    return YAML(typ="safe").load(DOCUMENT)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Gateway]:
    """A gateway of identity models, with limits, so that every list has something in it."""
    repository = tmp_path_factory.mktemp("repository")
    harness.write_identity(repository, "FP32")
    settings = (
        '[[rate_limit]]\nname = "each"\nkey = "identity"\nrate = "1000/s"\n'
        '[[quota]]\nname = "all"\nkey = "global"\nmax_in_flight = 100\n'
    )
    running = harness.start(tmp_path_factory.mktemp("gateway"), repository, settings)
    yield running
    running.stop()


class Schemas:
    """Checks answers against the document."""

    def __init__(self, document: Any) -> None:
        self.document = document
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self.registry = Registry().with_resource(URI, resource)

    def _validator(self, pointer: str) -> Draft202012Validator:
        return Draft202012Validator({"$ref": f"{URI}#{pointer}"}, registry=self.registry)

    def check(self, method: str, template: str, answer: wire.Response) -> None:
        """Finds the schema of an answer by path, method and status, and holds it to that."""
        responses = self.document["paths"][template][method]["responses"]
        documented = responses.get(str(answer.status))
        assert documented, f"{method} {template}: {answer.status} is not documented: {answer}"
        escaped = template.replace("~", "~0").replace("/", "~1")
        pointer = f"/paths/{escaped}/{method}/responses/{answer.status}"
        if "$ref" in documented:
            pointer = documented["$ref"].removeprefix("#")
        pointer += "/content/application~1json/schema"
        problems = [
            f"{error.json_path}: {error.message}"
            for error in self._validator(pointer).iter_errors(answer.json())
        ]
        assert not problems, f"{method} {template} {answer.status}: {problems}"


@pytest.fixture(scope="module")
def schemas(document: Any) -> Schemas:
    """Checks answers against the document."""
    return Schemas(document)


def call(
    gateway: harness.Gateway,
    schemas: Schemas,
    method: str,
    template: str,
    body: Any = None,
    **path: Any,
) -> wire.Response:
    """Calls an endpoint of the admin port; the answer must be as documented."""
    target = re.sub(r"{(\w+)}", lambda found: str(path[found[1]]), template)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    answer = wire.request(gateway.admin, method.upper(), target, content)
    schemas.check(method, template, answer)
    return answer


def test_the_document_is_a_valid_one(document: Any) -> None:
    """Every reference leads somewhere, and every schema is one."""
    text = DOCUMENT.read_text()
    for reference in set(re.findall(r"\$ref: '#(/[^']+)'", text)):
        place = document
        for part in reference.strip("/").split("/"):
            place = place[part]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    identifiers = [
        operation["operationId"]
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    assert len(identifiers) == len(set(identifiers)), "an operation has an identifier of its own"


def test_the_admin_port_serves_the_document(gateway: harness.Gateway) -> None:
    """Byte for byte."""
    answer = wire.request(gateway.admin, "GET", "/v1/openapi.yaml")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/yaml"
    assert answer.body == DOCUMENT.read_bytes()


@pytest.mark.parametrize(
    "template",
    ["/v1/status", "/v1/limits", "/v1/breakers", "/v1/routes", "/v1/revisions", "/v1/upstreams"],
)
def test_what_is_read_is_as_documented(
    gateway: harness.Gateway, schemas: Schemas, template: str
) -> None:
    """Lists and pages."""
    assert call(gateway, schemas, "get", template).status == 200


def test_what_acts_on_the_process_is_as_documented(
    gateway: harness.Gateway, schemas: Schemas
) -> None:
    """Drain and breakers."""
    for on in (True, False):
        assert call(gateway, schemas, "post", "/v1/drain", {"on": on}).json()["drain"] is on
    assert call(gateway, schemas, "post", "/v1/drain", {"of": True}).status == 400
    template = "/v1/breakers/{model}/{version}/{action}"
    for action, state in (("trip", "open"), ("reset", "closed")):
        path = {"model": "identity_fp32", "version": 1, "action": action}
        assert call(gateway, schemas, "post", template, **path).json()["state"] == state
    path = {"model": "nobody", "version": 1, "action": "trip"}
    assert call(gateway, schemas, "post", template, **path).status == 404


def test_refusals_are_as_documented(gateway: harness.Gateway, schemas: Schemas) -> None:
    """Unknown routes and revisions, keys that nobody asked for, bodies that are too large."""
    for method, template in [
        ("get", "/v1/routes/{route}"),
        ("get", "/v1/routes/{route}/report"),
        ("delete", "/v1/routes/{route}/report"),
        ("delete", "/v1/routes/{route}/overlay"),
    ]:
        assert call(gateway, schemas, method, template, route="nobody").status == 404
    change = {"shares": {"canary": "10%"}}
    large = b" " * (65 << 10)
    wishes = [({}, 400), ({"shares": {}}, 400), ([], 400), (b"{", 400), (large, 413)]
    wishes += [({"shares": {"canary": "10"}}, 400), (change | {"more": 1}, 400), (change, 404)]
    for body, status in wishes:
        answer = call(gateway, schemas, "patch", "/v1/routes/{route}", body, route="nobody")
        assert answer.status == status, body
    assert call(gateway, schemas, "get", "/v1/revisions/{revision}", revision=999999).status == 404
    assert call(gateway, schemas, "post", "/v1/rollback", {"to": "x"}).status == 400


def test_the_text_of_a_file_is_checked(gateway: harness.Gateway, schemas: Schemas) -> None:
    """What is wrong with it is an answer and no error."""
    answer = call(gateway, schemas, "post", "/v1/check", b"version = 1\nunknown = 2\n")
    assert answer.status == 200 and answer.json()["problems"], answer
    text = (Path(gateway.log).parent / "penstock.toml").read_bytes()
    answer = call(gateway, schemas, "post", "/v1/check", text)
    assert answer.json() == {"problems": [], "diff": [], "needs_restart": []}
