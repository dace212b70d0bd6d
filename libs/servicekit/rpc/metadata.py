"""Document metadata between protobuf and Python. Used by every `convert.py` that carries chunks or documents."""

from collections.abc import Mapping

from binnacle.type.v1 import chunk_pb2
from servicekit.domain.chunk import MetadataScalar
from servicekit.errors import InvalidRequest


def metadata_from_proto(
    values: Mapping[str, chunk_pb2.MetadataValue], *, path: str = "metadata"
) -> dict[str, MetadataScalar]:
    """Metadata by name.

    Raises:
        InvalidRequest: a value of no kind; `path` names the field.
    """
    return {name: scalar_from_proto(value, path=f"{path}[{name!r}]") for name, value in values.items()}


def scalar_from_proto(value: chunk_pb2.MetadataValue, *, path: str) -> MetadataScalar:
    """The one kind that is set.

    Raises:
        InvalidRequest: none is.
    """
    kind = value.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest(f"{path} must hold a text, a number or a truth value, got none", field=path)
    scalar: MetadataScalar = getattr(value, kind)
    return scalar


def metadata_to_proto(metadata: Mapping[str, MetadataScalar]) -> dict[str, chunk_pb2.MetadataValue]:
    """Metadata as messages, each with its kind."""
    return {name: _value(scalar) for name, scalar in metadata.items()}


def _value(scalar: MetadataScalar) -> chunk_pb2.MetadataValue:
    match scalar:
        case bool():
            return chunk_pb2.MetadataValue(bool_value=scalar)
        case int():
            return chunk_pb2.MetadataValue(int_value=scalar)
        case float():
            return chunk_pb2.MetadataValue(double_value=scalar)
        case str():
            return chunk_pb2.MetadataValue(string_value=scalar)
