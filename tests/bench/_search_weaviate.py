"""Weaviate for `search.py`: a native server, filled and served, and its own hybrid search on the same collection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import weaviate
from weaviate.classes.query import HybridFusion, MetadataQuery

from servicekit.adapters.weaviate.address import connect, parse_address
from servicekit.adapters.weaviate.naming import chunks_collection, tenant_name
from servicekit.adapters.weaviate.schema import CHUNK_PROPERTIES, WORDS, words_of
from servicekit.adapters.weaviate.vector_store import open_vector_store
from servicekit.ports.embedder import Vector
from services.local.layout import TENANT, choose_ports
from services.local.native_server import running_server
from services.local.native_weaviate import on_ports
from services.retriever.search.profiles import SearchProfile
from tests.bench._search_corpus import SearchCorpus
from tests.bench._search_stand import SMALL_TENANT, RawSearch, Tenants, fill, running_retriever


@asynccontextmanager
async def weaviate_stand(folder: Path, corpus: SearchCorpus, *, small: int, model: str) -> AsyncIterator[Tenants]:
    """Weaviate: filled, then served."""
    native = on_ports(folder / "weaviate", choose_ports({}, free=True).by_name)
    with running_server(native):
        async with open_vector_store(native.url) as store:
            await fill(store, TENANT, corpus, chunks=len(corpus.texts), model=model)
            await fill(store, SMALL_TENANT, corpus, chunks=small, model=model)
        address = parse_address(native.url)
        collection = chunks_collection(address.prefix, model)
        async with connect(address) as client, running_retriever(folder, native.url) as (large, small_stub):
            raw, raw_small = (_raw(client, collection, tenant) for tenant in (TENANT, SMALL_TENANT))
            yield Tenants(large, small_stub, raw, raw_small)


def _raw(client: weaviate.WeaviateAsyncClient, collection: str, tenant: str) -> RawSearch:
    chunks = client.collections.use(collection).with_tenant(tenant_name(tenant))
    score = MetadataQuery(score=True)

    async def search(text: str, vector: Vector, top_k: int) -> list[str]:
        reply = await chunks.query.hybrid(
            words_of(text) or text,
            vector=list(vector),
            alpha=SearchProfile().dense_weight,
            fusion_type=HybridFusion.RELATIVE_SCORE,
            query_properties=[WORDS],
            limit=top_k,
            return_properties=CHUNK_PROPERTIES,
            return_metadata=score,
        )
        return [str(one.properties["body"]) for one in reply.objects]

    return search
