"""Takes in a request's body: bounded, decoded as it comes, straight into memory that the engine can read.

Called by `services.local.clickhouse.http`.
"""

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect

from services.local.clickhouse.body import Body, BodyMemory
from services.local.clickhouse.compression import BodyDecoder, UnknownEncodingError
from services.local.clickhouse.errors import refusal


async def receive_body(stream: AsyncIterator[bytes], *, encoding: str, memory: BodyMemory) -> Body:
    """The whole body, decoded.

    Raises:
        EngineError: it is too large or not in its encoding, memory is short, or the client left.
    """
    body = Body(memory)
    try:
        if encoding.strip().lower() in {"", "identity"}:
            async for part in stream:
                body.write(part)
        else:
            decoder = BodyDecoder(encoding)
            async for part in stream:
                for piece in decoder.decode(part):
                    body.write(piece)
            decoder.finish()
    except UnknownEncodingError as error:
        raise refusal(str(error), code=89, name="UNKNOWN_COMPRESSION_METHOD") from error
    except ClientDisconnect as error:
        raise refusal("the client left", code=210, name="NETWORK_ERROR") from error
    return body
