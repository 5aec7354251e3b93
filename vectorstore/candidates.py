"""Parts of a search's one statement: which chunks are near, and which hold the words. Each is SQL with its values.

They read tables that have no row security, for the sake of their indexes; what they find is joined to the chunks
before anybody sees it (vectorstore.searching).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from pgvector import Vector

from vectorstore.filters import Filter, Sql
from vectorstore.values import Scored, SetInfo

#: Matches whose words are weighed: what is found beyond these is not looked at.
MOST_MATCHES: Final = 500
#: The same of each kind of words, rare and common, where that is known.
MOST_OF_A_KIND: Final = 200
#: Characters of a question, and words of it, that the text part reads.
MOST_CHARACTERS: Final = 2000
_MOST_WORDS: Final = 32
#: A word, or words in quotation marks, that must not occur.
_NEGATED = re.compile(r'(?<!\S)-(?:"[^"]*"?|\S+)')


class Common(NamedTuple):
    """The most common words (lexemes) of all passages, and the share of them that each is in: arrays, as PostgreSQL
    writes them. `passages`: how many there are where the words are looked for.
    """

    words: str = "{}"
    shares: str = "{}"
    passages: int = 0


NOT_COMMON: Final = Common()


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
    return text, [Vector(list(vector)), *values, vectors.id, vectors.id, vectors.workspace_id, limit]


def distance(vectors: SetInfo) -> str:
    """The cosine distance of `v.embedding` to a vector that is given."""
    return "v.embedding <=> %s::vector"


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


def asked(language: str, question: str, common: Common) -> Sql:
    """A row with the question as queries: `every_word`, as websearch_to_tsquery reads it, and `any_word`.

    Where it is known which words are common there are `rare_word`, of those words that match the fewest, together no
    more than are weighed, and `next_word`, the least common of the others. Words that are not among the common ones
    count as rare.
    """
    question = question[:MOST_CHARACTERS]
    negated, affirmed = " ".join(_NEGATED.findall(question)), _NEGATED.sub(" ", question)
    few = f"SELECT lexeme FROM unnest(to_tsvector(%s::regconfig, %s)) LIMIT {_MOST_WORDS}"  # noqa: S608  a number
    values: list[Any] = [language, affirmed]
    kinds, joined = ["any_word"], _ANY_WORD
    if common.passages:
        kinds += ["rare_word", "next_word"]
        joined += _BY_RARITY
        few = f"""
            SELECT lexeme, matches, sum(matches) OVER (ORDER BY matches, lexeme) AS together
            FROM (
                SELECT few.lexeme, coalesce(c.share * %s, 0) AS matches
                FROM ({few}) AS few
                LEFT JOIN unnest(%s::text[], %s::float8[]) AS c (lexeme, share) ON c.lexeme = few.lexeme
            ) AS weighed"""  # noqa: S608  made of our own parts
        values = [common.passages, *values, common.words, common.shares]
    queries = ", ".join(f"coalesce({kind}::tsquery && negated, '') AS {kind}" for kind in kinds)
    text = f"""
        SELECT every_word, {queries}
        FROM (
            SELECT websearch_to_tsquery(%s::regconfig, %s) AS every_word,
                websearch_to_tsquery(%s::regconfig, %s) AS negated
        ) AS whole, (
            SELECT {joined}
            FROM (
                SELECT *, '''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''' AS word
                FROM ({few}) AS few
            ) AS quoted
        ) AS found"""  # noqa: S608  made of our own parts
    return text, [language, question, language, negated, *values]


_ANY_WORD = "string_agg(word, ' | ') AS any_word"
_BY_RARITY = f""",
    string_agg(word, ' | ') FILTER (WHERE together <= {MOST_OF_A_KIND}) AS rare_word,
    string_agg(word, ' | ') FILTER (
        WHERE together > {MOST_OF_A_KIND} AND together - matches <= {MOST_OF_A_KIND}
    ) AS next_word"""


def matching(collection_id: UUID, *, limit: int, enough: int, common: Common, narrowing: Narrowing) -> Sql:
    """More parts, after one that is called `asked`; the last is `words` with `chunk_id`, `rank` (0 to 1) and whether it
    has `every` word.

    Chunks that have only some are looked for when none has all. Where it is known which words are common, those with
    rare ones come first, and others are looked for as long as there are not `enough`.
    """
    conditions, values = narrowing.conditions()

    def holding(query: str, further: str, most: int) -> str:
        return f"""(
            SELECT l.chunk_id, l.terms FROM vectorstore_chunklookup l {narrowing.document()}
            WHERE l.terms @@ (SELECT {query} FROM asked) AND l.collection_id = %s AND {conditions} {further}
            LIMIT {most})"""  # noqa: S608  made of our own parts

    every = "ts_rank_cd(terms, (SELECT every_word FROM asked), 32)::float8"
    # By how many of the words it has, wherever they stand: a title's words would outweigh all others.
    some = "ts_rank('{1, 1, 1, 1}', terms, (SELECT any_word FROM asked), 32)::float8"
    where, unless = [collection_id, *values], "AND NOT EXISTS (SELECT FROM strict)"
    parts = ["strict AS MATERIALIZED " + holding("every_word", "", MOST_MATCHES)]
    ranked = [f"SELECT chunk_id, {every} AS rank, true AS every FROM strict"]  # noqa: S608  made of our own parts
    if not common.passages:
        parts.append("loose AS MATERIALIZED " + holding("any_word", unless, MOST_MATCHES))
        ranked.append(f"SELECT chunk_id, {some}, false FROM loose")  # noqa: S608  made of our own parts
        asked_values = [*where, *where]
    else:
        before, count = " AND NOT l.terms @@ (SELECT {} FROM asked)", "(SELECT count(*) FROM {})"
        second = f"{unless} AND {count.format('rare')} < %s{before.format('rare_word')}"
        third = f"{unless} AND {count.format('rare')} + {count.format('others')} < %s"
        third += before.format("rare_word") + before.format("next_word")
        parts.append("rare AS MATERIALIZED " + holding("rare_word", unless, MOST_OF_A_KIND))
        parts.append("others AS MATERIALIZED " + holding("next_word", second, MOST_OF_A_KIND))
        parts.append("rest AS MATERIALIZED " + holding("any_word", third, MOST_OF_A_KIND))
        ranked.append(f"SELECT chunk_id, 0.5 + {some} / 2, false FROM rare")  # noqa: S608  made of our own parts
        ranked += [f"SELECT chunk_id, {some} / 2, false FROM {each}" for each in ("others", "rest")]  # noqa: S608  as above
        asked_values = [*where, *where, *where, enough, *where, enough]
    best = f"({' UNION ALL '.join(ranked)} ORDER BY rank DESC, chunk_id LIMIT %s)"
    return f"{', '.join(parts)}, words AS MATERIALIZED {best}", [*asked_values, limit]
