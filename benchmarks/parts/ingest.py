"""How fast files become searchable: what a worker does with each of them, from the bytes to the committed rows.

Beside it the embedding model alone, on the same texts: no ingestion can be faster than that.
"""

from time import perf_counter
from typing import Any
from uuid import UUID

import uvloop

from benchmarks import machine
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.stage import Stage
from benchmarks.tales import tales

_FILES, _BOOK, _TEXTS = "worker, a file a tale", "worker, one file of all tales", "in process, text given"
_BARE = "the embedding model alone"


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    workspace_id = stage.workspace_id
    with machine.on_the_servers_core():
        return [uvloop.run(_measure(workspace_id, 1 if quick else 4))]


async def _measure(workspace_id: UUID, count: int) -> Measure:
    # The project's own: after Django's set-up.
    from vectorstore.manager import VectorStoreManager

    measure = Measure(
        "ingest: chunks per second, embedded and committed", "/s", aims={_FILES: Aim(200, at_least=True)},
        more_is_better=True,
    )  # fmt: skip
    manager = VectorStoreManager(workspace_id)
    ways = {_FILES: _by_worker, _BOOK: _as_a_book, _TEXTS: _in_process}
    for number in rounds(count, seconds=60):
        # A title of its own makes every text new: none is found in the cache of what was embedded before.
        speeds = {name: await way(manager, f"{name}, round {number}") for name, way in ways.items()}
        speeds[_BARE] = await _bare(manager)
        for name, speed in speeds.items():
            if number:  # the first round only warms up
                measure.add(name, speed)
            progress(f"ingest {number or 'warm-up'}: {name} {speed:.0f} chunks/s")
    return measure


async def _by_worker(manager: Any, name: str) -> float:
    """Upload every tale, then work on the jobs one after the other, as one worker would."""
    files = {f"{name}/{tale.name}": f"{name}\n\n{tale.text}".encode() for tale in tales()}
    return await _worked(manager, name, files)


async def _as_a_book(manager: Any, name: str) -> float:
    text = "\n\n".join(f"{tale.title}\n\n{tale.text}" for tale in tales())
    return await _worked(manager, name, {f"{name}/tales.txt": text.encode()})


async def _worked(manager: Any, name: str, files: dict[str, bytes]) -> float:
    # The project's own: after Django's set-up.
    from vectorstore import ingestion

    jobs = [
        await manager.submit(source=source, name=source, content=content, collection=name, tell=False)
        for source, content in files.items()
    ]
    begun, chunks = perf_counter(), 0
    for job in jobs:
        worked = await ingestion.work(job.job_id)
        if worked.outcome != "added":
            raise RuntimeError(f"A file was not indexed: {worked}")
        chunks += worked.chunks
    return chunks / (perf_counter() - begun)


async def _in_process(manager: Any, name: str) -> float:
    # The project's own: after Django's set-up.
    from vectorstore.values import SourceDocument

    documents = [SourceDocument(source=f"{name}/{tale.name}", text=tale.text) for tale in tales()]
    begun = perf_counter()
    made = await manager.ingest(documents, collection=name)
    return sum(each.chunks for each in made) / (perf_counter() - begun)


async def _bare(manager: Any) -> float:
    # The project's own: after Django's set-up.
    from kernel.conf import config
    from vectorstore.drafting import embedded_text
    from vectorstore.splitting import split

    options = config().vector_store
    texts = [
        embedded_text(tale.title, (), passage.text)
        for tale in tales()
        for passage in split(tale.text, markdown=False, size=options.chunk_size, overlap=options.chunk_overlap)
    ]
    _, embedder = await manager.embedding()
    begun = perf_counter()
    await embedder.documents(texts)
    return len(texts) / (perf_counter() - begun)
