"""A tenant's metadata fields: which there are, what kind each holds, and how a chunk presents them to a filter.

Pure; used by every vector store.
"""

from collections.abc import Iterable, Mapping

from servicekit.domain.chunk import Chunk, MetadataScalar
from servicekit.domain.filter import FieldKind, kind_of
from servicekit.errors import InvalidRequest

# A field is a column; more of them than this is a mistake of naming, such as an id in a field's name.
MAX_FIELDS = 256


def merge_fields(
    known: Mapping[str, FieldKind], metadata: Iterable[Mapping[str, MetadataScalar]]
) -> dict[str, FieldKind]:
    """The known fields and those of these documents.

    Raises:
        InvalidRequest: a field holds two kinds of values, or there are more than 256.
    """
    merged = dict(known)
    for values in metadata:
        for name, value in values.items():
            kind = kind_of(value)
            if merged.setdefault(name, kind) is not kind:
                raise InvalidRequest(
                    f"metadata field {name!r} holds {merged[name]} in this corpus, got {value!r}: "
                    "use one kind of value, or another name",
                    field=f"metadata[{name!r}]",
                    reason="METADATA_KIND_MISMATCH",
                )
    if len(merged) > MAX_FIELDS:
        raise InvalidRequest(
            f"a corpus has at most {MAX_FIELDS} metadata fields, this would make {len(merged)}",
            field="metadata",
            reason="TOO_MANY_METADATA_FIELDS",
        )
    return merged


def filter_fields(chunk: Chunk) -> Mapping[str, MetadataScalar]:
    """What a filter can compare: the document's metadata and the fields that every chunk has."""
    return {
        **chunk.metadata,
        "_document_id": chunk.document_id,
        "_title": chunk.title,
        "_source_uri": chunk.source_uri,
    }
