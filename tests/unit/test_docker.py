"""What can be known of docker/ without a Docker engine: schema, variables, files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from emma_agent.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
EXAMPLE = (DOCKER / ".env.example").read_text()

VARIABLES_OF_SETTINGS = {str(field.validation_alias) for field in Settings.model_fields.values()}


def service(name: str) -> dict[str, Any]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    return services[name]


def explained() -> set[str]:
    """Variables of .env.example, each with a comment over it."""
    blocks = re.findall(r"^#.*\n((?:[A-Z_]+=.*\n)+)", EXAMPLE, re.MULTILINE)
    return set(re.findall(r"^([A-Z_]+)=", "".join(blocks), re.MULTILINE))


def test_compose_file_is_valid() -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("check-jsonschema")),
            *("--builtin-schema", "vendor.compose-spec", str(DOCKER / "compose.yaml")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))

    assert used == explained()


def test_every_setting_is_explained() -> None:
    assert set(re.findall(r"[A-Z]+_[A-Z_]+", EXAMPLE)) >= VARIABLES_OF_SETTINGS


def test_defaults_are_the_settings_own() -> None:
    example = dict(re.findall(r"^([A-Z_]+)=(.+)$", EXAMPLE, re.MULTILINE))
    own = {
        str(field.validation_alias): field.default
        for field in Settings.model_fields.values()
        if field.default is not None
    }

    assert {name: example[name] for name in own} == own


def test_defaults_are_the_same_in_both_places() -> None:
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE))
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))

    assert {name: example[name] for name in defaults} == defaults


def test_the_worker_is_given_only_variables_that_it_reads() -> None:
    assert set(service("worker")["environment"]) <= VARIABLES_OF_SETTINGS


def test_the_worker_starts_with_what_the_compose_file_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Empty values, as those of a variable that is not filled in, count as unset."""
    for name in VARIABLES_OF_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in service("worker")["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{[A-Z_]+(:-([^}]*)|:\?[^}]*)?\}", r"\2", value))

    settings = Settings.load()

    assert settings.deployment_url == "http://convex:3210"
    assert settings.openai_base_url is None


def test_the_outbox_outlives_the_container() -> None:
    (volume,) = service("worker")["volumes"]
    environment = {
        name: value
        for step in DockerfileParser(path=str(DOCKER / "Dockerfile")).structure
        if step["instruction"] == "ENV"
        for name, value in re.findall(r"([A-Z_]+)=(\S+)", step["value"])
    }

    assert volume.split(":")[1] == environment["EMMA_OUTBOX_DIR"]


def test_what_the_images_copy_is_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in ("Dockerfile", "deploy.Dockerfile"):
        for step in DockerfileParser(path=str(DOCKER / name)).structure:
            if step["instruction"] != "COPY" or "--from=" in step["value"]:
                continue
            for source in step["value"].split()[:-1]:
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert f"!{source.split('/')[0]}" in ignored, f".dockerignore hides {source}"


def test_the_admin_key_never_reaches_the_worker() -> None:
    worker = yaml.safe_dump(service("worker"))

    assert "ADMIN" not in worker.upper()
