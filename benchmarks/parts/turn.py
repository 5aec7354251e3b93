"""How long a turn takes when the model takes no time: recall, prompt, stream, two commits; and that it stays so."""

from statistics import median
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.clients import Chat, Order
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import Server
from benchmarks.stage import Stage

_HISTORIES = (10, 1000)


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    sessions, turns = 10 if quick else 20, 4 if quick else 8
    ids = {messages: stage.new_sessions(sessions, messages=messages) for messages in _HISTORIES}
    server = servers.ours(stage)
    with servers.running(server):
        return [uvloop.run(_measure(stage, server, ids, turns))]


async def _measure(stage: Stage, server: Server, ids: dict[int, list[Any]], turns: int) -> Measure:
    """A round is one turn in each session; its value is their median."""
    names = {messages: f"{messages} messages of history" for messages in _HISTORIES}
    measure = Measure(
        "turn with an instant model: ack → stored answer, median of a round",
        "ms",
        aims=dict(zip(names.values(), (Aim(10), Aim(1.5)), strict=True)),
    )
    people = {
        messages: [await Chat().enter(server.port, session_id, stage.token) for session_id in found]
        for messages, found in ids.items()
    }
    everybody = [person for found in people.values() for person in found]
    accepted: list[float] = []
    for turn in rounds(turns, seconds=40):
        for pair in zip(*people.values(), strict=True):
            for person in pair:
                await person.ask(Order(tokens=1))
        if turn:  # the first round only warms up
            accepted += [(person.acked - person.sent) * 1000 for person in everybody]
            for messages, found in people.items():
                took = [(person.ended - person.acked) * 1000 for person in found]
                measure.add(names[messages], median(took))
                progress(f"turn {turn}: {median(took):.1f} ms over {names[messages]}")
    for person in everybody:
        person.close()
    measure.notes.append(
        f"turn: send → ack took {min(accepted):.1f} ms at best, {median(accepted):.1f} ms in the median"
    )
    return measure
