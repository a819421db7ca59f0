"""What plugin and tutor write is what `sessions:record` takes, field by field, limit by limit."""

from __future__ import annotations

import json
import shutil
import subprocess
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emma_agent.records import TUTOR_RECORD_TYPES
from livekit.plugins.convex import limits
from livekit.plugins.convex.encoding import Wire, role_of
from livekit.plugins.convex.records import RECORD_TYPES, Record, kind_of

ROOT = Path(__file__).parents[2]
EVERY_TYPE = (*RECORD_TYPES, *TUTOR_RECORD_TYPES)


@pytest.fixture(scope="module")
def convex_side() -> dict[str, Any]:
    """The exported validator, limits and codes of `convex/`."""
    local = ROOT / ".tools" / "bin" / "node"
    node = str(local) if local.exists() else shutil.which("node")
    assert node is not None, "Node is missing: run `make setup`"
    script = ROOT / "scripts" / "print-record-validator.ts"
    done = subprocess.run([node, script], capture_output=True, text=True, check=True, timeout=60)
    printed = json.loads(done.stdout)
    assert isinstance(printed, dict)
    return printed


@pytest.fixture(scope="module")
def validators(convex_side: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The object validator of each kind of record."""
    return by_kind(convex_side["record"])


@pytest.fixture(scope="module")
def ready(convex_side: dict[str, Any]) -> dict[str, Any]:
    """The same of the functions that the plugin brings for other people's projects."""
    ready = convex_side["ready"]
    assert isinstance(ready, dict)
    return ready


def by_kind(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kinds = record["value"]
    return {kind["value"]["kind"]["fieldType"]["value"]: kind["value"] for kind in kinds}


def as_convex_exports(record: type[Record]) -> dict[str, Any]:
    """The object validator of a kind of record, with what every record has."""
    return {
        **python_shape(record),
        "kind": {"fieldType": {"type": "literal", "value": kind_of(record)}, "optional": False},
        "seq": {"fieldType": {"type": "number"}, "optional": False},
    }


def python_shape(struct: type[Wire]) -> dict[str, Any]:
    """The struct as Convex exports an object validator's fields."""
    shape = {}
    for field in msgspec.structs.fields(struct):
        field_type = python_type(field.name, field.type)
        shape[field.encode_name] = {"fieldType": field_type, "optional": not field.required}
    return shape


def python_type(name: str, annotation: Any) -> dict[str, Any]:
    options = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
    bare = options[0] if type(None) in typing.get_args(annotation) else annotation
    match role_of(name, bare):
        case "instant" | "duration" | "number":
            return {"type": "number"}
        case "text" | "name":
            return {"type": "string"}
        case "flag":
            return {"type": "boolean"}
        case "choice":
            literals = [{"type": "literal", "value": value} for value in typing.get_args(bare)]
            return {"type": "union", "value": literals}
        case "struct":
            return {"type": "object", "value": python_shape(bare)}
        case "structs":
            item = typing.get_args(bare)[0]
            return {"type": "array", "value": {"type": "object", "value": python_shape(item)}}
        case other:
            raise AssertionError(f"{name}: a record of ours has a field of role {other}")


@pytest.mark.parametrize("record", EVERY_TYPE, ids=kind_of)
def test_every_field_of_a_kind_is_what_convex_validates(
    record: type[Record], validators: dict[str, dict[str, Any]]
) -> None:
    assert validators[kind_of(record)] == as_convex_exports(record)


@pytest.mark.parametrize("record", RECORD_TYPES, ids=kind_of)
def test_every_field_of_a_kind_is_what_the_ready_functions_validate(
    record: type[Record], ready: dict[str, Any]
) -> None:
    assert by_kind(ready["record"])[kind_of(record)] == as_convex_exports(record)


def test_the_ready_functions_know_the_plugins_kinds_limits_and_codes(ready: dict[str, Any]) -> None:
    assert set(by_kind(ready["record"])) == {kind_of(record) for record in RECORD_TYPES}
    assert ready["limits"] == {name: getattr(limits, name) for name in ready["limits"]}
    assert set(ready["permanentCodes"]) == limits.PERMANENT_CODES
    assert ready["recordVersions"][-1] == limits.RECORD_VERSION


def test_both_sides_know_the_same_kinds(validators: dict[str, dict[str, Any]]) -> None:
    assert set(validators) == {kind_of(record) for record in EVERY_TYPE}


def test_both_sides_have_the_same_limits(convex_side: dict[str, Any]) -> None:
    theirs = {name: value for name, value in convex_side["limits"].items() if "_MS" in name}
    theirs |= {name: value for name, value in convex_side["limits"].items() if name[:4] == "MAX_"}
    ours = {name: getattr(limits, name) for name in dir(limits) if name[:4] in ("MAX_", "MIN_")}

    assert theirs == ours


def test_convex_folds_the_version_that_this_plugin_writes(convex_side: dict[str, Any]) -> None:
    assert limits.RECORD_VERSION in convex_side["limits"]["RECORD_VERSIONS"]
    assert max(convex_side["limits"]["RECORD_VERSIONS"]) == limits.RECORD_VERSION


def test_both_sides_agree_on_what_condemns_a_record(convex_side: dict[str, Any]) -> None:
    assert set(convex_side["permanentCodes"]) == limits.PERMANENT_CODES
