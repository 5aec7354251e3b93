"""PostgreSQL and Valkey as the supervisor runs them."""

import os
import signal
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
import redis

from django_chain.embedded import process
from django_chain.embedded.errors import Misconfigured
from django_chain.embedded.places import Places
from django_chain.embedded.postgres import Postgres
from django_chain.embedded.valkey import Valkey


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True)


def _ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def test_postgres_answers_with_vectors_and_keeps_data_over_every_kind_of_restart(tmp_path: Path) -> None:
    with Postgres(tmp_path, fast=True) as server:
        with _connect(server.url) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute("CREATE TABLE seen (at vector(3))")
            connection.execute("INSERT INTO seen VALUES ('[1,2,3]')")
        url = server.url
        assert server.restart() == url
        assert server.restart(immediate=True) == url
        with _connect(url) as connection:
            nearest = connection.execute("SELECT at <=> '[1,2,3]' FROM seen").fetchone()
        assert nearest == (0.0,)
    assert not server.running


def test_valkey_comes_back_empty_at_the_same_address(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "no")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            _ping(server.url)
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") is None
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_several_run_side_by_side(tmp_path: Path) -> None:
    with Postgres(tmp_path / "a", fast=True) as a, Postgres(tmp_path / "b", fast=True) as b:
        assert a.url != b.url
        for server in (a, b):
            with _connect(server.url) as connection:
                assert connection.execute("SELECT current_database()").fetchone() == ("chain",)
    with Valkey(tmp_path / "a") as one, Valkey(tmp_path / "b") as two:
        assert _ping(one.url)
        assert _ping(two.url)
        assert one.url != two.url


def test_a_long_data_directory_gets_a_short_place_for_its_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("and longer " * 10).strip()
    with Postgres(deep, fast=True) as server, Valkey(deep) as valkey:
        directory = Path(unquote(urlsplit(server.url).netloc.partition("@")[2]))
        assert len(str(directory)) < 80
        with _connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert _ping(valkey.url)
    assert (deep / "postgres" / "PG_VERSION").exists()


def test_a_foreign_directory_in_the_temporary_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(tmp_path / ("long" * 25))
    monkeypatch.setattr("tempfile.tempdir", "/tmp" if len(str(tmp_path)) > 40 else str(tmp_path))
    directory = places.sockets("test", None)
    try:
        directory.chmod(0o777)
        with pytest.raises(Misconfigured, match="not a private directory"):
            places.sockets("test", None)
    finally:
        directory.rmdir()


def test_only_the_user_who_started_it_is_admitted(tmp_path: Path) -> None:
    with Postgres(tmp_path, fast=True) as server:
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            psycopg.connect(server.url, user="postgres")
        directory = Path(unquote(urlsplit(server.url).netloc.partition("@")[2]))
        assert directory.stat().st_mode & 0o077 == 0


def test_the_lock_of_a_crashed_server_whose_id_another_program_has_does_not_bar_the_start(tmp_path: Path) -> None:
    server = Postgres(tmp_path, fast=True)
    with server:
        lock = (tmp_path / "postgres" / "postmaster.pid").read_text()
    stale = tmp_path / "postgres" / "postmaster.pid"
    stale.write_text(lock.replace(lock.splitlines()[0], str(os.getpid()), 1))
    owner = (tmp_path / "postgres").stat()
    os.chown(stale, owner.st_uid, owner.st_gid)
    with server, _connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_orphan_is_stopped_in_order_before_the_next_start(tmp_path: Path) -> None:
    first = Postgres(tmp_path, fast=True)
    first.start()
    orphan = first.pid
    assert orphan is not None
    was = process.identity(orphan)
    # A second supervisor, as after a crash of the first where the kernel did not end the children.
    with Postgres(tmp_path, fast=True) as second:
        assert second.pid != orphan
        assert process.identity(orphan) != was
        with _connect(second.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    first.stop()
    log = (tmp_path / "logs" / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "not properly shut down" not in log


def test_a_recycled_process_id_is_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "someone.json"
    record.write_text(f'{{"pid": {os.getpid()}, "identity": "another boot/1"}}')
    process.stop_orphan(record, (signal.SIGKILL,), patience=1)
    assert not record.exists()


def test_a_program_that_ends_while_it_starts_is_reported_with_its_log(tmp_path: Path) -> None:
    with Postgres(tmp_path, fast=True) as server:
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    begun = time.monotonic()
    with pytest.raises(process.StartError, match="incompatible with server"):
        server.start()
    assert time.monotonic() - begun < 10
