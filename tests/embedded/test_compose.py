"""compose.yaml: what production needs is there, and no secret is."""

import getpass
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
import yaml

from django_chain.embedded import postgres

_ROOT = Path(__file__).resolve().parents[2]
_TEXT = (_ROOT / "compose.yaml").read_text()
_SERVICES: dict[str, Any] = yaml.safe_load(_TEXT)["services"]
_GIVEN = {"SECRET_KEY": "s", "POSTGRES_PASSWORD": "p", "ALLOWED_HOSTS": "chat.example.com", "OPENAI_API_KEY": "k"}


def _seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def _compose() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            version = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if re.match(r"v?[2-9]", version.stdout):
                return command
    return None


def test_docker_compose_accepts_it() -> None:
    compose = _compose()
    if compose is None:
        pytest.skip("there is no docker compose 2 on this machine")
    command = [*compose, "-f", "compose.yaml", "config", "--quiet"]
    accepted = subprocess.run(command, cwd=_ROOT, env=os.environ | _GIVEN, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stderr


def test_the_services_of_production_are_there() -> None:
    assert set(_SERVICES) == {"app", "worker", "beat", "migrate", "db", "valkey"}
    assert _SERVICES["db"]["image"] == "pgvector/pgvector:pg18"
    assert _SERVICES["worker"]["command"][:4] == ["celery", "-A", "django_chain", "worker"]
    assert _SERVICES["beat"]["command"][:4] == ["celery", "-A", "django_chain", "beat"]


def test_every_service_is_checked_or_says_that_it_is_not() -> None:
    for name, service in _SERVICES.items():
        check = service["healthcheck"]
        assert "test" in check or check == {"disable": True}, name
    assert "/readyz" in _SERVICES["app"]["healthcheck"]["test"][-1]
    compile(_SERVICES["app"]["healthcheck"]["test"][-1], "healthcheck", "exec")


def test_dependencies_exist_and_the_app_waits_for_its_tables() -> None:
    for name, service in _SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(_SERVICES), name
    for name in ("app", "worker", "beat"):
        assert _SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert _SERVICES[name]["depends_on"]["db"] == {"condition": "service_healthy"}


def test_docker_waits_longer_than_the_server_drains() -> None:
    grace = re.search(r'"--timeout-graceful-shutdown", "(\d+)"', (_ROOT / "Dockerfile").read_text())
    assert grace is not None
    assert _seconds(_SERVICES["app"]["stop_grace_period"]) > int(grace[1])


def test_no_secret_stands_in_it() -> None:
    for service in _SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|KEY|TOKEN", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    passwords = re.findall(r"://\w+:(.+?)@", _TEXT)
    assert passwords == ["${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"]


def test_the_application_is_no_superuser_in_its_database(tmp_path: Path) -> None:
    script = yaml.safe_load(_TEXT)["configs"]["application-role"]["content"].replace("$$", "$")
    given = _SERVICES["db"]["environment"] | {"POSTGRES_PASSWORD": "it's \"$secret\\"}
    with postgres.Postgres(tmp_path, fast=True) as server:
        # As in the image: the superuser may come in by the socket.
        identities = tmp_path / "postgres" / "pg_ident.conf"
        identities.write_text(f"{identities.read_text()}us {getpass.getuser()} postgres\n")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGHUP)
        sockets = unquote(urlsplit(server.url).netloc.split("@")[1])
        psql = postgres._binary("psql").parent
        env = os.environ | given | {"PATH": f"{psql}:{os.environ['PATH']}", "PGHOST": sockets}
        with psycopg.connect(host=sockets, user="postgres", dbname="postgres", autocommit=True) as admin:
            for kind in ("DATABASE", "ROLE"):
                admin.execute(f"ALTER {kind} chain RENAME TO earlier")
            admin.execute("CREATE DATABASE chain TEMPLATE template0")
            admin.execute("ALTER ROLE postgres PASSWORD 'known'")
        subprocess.run(["sh", "-c", script], env=env, check=True, timeout=60)
        with psycopg.connect(server.url) as ours:
            ours.execute("CREATE TABLE made (v vector(3))")
            assert ours.execute(
                "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
            ).fetchone() == (False, False, False)
        with psycopg.connect(host=sockets, user="postgres", dbname="postgres") as admin:
            passwords = dict(admin.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin").fetchall())
        assert passwords["postgres"] is None
        assert passwords["chain"].startswith("SCRAM-SHA-256$")


def test_named_volumes_are_declared() -> None:
    used = {mount.split(":")[0] for service in _SERVICES.values() for mount in service.get("volumes", [])}
    assert used == set(yaml.safe_load(_TEXT)["volumes"])
