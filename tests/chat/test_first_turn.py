"""One message's way, through a real server and a real socket."""

from tests.conftest import Person
from tests.support.server import Server


async def test_a_message_is_acked_answered_and_kept(servers: tuple[Server, Server], person: Person) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client:
        row = await client.ask("hello there")
        assert row["status"] == "complete"
        assert "hello there" in row["content"]
