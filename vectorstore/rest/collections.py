"""REST for collections: which there are, who reads and writes them, what they hold. Rules: vectorstore.collections.

In a path, the word `default` stands for the id of the workspace's default collection.
"""

from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Field as Aliased
from ninja import Router, Schema, Status
from pydantic import AwareDatetime, BaseModel, Field

from accounts.rest import caller_of, newest_first
from kernel import database
from llm.embeddings.embedder import embedder
from vectorstore import collections
from vectorstore.models import Access, Collection, CollectionMember
from vectorstore.rest.places import Limit, Ref, in_place, scope_of
from vectorstore.scope import Scope
from vectorstore.values import Space

router = Router(tags=["documents"])
Name = Annotated[str, Field(min_length=1, max_length=200)]


class CollectionIn(BaseModel, extra="forbid"):
    """A new collection. `language`: PostgreSQL's text search configuration for its documents; it stays."""

    name: Name
    description: str = Field("", max_length=1000)
    language: str = Field("english", max_length=63, pattern=r"^[a-z_]+$")
    access: Access = Access.WORKSPACE
    workspace: UUID | None = None


class CollectionChange(BaseModel, extra="forbid"):
    """What is named is changed."""

    name: Name = ""
    description: str = Field("", max_length=1000)
    access: Access = Access.WORKSPACE


class CollectionOut(Schema):
    id: UUID
    workspace: UUID = Aliased(alias="workspace_id")
    name: str
    description: str
    language: str
    access: Access
    created_at: AwareDatetime
    updated_at: AwareDatetime


class CollectionFull(CollectionOut):
    """`documents`: how many there are in each state."""

    documents: dict[str, int]


class CollectionPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    collections: list[CollectionOut]
    next: UUID | None


class VectorSetOut(Schema):
    """`index`: `none` while searches compare with every vector."""

    id: UUID
    backend: str
    embedding_model: str
    dimension: int
    state: str
    index: str
    index_rows: int
    reason: str


class StatsOut(Schema):
    """`bytes`: of the documents as they came."""

    documents: dict[str, int]
    chunks: int
    bytes: int
    vector_sets: list[VectorSetOut]


class MemberIn(BaseModel, extra="forbid"):
    can_write: bool = False


class MemberOut(Schema):
    user: int = Aliased(alias="user_id")
    name: str
    can_write: bool
    created_at: AwareDatetime

    @staticmethod
    def resolve_name(row: CollectionMember) -> str:
        return str(row.user.get_username())


class MemberPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    members: list[MemberOut]
    next: UUID | None


@router.get("/collections", response=CollectionPage, summary="The collections of a workspace that the caller may read")
async def list_collections(
    request: HttpRequest, *, workspace: UUID | None = None, limit: Limit = 30, before: UUID | None = None
) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        scope = scope_of(caller_of(request), workspace)
        with scope.wall():
            page, following = newest_first(scope.collections, limit=limit, before=before)
            return {"collections": page, "next": following}

    return await database.run(read)


@router.post("/collections", response={201: CollectionOut}, summary="Make a collection; 409 if its name is taken")
async def create_collection(request: HttpRequest, body: CollectionIn) -> Status[Collection]:
    values = body.model_dump(exclude={"workspace"})

    def write() -> Collection:
        scope = scope_of(caller_of(request), body.workspace)
        made = embedder()
        with scope.wall():
            row: Collection = collections.create(
                scope, space=Space(model=made.model, dimension=made.dimension), **values
            )
            return row

    return Status(201, await database.run(write))


@router.get("/collections/{ref}", response=CollectionFull, summary="A collection, and how far its documents are")
async def get_collection(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> dict[str, Any]:
    return await in_place(request, workspace, _whole, ref)


@router.patch("/collections/{ref}", response=CollectionOut, summary="Rename, describe, restrict or open a collection")
async def change_collection(
    request: HttpRequest, ref: Ref, body: CollectionChange, workspace: UUID | None = None
) -> Collection:
    values = body.model_dump(exclude_unset=True)
    row: Collection = await in_place(request, workspace, collections.change, ref, values)
    return row


@router.delete(
    "/collections/{ref}", response={204: None}, summary="Delete a collection with all that it holds; its name is free"
)
async def delete_collection(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> HttpResponse:
    # In parts, each a short transaction. It is out of sight with the first one; if the client or the server goes away
    # in between, an admin deletes what is left in the same way.
    gone = await in_place(request, workspace, collections.begin_delete, ref)
    while not await in_place(request, workspace, collections.delete_some, gone):
        pass
    return HttpResponse(status=204)


@router.get(
    "/collections/{ref}/stats", response=StatsOut, summary="How much a collection holds, and its vectors' model"
)
async def get_stats(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> dict[str, Any]:
    return await in_place(request, workspace, collections.stats, ref)


@router.get("/collections/{ref}/members", response=MemberPage, summary="Who reads a restricted collection; for admins")
async def list_members(
    request: HttpRequest,
    ref: Ref,
    *,
    workspace: UUID | None = None,
    limit: Limit = 30,
    before: UUID | None = None,
) -> dict[str, Any]:
    def read(scope: Scope) -> dict[str, Any]:
        page, following = newest_first(collections.members(scope, ref), limit=limit, before=before)
        return {"members": page, "next": following}

    return await in_place(request, workspace, read)


@router.put(
    "/collections/{ref}/members/{user_id}",
    response=MemberOut,
    summary="Let a member of the workspace in; for admins",
)
async def put_member(
    request: HttpRequest, ref: Ref, user_id: int, body: MemberIn, workspace: UUID | None = None
) -> CollectionMember:
    row: CollectionMember = await in_place(
        request, workspace, collections.put_member, ref, user_id, can_write=body.can_write
    )
    return row


@router.delete(
    "/collections/{ref}/members/{user_id}", response={204: None}, summary="Let somebody in no more; for admins"
)
async def drop_member(request: HttpRequest, ref: Ref, user_id: int, workspace: UUID | None = None) -> HttpResponse:
    await in_place(request, workspace, collections.drop_member, ref, user_id)
    return HttpResponse(status=204)


def _whole(scope: Scope, ref: UUID | str) -> dict[str, Any]:
    row = collections.readable(scope, ref)
    names = [field.attname for field in row._meta.concrete_fields]
    return {name: getattr(row, name) for name in names} | {"documents": collections.counts(row.pk)}
