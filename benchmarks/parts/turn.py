"""How long a turn takes when the model takes no time: recall, prompt, stream, two commits; and that it stays so."""

from statistics import median
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.clients import Chat, Order
from benchmarks.report import Aim, Measure, progress
from benchmarks.servers import Server
from benchmarks.stage import Stage

_HISTORIES = (10, 1000)


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    sessions, turns = 10 if quick else 20, 5 if quick else 10
    ids = {messages: stage.new_sessions(sessions, messages=messages) for messages in _HISTORIES}
    server = servers.ours(stage)
    with servers.running(server):
        return [uvloop.run(_measure(stage, server, ids, turns))]


async def _measure(stage: Stage, server: Server, ids: dict[int, list[Any]], turns: int) -> Measure:
    """The values are turns, not rounds: `best` is the quickest turn."""
    short, long = (f"{messages} messages of history" for messages in _HISTORIES)
    measure = Measure("turn with an instant model: ack → stored answer", "ms")
    accepted: list[float] = []
    people = {
        messages: [await Chat().enter(server.port, session_id, stage.token) for session_id in found]
        for messages, found in ids.items()
    }
    for turn in range(turns):
        for pair in zip(*people.values(), strict=True):
            for messages, person in zip(_HISTORIES, pair, strict=True):
                await person.ask(Order(tokens=1))
                if turn:  # the first ones only warm up
                    measure.add(f"{messages} messages of history", (person.ended - person.acked) * 1000)
                    accepted.append((person.acked - person.sent) * 1000)
    for person in (person for found in people.values() for person in found):
        person.close()
    middle = {name: median(values) for name, values in measure.values.items()}
    progress(f"turn: {', '.join(f'{value:.1f} ms over {name}' for name, value in middle.items())} (medians)")
    measure.aims = {short: Aim(10), long: Aim(1.5)}
    measure.notes.append(
        f"turn: {len(accepted) // 2} turns each; send → ack took {min(accepted):.1f} ms at best,"
        f" {median(accepted):.1f} ms in the median; medians are held against the aim of 10 ms:"
        f" {' and '.join(f'{value:.1f} ms' for value in middle.values())}"
    )
    return measure
