"""The protocol's reference is the types: files, tables and the code can't drift apart."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

import llm.errors
from chat import protocol, reference
from chat.protocol import COMMANDS, ERROR_CODES, EVENTS
from kernel import errors

TYPES = (*COMMANDS, *EVENTS)


def tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def test_the_files_are_what_the_types_say() -> None:
    call_command("protocol", "--check")


def test_a_stale_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "markdown", lambda: "something else")
    with pytest.raises(CommandError, match=r"protocol\.md.*manage\.py protocol"):
        call_command("protocol", "--check")


def test_the_command_writes_only_what_is_stale(
    tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.BASE_DIR = tmp_path
    (tmp_path / "docs").mkdir()
    call_command("protocol")
    assert sorted(file.name for file in (tmp_path / "docs").iterdir()) == ["asyncapi.yaml", "protocol.md"]
    assert "protocol.md" in capsys.readouterr().out
    call_command("protocol")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", TYPES, ids=tag)
def test_every_type_has_its_words_and_its_fields(kind: Any) -> None:
    section = reference.markdown().split(f"### `{tag(kind)}`\n", 1)[1].split("\n#", 1)[0]
    assert kind.__doc__.split("\n")[0] in section
    for field in kind.__struct_fields__:
        assert f"| `{field}` |" in section


def test_every_reference_in_the_asyncapi_file_leads_somewhere() -> None:
    document = yaml.safe_load(reference.asyncapi())
    links = list(refs(document))
    assert len(links) > 40
    for link in links:
        here: Any = document
        for key in link.removeprefix("#/").split("/"):
            here = here[key]
    channel = document["channels"]["chat"]["messages"]
    assert set(channel) == {tag(kind) for kind in TYPES}


def refs(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(link)}:
            yield link
        case dict():
            for value in node.values():
                yield from refs(value)
        case list():
            for value in node:
                yield from refs(value)


def test_every_command_and_event_class_is_in_the_tuples() -> None:
    # The workflow socket's own are compared with docs/execution.md.
    for base, known in ((protocol.Command, COMMANDS), (protocol.Event, EVENTS)):
        assert {kind for kind in base.__subclasses__() if kind.__module__ == protocol.__name__} == set(known)


def test_every_close_code_has_a_meaning() -> None:
    assert set(protocol.CLOSE_MEANINGS) == set(protocol.Close)


def test_every_code_in_the_sources_is_in_the_table() -> None:
    root = Path(__file__).resolve().parents[2]
    literal = re.compile(r"""\bcode\s*=\s*"([a-z_]+)\"""")
    found = {
        code
        for package in ("chat", "memory", "vectorstore", "llm", "accounts", "kernel")
        for file in (root / package).rglob("*.py")
        if file.name != "client.py"  # its errors are its own, not the server's
        for code in literal.findall(file.read_text("utf-8"))
    }
    roots, rest, ingestion = (
        {"refused", "unavailable", "provider_error"},
        {"conflict", "invalid"},
        {"not_text", "unreadable"},
    )
    assert found - roots - rest - ingestion <= set(ERROR_CODES)


def test_every_error_that_reaches_a_client_is_in_the_table() -> None:
    def tree(kind: type[errors.ChainError]) -> Iterator[type[errors.ChainError]]:
        for below in kind.__subclasses__():
            yield below
            yield from tree(below)

    assert llm.errors
    ours = [kind for kind in tree(errors.ChainError) if not kind.__module__.startswith(("django_chain.", "tests."))]
    leaves = {kind.code for kind in ours if not kind.__subclasses__()}
    assert leaves - {"conflict"} <= set(ERROR_CODES), leaves - set(ERROR_CODES)
