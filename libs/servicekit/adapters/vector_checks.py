"""What every vector store refuses, in the same words. Used by the adapters of that port."""

from servicekit.errors import InvalidRequest, NotFound, NotReady
from servicekit.ports.embedder import Vector


def check_model(model: str, *, held: str) -> None:
    """Refuse vectors of another model than the index's.

    Raises:
        NotReady: names both.
    """
    if model != held:
        raise NotReady(
            f"the index holds vectors of {held!r}, these are of {model!r}: embed with the index's model, or rebuild "
            "the index for the new one",
            reason="EMBEDDING_MODEL_MISMATCH",
        )


def check_vector(vector: Vector | None, *, dimension: int) -> Vector:
    """The vector, if it is one of this length.

    Raises:
        InvalidRequest: it is missing, or of another length.
    """
    if vector is None or len(vector) != dimension:
        given = "none" if vector is None else f"{len(vector)} values"
        raise InvalidRequest(f"vectors here have {dimension} values, got {given}", field="vector")
    return vector


def no_document(document_id: str) -> NotFound:
    """There is none, or it is deleted."""
    return NotFound(f"no document {document_id!r}", reason="DOCUMENT_NOT_FOUND")


def already_retracted(document_id: str) -> NotReady:
    """It is hidden already."""
    return NotReady(
        f"document {document_id!r} is retracted already; hand in changed content to bring it back",
        reason="DOCUMENT_RETRACTED",
    )
