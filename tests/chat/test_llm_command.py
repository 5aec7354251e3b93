"""`manage.py llm` against the test database and the scripted provider."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from llm.models import InteractionLog, ModelConfig, ModelPrice
from tests.conftest import Person
from tests.support.scripted_provider import ScriptedProvider, ok, status, text
from tests.support.server import ROOT, Server

KEY = "sk-a-key-nobody-may-see"


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def run(live_database: None, server_env: dict[str, str], settings: Any, monkeypatch: Any, provider: Any) -> Run:
    """`run("list", "--json")`: its exit code and what it said. `llm` are parts of the setting, `env` variables."""
    monkeypatch.delenv("DJANGO_CHAIN_TOKEN", raising=False)
    options = {"base_url": provider.base_url, "api_key": "sk-test-not-a-key"}
    scripted = {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": options, "MAX_RETRIES": 0}
    models = {"default": scripted, "fake": {"PROVIDER": "fake", "MODEL": "fake"}}

    def start(*arguments: str, stdin: str = "", llm: dict[str, Any] | None = None, **env: str) -> Said:
        settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"LLM": {"MODELS": models, **(llm or {})}}
        out, err = StringIO(), StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", StringIO(stdin))
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                call_command("llm", *arguments, stdout=out, stderr=err)
            except CommandError as error:
                return Said(error.returncode, out.getvalue(), f"CommandError: {error}\n")
        return Said(0, out.getvalue(), err.getvalue())

    return start


def process(*arguments: str, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "llm", *arguments],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | env,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


@pytest.fixture(autouse=True)
def _global_rows_go(live_database: None) -> Iterator[None]:
    yield
    ModelConfig.objects.filter(workspace=None).delete()
    ModelPrice.objects.all().delete()


def row_of(said: Said, **wanted: Any) -> dict[str, Any]:
    (found,) = [row for row in said.json if wanted.items() <= row.items()]
    return dict(found)


# Models ---------------------------------------------------------------------------------------------------------------


def test_models_are_listed_with_where_they_come_from_their_key_and_their_price(run):
    routes = {"ROUTES": {"both": {"MODELS": ["default", "fake"]}}}
    ModelPrice.objects.create(model_name="fake", input_price=1, output_price=1, valid_from=timezone.now())
    said = run("list", "--json", llm=routes)
    assert row_of(said, alias="default") == {
        "alias": "default",
        "from": "settings",
        "provider": "openai",
        "model": "scripted",
        "key": True,
        "price": False,
        "route": None,
    }
    assert row_of(said, alias="fake")["price"] is True
    assert row_of(said, alias="both")["route"] == "fallback: default, fake"
    table = run("list", llm=routes)
    lines = [line.split() for line in table.out.splitlines()]
    assert lines[0] == ["alias", "from", "provider", "model", "key", "price", "route"]
    assert ["default", "settings", "openai", "scripted", "yes", "no", "-"] in lines


def test_an_alias_is_set_for_all_and_for_one_workspace_and_unset_again(run, person):
    workspace = str(person.user.personal_workspace.id)
    assert run("set", "quick", "--provider", "fake", "--model", "fake", "--option", "temperature=0.5").code == 0
    assert row_of(run("list", "--json"), alias="quick")["from"] == "global"
    assert ModelConfig.objects.get(alias="quick").options == {"temperature": 0.5}
    assert run("set", "quick", "--model", "mine", "--workspace", workspace, "--bound", "TOTAL_TIMEOUT=60").code == 0
    mine = row_of(run("list", "--workspace", workspace, "--json"), alias="quick")
    assert (mine["from"], mine["model"]) == ("workspace", "mine")
    assert run("unset", "quick", "--workspace", workspace).code == 0
    assert row_of(run("list", "--workspace", workspace, "--json"), alias="quick")["from"] == "global"
    assert run("set", "all", "--route", "quick,default", "--strategy", "weighted", "--weights", "3,1").code == 0
    assert ModelConfig.objects.get(alias="all").route["weights"] == [3, 1]
    assert run("unset", "all").code == 0
    assert run("unset", "quick").code == 0
    gone = run("unset", "quick")
    assert (gone.code, gone.err.startswith("CommandError: not_found")) == (1, True)


def test_a_key_comes_from_the_standard_input_or_a_variable_and_is_never_shown(run):
    base = ("set", "mine", "--provider", "openai", "--model", "m")
    for way, given in ((("--key-stdin",), {"stdin": KEY + "\n"}), (("--key-from", "HERE"), {"HERE": KEY})):
        said = run(*base, *way, **given)
        assert said.code == 0, said.err
        assert KEY not in said.out + said.err
        row = ModelConfig.objects.get(alias="mine")
        assert row.encrypted_key
        assert KEY not in row.encrypted_key
        ModelConfig.objects.all().delete()
    assert run(*base, "--key-stdin").err == "CommandError: The standard input holds no key.\n"
    assert "'HERE' is not set" in run(*base, "--key-from", "HERE").err
    # A list of processes would show it.
    refused = run(*base, "--key", KEY)
    assert refused.code != 0
    assert not ModelConfig.objects.exists()


def test_keys_are_encrypted_anew_and_can_still_be_read(run):
    old, new = "o" * 43 + "=", "n" * 43 + "="
    before = {"ENCRYPTION_KEYS": [old]}
    assert run("set", "mine", "--provider", "openai", "--model", "m", "--key-stdin", stdin=KEY, llm=before).code == 0
    first = ModelConfig.objects.get(alias="mine").encrypted_key
    both = {"ENCRYPTION_KEYS": [new, old]}
    assert run("rotate-keys", "--json", llm=both).json == {"keys": 1}
    assert ModelConfig.objects.get(alias="mine").encrypted_key != first
    only_new = {"ENCRYPTION_KEYS": [new]}
    assert run("rotate-keys", "--json", llm=only_new).json == {"keys": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "a b", "--provider", "fake", "--model", "m"), "An alias is"),
        (("set", "a", "--provider", "nobody", "--model", "m"), "no LLM provider 'nobody'"),
        (("set", "a", "--option", "temperature"), "has not the form NAME=VALUE"),
        (("set", "a", "--weights", "1"), "belong to a --route"),
        (("list", "--workspace", "x"), "no workspace 'x'"),
        (("test", "nobody"), "There is no model 'nobody'"),
        (("prices", "--set", "gpt"), "PROVIDER/MODEL"),
        (("prices", "--set", "openai/gpt", "--input", "1"), "needs --input and --output"),
        (("prices", "--set", "openai/gpt", "--input", "x", "--output", "1"), "'x' is no amount"),
        (("prices", "--set", "a/b", "--input", "1", "--output", "1", "--from", "soon"), "'soon' is no day"),
        (("prices", "--input", "1"), "belong to --set"),
        (("stats", "--days", "0"), "--days takes 1 to"),
        (("stats", "--by", "colour"), "can't be grouped by 'colour'"),
        (("caches", "--url", "ftp://x"), "http://host:port"),
        (("caches", "--url", "http://127.0.0.1:1", "--user", "nobody"), "no such person among the staff"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_done_says_why(run, arguments, said):
    done = run(*arguments)
    assert done.code == 1
    assert said in done.err


# Trying one -----------------------------------------------------------------------------------------------------------


def test_a_model_is_tried_with_its_times_its_tokens_and_its_cost(run, provider: ScriptedProvider):
    marker = provider.script("try", text("Good ", "day\x1b[2J"), ok())
    ModelPrice.objects.create(model_name="scripted", input_price=100, output_price=1000, valid_from=timezone.now())
    said = run("test", "--question", marker, "--json").json
    assert (said["alias"], said["answer"], said["finish_reason"]) == ("default", "Good day\x1b[2J", "stop")
    assert (said["input_tokens"], said["output_tokens"], said["estimated"]) == (11, 2, False)
    assert Decimal(said["cost"]) == Decimal("0.0031")
    assert 0 <= said["first_token_ms"] <= said["latency_ms"]
    shown = run("test", "default", "--question", marker)
    assert "\x1b[2J" not in shown.out
    assert "0.0031" in shown.out


def test_a_failure_is_typed_and_has_its_exit_code(run, provider):
    marker = provider.script("denied", status(401))
    said = run("test", "--question", marker)
    assert said.code == 1
    assert said.err.startswith("CommandError: provider_misconfigured: ")
    assert "sk-secret" not in said.err


def test_a_trial_in_a_workspace_is_in_its_log(run, provider, person):
    workspace = person.user.personal_workspace.id
    marker = provider.script("logged", text("Yes."), ok())
    assert run("test", "--question", marker, "--workspace", str(workspace)).code == 0
    denied = provider.script("logged-denied", status(401))
    assert run("test", "--question", denied, "--workspace", str(workspace)).code == 1
    rows = InteractionLog.objects.filter(workspace_id=workspace).order_by("id")
    assert [(row.status, row.error_category, row.output_tokens) for row in rows] == [
        ("ok", "", 1),
        ("failed", "provider_misconfigured", rows[1].output_tokens),
    ]


# Prices and figures ---------------------------------------------------------------------------------------------------


def test_prices_are_set_shown_and_missed(run):
    missing = run("prices", "check", "--json")
    assert missing.code == 1
    assert {"provider": "openai", "model": "scripted", "used_in": "settings"} in missing.json
    assert run("prices", "--set", "openai/scripted", "--input", "0.15", "--output", "0.6", "--cached", "0.05").code == 0
    assert run("prices", "--set", "/fake", "--input", "1", "--output", "1", "--from", "2026-01-31").code == 0
    said = run("prices", "--json")
    assert row_of(said, model="scripted")["cached_input"] == "0.050000"
    assert row_of(said, model="fake")["valid_from"] == "2026-01-31T00:00:00+00:00"
    InteractionLog.objects.filter(cost=None).delete()
    done = run("prices", "check")
    assert (done.code, done.out) == (0, "Every model in use has a price.\n")


def called(person: Person, **values: Any) -> None:
    known = {"model_name": "m", "provider": "p", "status": "ok", "finished_at": timezone.now()}
    InteractionLog.objects.create(
        workspace=person.user.personal_workspace, user=person.user, run_id=uuid4(), **known | values
    )


@pytest.fixture
def day(person: Person) -> str:
    """Four answers, one failure, one answer given again, and one call of last week."""
    for first, whole in ((100, 1000), (200, 2000), (300, 3000), (400, 4000)):
        called(person, first_token_ms=first, latency_ms=whole, input_tokens=10, output_tokens=5, cost=Decimal("0.01"))
    called(person, status="failed", error_category="provider_timeout", input_tokens=10)
    called(person, status="cached", first_token_ms=1, latency_ms=1, cost=0)
    called(person, model_name="n", output_tokens=1)
    called(person, output_tokens=1_000_000)
    InteractionLog.objects.filter(output_tokens=1_000_000).update(created_at=timezone.now() - timedelta(days=7))
    return str(person.user.personal_workspace.id)


def test_figures_say_what_was_called_what_it_cost_how_long_it_took_and_what_failed(run, day, person):
    said = run("stats", "--workspace", day, "--by", "model,user", "--json")
    one = row_of(said, model="m")
    assert (one["user"], one["calls"], one["cached"], one["failed"]) == (person.user.username, 5, 1, 1)
    assert (one["input_tokens"], one["output_tokens"], Decimal(one["cost"])) == (50, 20, Decimal("0.04"))
    assert one["failures"] == {"provider_timeout": 1}
    assert (one["first_token_ms_p50"], one["first_token_ms_p95"]) == (250, 385)
    assert (one["latency_ms_p50"], one["latency_ms_p95"]) == (2500, 3850)
    assert row_of(said, model="n")["latency_ms_p50"] is None
    table = run("stats", "--workspace", day)
    assert "provider_timeout 1" in table.out


def test_figures_without_a_group_are_one_row_and_reach_back_as_far_as_asked(run, day):
    (whole,) = run("stats", "--workspace", day, "--by", "", "--json").json
    assert (whole["calls"], whole["output_tokens"], whole["latency_ms_p50"]) == (6, 21, 2500)
    (week,) = run("stats", "--workspace", day, "--by", "", "--days", "8", "--json").json
    assert (week["calls"], week["output_tokens"]) == (7, 1_000_021)


# Caches ---------------------------------------------------------------------------------------------------------------


def test_a_servers_caches_are_shown_to_staff_alone(run, servers: tuple[Server, Server], person):
    url = servers[0].url
    refused = run("caches", "--url", url, DJANGO_CHAIN_TOKEN=person.token)
    assert (refused.code, "only staff" in refused.err) == (1, True)
    person.user.is_staff = True
    person.user.save()
    said = run("caches", "--url", url, "--user", person.user.username, "--json").json
    assert {"configuration", "prompts", "workflows"} <= {row["name"] for row in said}
    assert all(row["hits"] >= 0 and row["misses"] >= 0 for row in said)
    assert "configuration" in run("caches", "--url", url, DJANGO_CHAIN_TOKEN=person.token).out


def test_without_a_server_it_says_so(run, person):
    said = run("caches", "--url", "http://127.0.0.1:1", DJANGO_CHAIN_TOKEN=person.token)
    assert (said.code, "No server of ours answers" in said.err) == (1, True)


def test_a_process_takes_a_key_from_a_pipe_and_says_what_failed_by_its_exit_code(server_env, run):
    base = ("set", "mine", "--provider", "openai", "--model", "m", "--key-stdin")
    done = process(*base, env=server_env, input=KEY + "\n", capture_output=True)
    assert (done.returncode, done.stdout) == (0, "mine is set for all workspaces.\n"), done.stderr
    assert ModelConfig.objects.get(alias="mine").encrypted_key
    done = process("unset", "nobody", env=server_env, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: not_found")


def test_a_table_on_a_terminal_keeps_to_its_width(server_env, run):
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", 24, 60, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    done = process("list", env=server_env, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert "default" in shown
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 60 for line in shown.splitlines())
