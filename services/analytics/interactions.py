"""Reads interactions, and what became of them, from the tables.

Called by `server.py`; rows become messages in `convert.py`. Statements are put together from names of our own;
values are always bound.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from servicekit.errors import NotFound
from servicekit.ports.analytics_store import AnalyticsStore
from services.analytics.window import Page, Tenancy

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """What is selected for each kind of row; made by `convert.py` from the messages they will be."""

    interaction: str
    evaluation: str
    feedback: str


@dataclass(frozen=True, slots=True)
class InteractionDossier:
    """One interaction and everything said about it."""

    interaction: Row
    verdicts: Sequence[Row]
    evaluations: Sequence[Row]
    feedback: Sequence[Row]


class InteractionReader:
    """Reads collapsed rows only: an event that is stored twice is seen once."""

    def __init__(self, store: AnalyticsStore, columns: Columns) -> None:
        self._store = store
        self._columns = columns

    async def get(self, request_id: str, *, tenancy: Tenancy) -> InteractionDossier:
        """One interaction.

        Raises:
            NotFound: there is none of that id for this tenant, or it is not stored yet.
        """
        parameters = {"request_id": request_id, **tenancy.parameters}
        where = f"WHERE {tenancy.condition} AND request_id = {{request_id:String}}"
        found = await self._store.query(
            f"SELECT {self._columns.interaction} FROM interactions_raw FINAL {where} LIMIT 1",  # noqa: S608  # see above
            parameters,
        )
        if not found:
            raise NotFound(
                f"no interaction {request_id[:80]!r} is stored for this tenant: check the id; an answer of the last "
                "two seconds may not be stored yet",
                reason="INTERACTION_NOT_FOUND",
            )
        # The other tables are asked as the tenant the interaction belongs to, also for an admin.
        parameters["tenant"] = str(found[0]["tenant_id"])
        where = "WHERE tenant = {tenant:String} AND request_id = {request_id:String}"
        decisions, evaluations, feedback = await asyncio.gather(
            self._store.query(
                f"SELECT verdicts FROM guardrail_decisions_raw FINAL {where} ORDER BY surface, piece, decide_time",  # noqa: S608  # see above
                parameters,
            ),
            self._store.query(
                f"SELECT {self._columns.evaluation} FROM evaluations_raw FINAL {where} ORDER BY metric, metric_version",  # noqa: S608  # see above
                parameters,
            ),
            self._store.query(
                f"SELECT {self._columns.feedback} FROM feedback_raw FINAL {where} ORDER BY record_time",  # noqa: S608  # see above
                parameters,
            ),
        )
        return InteractionDossier(
            interaction=found[0],
            verdicts=[verdict for decision in decisions for verdict in decision["verdicts"]] or found[0]["verdicts"],
            evaluations=evaluations,
            feedback=_standing(feedback),
        )

    async def list_page(self, page: Page, *, size: int, tenancy: Tenancy) -> tuple[Sequence[Row], Page | None]:
        """At most `size` interactions, newest first, and the page behind them where there are more."""
        conditions = [
            tenancy.condition,
            "complete_time >= {start:DateTime64(6, 'UTC')}",
            "complete_time < {end:DateTime64(6, 'UTC')}",
        ]
        parameters: dict[str, Any] = {
            "start": page.window.start,
            "end": page.window.end,
            "limit": size + 1,
            **tenancy.parameters,
        }
        for name, value in (("route", page.route), ("conversation_id", page.conversation_id)):
            if value:
                conditions.append(f"{name} = {{{name}:String}}")
                parameters[name] = value
        if page.after_time is not None:
            conditions.append("(complete_time, event_id) < ({after_time:DateTime64(6, 'UTC')}, {after_id:String})")
            parameters |= {"after_time": page.after_time, "after_id": page.after_id}
        rows = await self._store.query(
            f"SELECT {self._columns.interaction}, event_id FROM interactions_raw FINAL "  # noqa: S608  # see above
            f"WHERE {' AND '.join(conditions)} ORDER BY complete_time DESC, event_id DESC LIMIT {{limit:UInt32}}",
            parameters,
        )
        if len(rows) <= size:
            return rows, None
        last = rows[size - 1]
        return rows[:size], replace(page, after_time=last["complete_time"], after_id=str(last["event_id"]))


def _standing(feedback: Sequence[Row]) -> Sequence[Row]:
    superseded = {row["supersedes"] for row in feedback if row["supersedes"]}
    return [row for row in feedback if row["feedback_id"] not in superseded]
