"""Search over REST."""

from tests.vectorstore.rest.conftest import Place


async def test_a_hit_says_where_it_stands(place: Place) -> None:
    made = await place.ingest(source="warranty.md", metadata={"year": 2026})
    response = place.ask(
        "viewer", "POST", "/search", json={"query": "warranty X200", "workspace": str(place.workspace)}
    )
    assert response.status_code == 200, response.text
    best = response.json()["hits"][0]
    assert (best["document_id"], best["source"], best["collection"]) == (made, "warranty.md", "default")
    assert "two years" in best["text"]
    assert place.get(f"/documents/{made}/text", start=best["start"], end=best["end"])["text"] == best["text"]
    assert place.get(f"/chunks/{best['id']}")["text"] == best["text"]


async def test_a_filter_narrows_and_a_wrong_one_is_refused(place: Place) -> None:
    await place.ingest(metadata={"year": 2026})
    body = {"query": "warranty", "workspace": str(place.workspace)}
    for year, found in ((2026, True), (2025, False)):
        asked = body | {"where": {"eq": {"year": year}}}
        assert bool(place.ask("owner", "POST", "/search", json=asked).json()["hits"]) is found
    for wrong in ({"k": 51}, {"k": 0}, {"query": "x" * 2001}, {"where": {"sql": "1"}}, {"mode": "x"}, {"more": 1}):
        assert place.ask("owner", "POST", "/search", json=body | wrong).status_code == 422, wrong


async def test_a_restricted_collection_is_not_searched_by_others(place: Place) -> None:
    made = place.collection("secret", access="restricted")
    await place.ingest(collection="secret")
    for ref in (made, "secret"):
        body = {"query": "warranty", "collection": ref, "workspace": str(place.workspace)}
        assert place.ask("admin", "POST", "/search", json=body).json()["hits"]
        assert place.ask("member", "POST", "/search", json=body).status_code == 404
    foreign = {"query": "warranty", "collection": made}
    assert place.ask("other", "POST", "/search", json=foreign).status_code == 404


async def test_a_workspace_without_documents_finds_nothing(place: Place) -> None:
    response = place.ask("owner", "POST", "/search", json={"query": "x", "workspace": str(place.workspace)})
    assert (response.status_code, response.json()) == (200, {"hits": []})
