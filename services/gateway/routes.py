"""Routes: which model, retrieval and guards a question gets. Pure; chosen by name in `answering.py`."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from servicekit.errors import InvalidRequest
from services.gateway.question import Question, RetrievalMode
from services.gateway.validation import shown


class Route(BaseModel):
    """One route of the settings. A caller chooses a route by name and can switch off none of its guards.

    Without a guard nothing has been redacted: the record of such a request holds neither query nor answer, and no
    conversation keeps it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retrieval: bool = Field(default=True, description="Answer from retrieved chunks.")
    guard: bool = Field(default=True, description="Judge input, chunks and output.")
    model: str = Field(default="", description="The model alias; empty: the generator's default.")
    top_k: int = Field(default=8, ge=1, le=50, description="Chunks retrieved unless the question says.")
    mode: RetrievalMode = Field(default=RetrievalMode.HYBRID, description="dense, sparse or hybrid.")
    release: str = Field(default="default", description="The release that answers on this route.")


def pick_route(routes: Mapping[str, Route], question: Question) -> Route:
    """The route that the question names.

    Raises:
        InvalidRequest: no such route, or a pinned release that the route does not serve.
    """
    route = routes.get(question.route)
    if route is None:
        known = ", ".join(sorted(routes))
        raise InvalidRequest(
            f"question.route must be one of {known}, got {shown(question.route)}",
            field="question.route",
            reason="UNKNOWN_ROUTE",
        )
    if question.release not in ("", route.release):
        raise InvalidRequest(
            f"question.release must be empty or {route.release!r}, which route {question.route!r} serves, "
            f"got {shown(question.release)}",
            field="question.release",
            reason="UNKNOWN_RELEASE",
        )
    return route


def retrieval_mode(route: Route, question: Question) -> RetrievalMode:
    """What the question asks for, else what its route says; NONE where nothing is retrieved."""
    if question.retrieval_mode is not RetrievalMode.ROUTE:
        return question.retrieval_mode
    return route.mode if route.retrieval else RetrievalMode.NONE
