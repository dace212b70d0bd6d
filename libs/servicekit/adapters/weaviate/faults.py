"""Weaviate's errors as ours, and the bound of every wait. Used around each call of this package."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
from weaviate.exceptions import WeaviateBaseError

from servicekit.errors import BackendUnavailable


@asynccontextmanager
async def bounded(timeout_s: float) -> AsyncIterator[None]:
    """Whatever stands in the block ends within the time, or fails as BackendUnavailable.

    The client asks again by itself while the server cannot be reached, for half a minute; this cuts that short.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        raise BackendUnavailable(
            f"the vector store did not answer within {timeout_s:g} s: try again", reason="VECTOR_STORE_TIMEOUT"
        ) from exc
    except (WeaviateBaseError, grpc.RpcError, httpx.HTTPError, OSError) as exc:
        raise BackendUnavailable("the vector store failed: try again", reason="VECTOR_STORE_FAILED") from exc
