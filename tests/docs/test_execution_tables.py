"""The frames of the workflow socket stand in docs/execution.md as they are in the code."""

from chat import workflow_protocol
from tests.docs.pages import rows, section


def test_the_frames_and_their_fields_are_those_of_the_code() -> None:
    written = {(row[0], row[1]) for row in rows(section("execution.md", "Over a socket"))}
    structs = (*workflow_protocol.COMMANDS, *workflow_protocol.EVENTS)
    known = {
        (f"`{one.__struct_config__.tag}`", ", ".join(f"`{name}`" for name in one.__struct_fields__)) for one in structs
    }
    assert written - {("server → client", "fields"), ("---", "---")} == known
