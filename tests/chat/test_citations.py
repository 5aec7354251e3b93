"""Citations on the wire and in the row: marks of sources alone, and which source is cited."""

from typing import Any

from accounts.models import Workspace
from kernel import database
from tests.conftest import Person
from tests.support.scripted_provider import ok, text
from tests.support.server import Server
from vectorstore.manager import VectorStoreManager
from vectorstore.values import SourceDocument


async def test_an_answer_cites_what_it_was_given_and_nothing_else(
    servers: tuple[Server, Server], person: Person, provider: Any
) -> None:
    workspace = await database.run(Workspace.objects.get, personal_of_id=person.user.pk)
    texts = {"a.md": "The warranty of the Aurora kettle is three years.", "b.md": "The Aurora kettle is made of steel."}
    documents = [SourceDocument(source=source, text=said, markdown=True) for source, said in texts.items()]
    await VectorStoreManager(workspace.id).ingest(documents)
    provider.script("cites", text("Three", " years [", "1", "], not [", "7]. "), ok())
    server, other = servers
    session_id = person.new_session(server)
    async with person.client(server, session_id) as asking, person.client(other, session_id) as watching:
        row = await asking.ask("How long is the warranty of the Aurora kettle? [[cites]]")
        assert row["content"] == "Three years [1], not. "
        assert [(hit["n"], hit["cited"]) for hit in row["sources"]] == [(1, True), (2, False)]
        seen = await watching.wait_frame(
            lambda frame: (
                frame["type"] == "message"
                and frame["message"]["status"] == "complete"
                and frame["message"]["role"] == "ASSISTANT"
            )
        )
        assert seen["message"]["content"] == row["content"]
