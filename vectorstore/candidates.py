"""Parts of a search's one statement: which chunks are near, and which hold the words. Each is SQL with its values.

They read tables that have no row security, for the sake of their indexes; what they find is joined to the chunks
before anybody sees it (vectorstore.searching).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pgvector import Vector

from vectorstore.filters import Filter, Sql
from vectorstore.values import Scored, SetInfo

#: Matches whose words are weighed: what a common word finds beyond these is not looked at.
MOST_MATCHES: Final = 500
#: Characters of a question, and words of it, that the text part reads.
MOST_CHARACTERS: Final = 2000
_MOST_WORDS: Final = 32
#: A word, or words in quotation marks, that must not occur.
_NEGATED = re.compile(r'(?<!\S)-(?:"[^"]*"?|\S+)')


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """Which chunks are wanted: those that a filter lets through, and of these documents (empty: of all)."""

    where: Filter | None = None
    documents: Sequence[UUID] = ()

    def __bool__(self) -> bool:
        return self.where is not None or bool(self.documents)

    def joined(self, chunk_id: str) -> Sql:
        """`JOIN`s to the lookup of `chunk_id`, with the conditions; nothing if everything is wanted."""
        if not self:
            return "", []
        conditions, values = self.conditions()
        return f"JOIN vectorstore_chunklookup l ON l.chunk_id = {chunk_id} {self.document()} AND {conditions}", values

    def document(self) -> str:
        """A `JOIN` of the lookup to its document, where the filter asks for one of its columns."""
        asked = self.where is not None and re.search(r"\bd\.(?:source|title)\b", self.where.sql()[0])
        # The collection, for the index of documents by their sources.
        joined = "JOIN vectorstore_document d ON d.id = l.document_id AND d.collection_id = l.collection_id"
        return joined if asked else ""

    def conditions(self) -> Sql:
        found, values = self.where.sql() if self.where is not None else ("true", [])
        if self.documents:
            found, values = f"{found} AND l.document_id = ANY(%s::uuid[])", [*values, list(self.documents)]
        return found, values


def nearest(vectors: SetInfo, vector: Sequence[float], *, limit: int, narrowing: Narrowing) -> Sql:
    """`chunk_id` and cosine `distance` of the nearest of a set in PostgreSQL, nearest first."""
    joins, values = narrowing.joined("v.chunk_id")
    text = f"""
        SELECT v.chunk_id, {distance(vectors)} AS distance
        FROM vectorstore_chunkvector v {joins}
        WHERE v.vector_set_id = %s
            AND EXISTS (SELECT FROM vectorstore_vectorset s WHERE s.id = %s AND s.workspace_id = %s)
        ORDER BY distance LIMIT %s"""  # noqa: S608  made of our own parts
    return text, [as_text(vector), *values, vectors.id, vectors.id, vectors.workspace_id, limit]


def distance(vectors: SetInfo) -> str:
    """The cosine distance of `v.embedding` to a vector that is given as text."""
    return "v.embedding <=> %s::vector"


def as_text(vector: Sequence[float]) -> str:
    text: str = Vector(list(vector)).to_text()
    return text


def given(scored: Sequence[Scored], *, limit: int, narrowing: Narrowing) -> Sql:
    """The same of what a backend outside PostgreSQL found."""
    joins, values = narrowing.joined("g.chunk_id")
    text = f"""
        SELECT g.chunk_id, 1 - g.score AS distance
        FROM unnest(%s::uuid[], %s::float8[]) AS g(chunk_id, score) {joins}
        ORDER BY distance LIMIT %s"""  # noqa: S608  made of our own parts
    return text, [[each.chunk_id for each in scored], [each.score for each in scored], *values, limit]


def none_near() -> Sql:
    """The same where only words are asked for."""
    return "SELECT NULL::uuid AS chunk_id, NULL::float8 AS distance WHERE false", []


def asked(language: str, question: str) -> Sql:
    """A row with the question as two queries: `every_word`, as websearch_to_tsquery reads it, and `any_word`."""
    question = question[:MOST_CHARACTERS]
    negated = " ".join(_NEGATED.findall(question))
    text = f"""
        SELECT websearch_to_tsquery(%s::regconfig, %s) AS every_word,
            CASE WHEN words IS NULL THEN ''::tsquery
                ELSE words::tsquery && websearch_to_tsquery(%s::regconfig, %s) END AS any_word
        FROM (
            SELECT string_agg('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''', ' | ') AS words
            FROM (SELECT lexeme FROM unnest(to_tsvector(%s::regconfig, %s)) LIMIT {_MOST_WORDS}) AS few
        ) AS found"""  # noqa: S608  made of our own parts
    return text, [language, question, language, negated, language, _NEGATED.sub(" ", question)]


def matching(collection_id: UUID, *, limit: int, narrowing: Narrowing) -> Sql:
    """Two more parts, after one that is called `asked`: `strict`, and `words` with `chunk_id`, `rank` (0 to 1) and
    whether it has `every` word. Chunks that have only some are looked for when none has all.
    """
    conditions, values = narrowing.conditions()
    found = f"""
        SELECT l.chunk_id, l.terms FROM vectorstore_chunklookup l {narrowing.document()}
        WHERE l.terms @@ (SELECT :query FROM asked) AND l.collection_id = %s AND {conditions}"""  # noqa: S608  made of our own parts
    every = "ts_rank_cd(terms, (SELECT every_word FROM asked), 32)::float8 AS rank"
    # By how many of the words it has, wherever they stand: a title's words would outweigh all others.
    some = "ts_rank('{1, 1, 1, 1}', terms, (SELECT any_word FROM asked), 32)::float8 AS rank"
    text = f"""
        strict AS MATERIALIZED ({found.replace(":query", "every_word")} LIMIT {MOST_MATCHES}),
        loose AS MATERIALIZED (
            {found.replace(":query", "any_word")} AND NOT EXISTS (SELECT FROM strict) LIMIT {MOST_MATCHES}
        ),
        words AS MATERIALIZED (
            SELECT chunk_id, {every}, true AS every FROM strict
            UNION ALL
            SELECT chunk_id, {some}, false FROM loose
            ORDER BY rank DESC, chunk_id LIMIT %s
        )"""  # noqa: S608  made of our own parts
    return text, [collection_id, *values, collection_id, *values, limit]
