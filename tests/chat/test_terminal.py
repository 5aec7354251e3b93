"""`manage.py chat`, run as a process against real servers."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.sync.server import serve

from chat.models import ChatHistory
from tests.conftest import Person
from tests.docs.pages import DOCS, blocks
from tests.support.proxy import Proxy, running
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, status, text, tokens, wait
from tests.support.server import ROOT, Server, free_port, rest
from tests.support.stage import SHORT_LEASES, settings, talking
from tests.support.terminal import Terminal

Run = Callable[..., Terminal]
Pair = tuple[Server, Server]


@pytest.fixture
def run(server_env: dict[str, str], person: Person) -> Run:
    """The command as the person, with the token where no list of processes shows it."""

    def start(*arguments: str, stdin: str = "", **env: str) -> Terminal:
        return Terminal(server_env | {"DJANGO_CHAIN_TOKEN": person.token} | env, *arguments, stdin=stdin)

    return start


@pytest.fixture(scope="module")
def strict(live_database: None, server_env: dict[str, str]) -> Iterator[Server]:
    """A server with narrow bounds, which tests may end and start again."""
    chat = SHORT_LEASES | {"RECONNECT_SPREAD": 0.2, "FLOW_CONTROL": "credit", "CREDIT_BYTES": 2048}
    with Server(server_env | settings(CHAT=chat | {"MAX_TURNS_PER_SESSION": 1})) as server:
        yield server


@contextmanager
def through_proxy(server: Server) -> Iterator[Proxy]:
    with running(Proxy(server.port)) as proxy:
        yield proxy


def frames(terminal: Terminal) -> list[dict[str, Any]]:
    return [json.loads(line) for line in terminal.out.splitlines()]


# Asking ---------------------------------------------------------------------------------------------------------------


def test_a_question_is_answered_as_it_streams_and_the_session_can_be_continued(
    servers: Pair, run: Run, provider: ScriptedProvider, person: Person
) -> None:
    gate = Gate()
    marker = provider.script("t-stream", text("Two ", "years"), wait(gate), text(", as é…🙂 said."), ok())
    with run(f"How long? {marker}", "--url", servers[0].url) as terminal:
        terminal.shows("Two years")
        assert terminal.out == "Two years"
        gate.release()
        assert terminal.ended() == 0
        assert terminal.out == "Two years, as é…🙂 said.\n"
        session_id = terminal.session_id
        assert person.token not in terminal.out + terminal.err
    with run("and again", "--session", session_id, "--url", servers[1].url + "/") as terminal:
        assert terminal.ended() == 0
        assert terminal.out == "echo: and again\n"
    rows = rest(servers[0], person.token, "GET", f"/sessions/{session_id}/messages")["messages"]
    assert [row["role"] for row in rows] == ["USER", "ASSISTANT"] * 2


def test_a_question_may_come_from_the_standard_input(servers: Pair, run: Run) -> None:
    with run("-", "--url", servers[0].url, stdin="from\na pipe\n") as terminal:
        assert terminal.ended() == 0
        assert terminal.out == "echo: from\na pipe\n"


def test_the_sources_follow_the_answer(servers: Pair, run: Run, person: Person) -> None:
    session_id = person.new_session(servers[0])
    with run("first", "--session", session_id, "--url", servers[0].url) as terminal:
        assert terminal.ended() == 0
    hits = [{"n": 1, "title": "Warranty", "source": "samples/warranty.md"}, {"n": 2, "title": "a.md", "source": "a.md"}]
    ChatHistory.objects.filter(session_id=session_id, role="ASSISTANT").update(sources=hits)
    with run("--session", session_id, "--url", servers[0].url) as terminal:
        terminal.shows("[2]")
        assert terminal.out == "\n> first\necho: first\n\n[1] Warranty \N{EN DASH} samples/warranty.md\n[2] a.md\n"


def test_events_are_the_servers_frames_and_nothing_else(servers: Pair, run: Run) -> None:
    with run("as frames", "--events", "--url", servers[0].url) as terminal:
        assert terminal.ended() == 0
        got = frames(terminal)
        session_id = terminal.session_id
    kinds = [frame["type"] for frame in got]
    assert kinds[0] == "welcome"
    assert got[0]["session"]["id"] == session_id
    assert {"ack", "message", "delta"} <= set(kinds)
    assert "".join(frame["text"] for frame in got if frame["type"] == "delta") == "echo: as frames"
    assert got[-1]["message"]["status"] == "complete"


# Following ------------------------------------------------------------------------------------------------------------


async def test_a_joined_conversation_is_followed_live(
    servers: Pair, run: Run, provider: ScriptedProvider, person: Person
) -> None:
    session_id = person.new_session(servers[0])
    gate = Gate()
    marker = provider.script("t-follow", text("half "), wait(gate), text("whole"), ok())
    async with person.client(servers[0], session_id) as other:
        await other.ask("before")
        with run("--session", session_id, "--url", servers[1].url) as terminal:
            terminal.shows("echo: before\n")
            acks = [await other.send(marker), await other.send("a second one")]
            terminal.shows("half ")
            gate.release()
            for ack in acks:
                await other.answer(ack["answer_id"])
            terminal.shows("echo: a second one\n")
            terminal.interrupt()
            assert terminal.ended() == 130
            told = f"\n> before\necho: before\n\n> {marker}\nhalf whole\n\n> a second one\necho: a second one\n"
            assert terminal.out == told


# Resuming -------------------------------------------------------------------------------------------------------------


def test_an_answer_is_whole_and_once_through_cut_connections(
    servers: Pair, run: Run, provider: ScriptedProvider
) -> None:
    marker = provider.script("t-cut", tokens(150, "wörd 🙂 ", every=0.02), ok())
    with through_proxy(servers[0]) as proxy, run(marker, "--url", proxy.url) as terminal:
        terminal.shows("wörd")
        for target in (servers[1], servers[0], servers[1]):
            before = len(terminal.out)
            proxy.target = target.port
            proxy.cut()
            terminal.until(lambda before=before: len(terminal.out) > before + 30)
        assert terminal.ended() == 0
        assert terminal.out == "wörd 🙂 " * 150 + "\n"
        assert terminal.err.count("Connection lost") == 3


def test_a_message_whose_ack_was_lost_is_sent_once(servers: Pair, run: Run, person: Person) -> None:
    session_id = person.new_session(servers[0])
    with through_proxy(servers[0]) as proxy:
        proxy.cut_before = b'"type":"ack"'
        with run("only once", "--session", session_id, "--url", proxy.url) as terminal:
            terminal.until(lambda: proxy.cuts > 1)
            proxy.cut_before = b""
            assert terminal.ended() == 0
            assert terminal.out == "echo: only once\n"
    rows = rest(servers[0], person.token, "GET", f"/sessions/{session_id}/messages")["messages"]
    assert len(rows) == 2


def test_a_restarted_server_finishes_what_it_had_begun(strict: Server, run: Run, provider: ScriptedProvider) -> None:
    gate = Gate()
    marker = provider.script("t-restart", text("begun, "), wait(gate), text("and done"), ok())
    with run(marker, "--url", strict.url) as terminal:
        terminal.shows("begun, ")
        strict.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        gate.release()
        strict.stop()
        strict.start()
        assert terminal.ended() == 0
        assert terminal.out == "begun, and done\n"


def test_a_killed_server_leaves_an_interrupted_answer_and_a_typed_error(
    strict: Server, run: Run, provider: ScriptedProvider
) -> None:
    gate = Gate()
    marker = provider.script("t-kill", text("kept "), talking(gate), ok())
    with run(marker, "--url", strict.url) as terminal:
        terminal.shows("kept 0 é…🙂 1")
        strict.kill()
        shown = terminal.out
        strict.start()
        assert terminal.ended() == 1
        assert terminal.out.startswith(shown)
        assert terminal.out.count("kept ") == 1
        assert "interrupted" in terminal.err
    gate.release()


def test_credit_is_given_back_where_the_server_asks_for_it(
    strict: Server, run: Run, provider: ScriptedProvider
) -> None:
    marker = provider.script("t-credit", tokens(200, "x" * 100 + " ", every=0.002), ok())
    with run(marker, "--events", "--url", strict.url) as terminal:
        assert terminal.ended() == 0
        got = frames(terminal)
    assert got[0]["limits"]["credit"] == 2048  # the server falls silent when so much is not seen
    assert sum(len(frame["text"]) for frame in got if frame["type"] == "delta") == 101 * 200


def test_a_server_that_is_busy_gets_the_message_again(
    strict: Server, run: Run, provider: ScriptedProvider, person: Person
) -> None:
    session_id = person.new_session(strict)
    gate = Gate()
    marker = provider.script("t-busy", text("first"), wait(gate), ok())
    with run(marker, "--session", session_id, "--url", strict.url) as first:
        first.shows("first")
        with run("second", "--session", session_id, "--url", strict.url) as second:
            second.until(lambda: "busy" in second.err)
            gate.release()
            assert second.ended() == 0
            assert second.out == "echo: second\n"
        assert first.ended() == 0


def test_an_unknown_place_is_asked_for_in_the_demos_folder(servers: Pair, run: Run, tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text(json.dumps({"CHAIN_URL": servers[0].url}))
    with run("hi", DATA_DIR=str(tmp_path), CHAIN_URL="") as terminal:
        assert terminal.ended() == 0
        assert terminal.out == "echo: hi\n"


# Ctrl-C ---------------------------------------------------------------------------------------------------------------


def test_interrupting_stops_the_model_and_shows_what_is_kept(
    servers: Pair, run: Run, provider: ScriptedProvider, person: Person
) -> None:
    gate = Gate()
    marker = provider.script("t-stop", talking(gate), ok())
    with run(marker, "--url", servers[0].url) as terminal:
        terminal.shows("9 é…🙂 ")
        terminal.interrupt()
        assert provider.wait_for("t-stop").disconnected.wait(3)
        assert terminal.ended() == 130
        rows = rest(servers[0], person.token, "GET", f"/sessions/{terminal.session_id}/messages")["messages"]
        assert rows[-1]["status"] == "stopped"
        assert terminal.out == rows[-1]["content"].rstrip("\n") + "\n"
        assert "kept" in terminal.err
    gate.release()


def test_a_second_interrupt_leaves_a_server_that_does_not_answer(
    servers: Pair, run: Run, provider: ScriptedProvider
) -> None:
    gate = Gate()
    marker = provider.script("t-leave", text("some"), wait(gate), ok())
    with through_proxy(servers[0]) as proxy, run(marker, "--url", proxy.url) as terminal:
        terminal.shows("some")
        proxy.refusing = True
        proxy.cut()
        terminal.until(lambda: "Connection lost" in terminal.err)
        terminal.interrupt()
        terminal.until(lambda: "Stopping" in terminal.err)
        terminal.interrupt()
        assert terminal.ended(deadline=5) == 130
    gate.release()


def test_a_reader_that_goes_away_ends_it_quietly(
    servers: Pair, server_env: dict[str, str], person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    marker = provider.script("t-pipe", talking(gate), ok())
    command = [sys.executable, "manage.py", "chat", marker, "--url", servers[0].url]
    env = os.environ | server_env | {"DJANGO_SETTINGS_MODULE": "tests.settings", "DJANGO_CHAIN_TOKEN": person.token}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(3)
        process.stdout.close()
        assert process.wait(10) == 1
        assert b"Error" not in process.stderr.read()
    gate.release()


def test_a_terminal_gets_no_control_characters_of_others(
    servers: Pair, server_env: dict[str, str], person: Person, provider: ScriptedProvider
) -> None:
    marker = provider.script("t-tty", text("a\x1b]52;c;aGk=\x07b", "\r\u202ec"), ok())
    command = [sys.executable, "manage.py", "chat", marker, "--url", servers[0].url]
    env = os.environ | server_env | {"DJANGO_SETTINGS_MODULE": "tests.settings", "DJANGO_CHAIN_TOKEN": person.token}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.wait(20) == 0
    assert os.read(ours, 1000) == b"a]52;c;aGk=bc\r\n"
    os.close(ours)


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_failed_answer_is_a_typed_error(servers: Pair, run: Run, provider: ScriptedProvider) -> None:
    marker = provider.script("t-fail", status(400))
    with run(marker, "--url", servers[0].url) as terminal:
        assert terminal.ended() == 1
        assert "provider_refused: " in terminal.err
        assert terminal.out == ""


@pytest.mark.parametrize("joining", [False, True])
def test_a_wrong_token_is_told_and_not_tried_again(servers: Pair, run: Run, person: Person, joining: bool) -> None:
    more = ["--session", person.new_session(servers[0])] if joining else []
    with run("hi", "--url", servers[0].url, *more, DJANGO_CHAIN_TOKEN="nonsense") as terminal:
        assert terminal.ended() == 1
        assert "sign_in_required: " in terminal.err
        assert "--token" in terminal.err
        assert "nonsense" not in terminal.err


def test_a_foreign_session_is_no_session(servers: Pair, run: Run, make: Callable[[], Person]) -> None:
    with run("hi", "--session", make().new_session(servers[0]), "--url", servers[0].url) as terminal:
        assert terminal.ended() == 1
        assert "not_found: " in terminal.err


def test_an_absent_server_is_told_with_the_way_to_start_one(run: Run) -> None:
    for more in ([], ["--session", str(uuid4())]):
        with run("hi", "--url", f"http://127.0.0.1:{free_port()}", *more) as terminal:
            assert terminal.ended() == 1
            assert "unreachable: " in terminal.err
            assert "make demo" in terminal.err


def test_a_message_over_the_limit_is_refused(servers: Pair, run: Run) -> None:
    for stdin in ("x" * 40_000, "x" * 100_000):
        with run("-", "--url", servers[0].url, stdin=stdin) as terminal:
            assert terminal.ended() == 1
            assert "too_large: " in terminal.err


def test_another_language_is_told(run: Run) -> None:
    with serve(lambda socket: socket.send("hello?"), "127.0.0.1", 0) as stranger:
        port = stranger.socket.getsockname()[1]
        with running_thread(stranger), run("hi", "--session", str(uuid4()), "--url", f"http://127.0.0.1:{port}") as it:
            assert it.ended() == 1
            assert "not_understood: " in it.err


def test_a_token_does_not_follow_a_redirect_and_a_busy_server_is_asked_again(run: Run) -> None:
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            busy = len(asked) == 1
            self.send_response(503 if busy else 307)
            self.send_header("Retry-After" if busy else "Location", "1" if busy else "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not into the test's output."""

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server,
        running_thread(server),
        run("hi", "--url", f"http://127.0.0.1:{server.server_port}") as terminal,
    ):
        assert terminal.ended() == 1
        assert "redirects to /elsewhere" in terminal.err
    assert asked == ["/api/v1/sessions"] * 2


@contextmanager
def running_thread(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join(5)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [" "],
        ["--session", "17", "hi"],
        ["--url", "ftp://127.0.0.1", "hi"],
        ["--url", "http://name:secret@127.0.0.1", "hi"],
        ["--token", "a", "--user", "b", "hi"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_told(run: Run, arguments: list[str]) -> None:
    with run(*arguments) as terminal:
        assert terminal.ended() == 2
        assert terminal.out == ""
        assert terminal.err


# Who asks -------------------------------------------------------------------------------------------------------------


def test_a_token_is_made_for_a_named_user(servers: Pair, run: Run, person: Person) -> None:
    with run("hi", "--user", person.user.username, "--url", servers[0].url, DJANGO_CHAIN_TOKEN="") as terminal:
        assert terminal.ended() == 0
        assert rest(servers[0], person.token, "GET", f"/sessions/{terminal.session_id}")


def test_who_asks_must_be_clear(servers: Pair, run: Run, person: Person, make: Callable[[], Person]) -> None:
    make()
    for more, said in ([], "--user NAME"), (["--user", "nobody-there"], "'nobody-there'"):
        with run("hi", "--url", servers[0].url, *more, DJANGO_CHAIN_TOKEN="") as terminal:
            assert terminal.ended() == 1
            assert said in terminal.err


def test_an_expired_token_of_our_own_making_is_made_anew(
    spawn: Callable[..., Server], server_env: dict[str, str], person: Person, provider: ScriptedProvider
) -> None:
    short = settings(CHAT={"TOKEN_LIFETIME": 2.0, "REVALIDATE_SECONDS": 0.5})
    server = spawn(env=short)
    marker = provider.script("t-renew", tokens(60, "word ", every=0.1), ok())
    with Terminal(server_env | short, marker, "--user", person.user.username, "--url", server.url) as terminal:
        assert terminal.ended() == 0
        assert terminal.out == "word " * 60 + "\n"
        assert "Connection lost" in terminal.err


# The client module ----------------------------------------------------------------------------------------------------


def test_the_client_needs_no_django() -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import chat.client, sys; sys.exit(any(n.split('.')[0] == 'django' for n in sys.modules))",
        ],
        cwd=ROOT,
        check=False,
    )
    assert found.returncode == 0


async def test_the_sample_of_its_page_asks_and_is_answered(servers: Pair, person: Person) -> None:
    names: dict[str, Any] = {}
    for block in blocks(DOCS / "terminal.md", "python"):
        exec(block.text, names)
    assert await names["ask"](servers[0].url, person.token, "from a program") == "echo: from a program"


def test_no_token_is_in_a_request_line(servers: Pair, run: Run, person: Person) -> None:
    with through_proxy(servers[0]) as proxy, run("hi", "--url", proxy.url) as terminal:
        assert terminal.ended() == 0
    lines = [line for line in bytes(proxy.sent).split(b"\r\n") if line.endswith(b" HTTP/1.1")]
    assert len(lines) == 2
    assert all(person.token.encode() not in line for line in lines)
