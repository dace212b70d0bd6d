"""Who writes and who searches while the retriever dies: each document's life, and loops that check every answer.

Used by `ingest.py`. A call that fails is made again until it is answered, as a careful caller does.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from binnacle.retriever.v1 import retriever_service_pb2 as rpc
from binnacle.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from binnacle.type.v1 import chunk_pb2
from tests.chaos.ingest_documents import WORD, Act, Script, Step, text_of, word_of
from tests.chaos.ingest_judging import Known, Tally, judge, judge_together

_AGAIN_S = 0.1
_BREATH_S = 0.05  # the retriever writes bit by bit while it is searched: searches all the time would starve it
_CALL_S = 5.0
_SETTLED_WITHIN_S = 120.0
_MODES = (rpc.SEARCH_MODE_HYBRID, rpc.SEARCH_MODE_DENSE, rpc.SEARCH_MODE_SPARSE)
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class NotSettled(Exception):  # noqa: N818  # says what happened
    """What was handed in could not be found in time."""


@dataclass
class Callers:
    """The callers of one run, and what they saw; `files` is where the retriever may fetch from."""

    stub: RetrieverServiceStub
    scripts: Sequence[Script]
    files: Path
    tally: Tally = field(default_factory=Tally)
    submitted: int = 0
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is known of any document yet."""
        self.known: Mapping[str, Known] = {one.document_id: Known(one.document_id) for one in self.scripts}
        self._newest_version = 0
        self._stopped = False

    async def write_all(self) -> None:
        """Every document's life, all at once; returns when each has ended as its script does."""
        async with asyncio.TaskGroup() as tasks:
            for script in self.scripts:
                tasks.create_task(self._write(script))

    async def search_on(self) -> None:
        """Search for one document after the other, and for all of them, until `stop`."""
        turns = itertools.count()
        while not self._stopped:
            turn = next(turns)
            script = self.scripts[turn % len(self.scripts)]
            mode = _MODES[turn // len(self.scripts) % len(_MODES)]
            await self.look_for(script.document_id, mode=mode)
            await self._look_around(mode)
            await asyncio.sleep(_BREATH_S)

    def stop(self) -> None:
        """Let the search loop end."""
        self._stopped = True

    async def _write(self, script: Script) -> None:
        try:
            for step in script.steps:
                await self._do(script.document_id, step)
            await self._settle(script)
        except NotSettled as exc:
            self.lost.append(str(exc))

    async def _do(self, document_id: str, step: Step) -> None:
        known = self.known[document_id]
        match step.act:
            case Act.SUBMIT:
                known.submitting(step.edition)
                request = rpc.SubmitDocumentRequest(document=self._document(document_id, step))
                await self._insist(lambda: self.stub.SubmitDocument(request, timeout=_CALL_S))
                self.submitted += 1
                if step.await_it:
                    await self._await_edition(document_id, step.edition)
            case Act.RETRACT:
                known.withdrawing()
                retract = rpc.RetractDocumentRequest(document_id=document_id, reason="chaos")
                await self._insist(
                    lambda: self.stub.RetractDocument(retract, timeout=_CALL_S),
                    done_before=grpc.StatusCode.FAILED_PRECONDITION,
                )
                known.withdrawn()
            case Act.DELETE:
                known.withdrawing()
                delete = rpc.DeleteDocumentRequest(document_id=document_id)
                await self._insist(
                    lambda: self.stub.DeleteDocument(delete, timeout=_CALL_S),
                    done_before=grpc.StatusCode.NOT_FOUND,
                )
                known.withdrawn()

    def _document(self, document_id: str, step: Step) -> rpc.Document:
        text = text_of(document_id, step.edition)
        if not step.by_address:
            return rpc.Document(document_id=document_id, content=text.encode())
        file = self.files / f"{document_id}-{step.edition}.txt"
        file.write_text(text, encoding="utf-8")
        return rpc.Document(document_id=document_id, fetch_uri=file.as_uri(), media_type="text/plain")

    async def _insist(
        self, call: Callable[[], Awaitable[object]], *, done_before: grpc.StatusCode | None = None
    ) -> None:
        """Call until it is answered, if only with the word that an earlier try had done it."""
        tries = itertools.count(1)
        try:
            async with asyncio.timeout(_SETTLED_WITHIN_S):
                while True:
                    attempt = next(tries)
                    try:
                        await call()
                    except grpc.aio.AioRpcError as exc:
                        if exc.code() is done_before and attempt > 1:
                            return
                        if exc.code() not in _AWAY:
                            self.unexpected.append(f"{exc.code().name}: {exc.details()}")
                    else:
                        return
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            raise NotSettled(f"no answer within {_SETTLED_WITHIN_S:g} s") from None

    async def _settle(self, script: Script) -> None:
        if script.ends_as is Act.SUBMIT:
            await self._await_edition(script.document_id, script.last_edition)

    async def _await_edition(self, document_id: str, edition: int) -> None:
        try:
            async with asyncio.timeout(_SETTLED_WITHIN_S):
                while await self.look_for(document_id) < edition:
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            raise NotSettled(f"{document_id} edition {edition} not found within {_SETTLED_WITHIN_S:g} s") from None

    async def look_for(self, document_id: str, *, mode: "rpc.SearchMode.ValueType" = rpc.SEARCH_MODE_DENSE) -> int:
        """Search for all chunks of a document and judge them; the edition that was found, 0 for none."""
        known = self.known[document_id]
        began, had_to, must_not = known.changes, known.visible, known.hidden
        newest = known.newest_seen
        is_it = chunk_pb2.Comparison(
            field="_document_id",
            operator=chunk_pb2.OPERATOR_EQUAL,
            values=[chunk_pb2.MetadataValue(string_value=document_id)],
        )
        answer = await self._search(
            rpc.SearchChunksRequest(
                query=f"{WORD} of {word_of(document_id)}",
                mode=mode,
                top_k=100,
                filter=chunk_pb2.Filter(comparison=is_it),
            )
        )
        if answer is None:
            return 0
        findings = judge(document_id, [one.chunk for one in answer.chunks], editions=known.editions)
        for kind, what in findings.faults:
            self.tally.note(kind, what)
        unchanged = began == known.changes
        if not answer.chunks and had_to and unchanged:
            self.tally.note("missing_reads", f"{document_id} was not found though it was there before")
        if answer.chunks and must_not and unchanged:
            self.tally.note("hidden_reads", f"{document_id} was found though it was withdrawn")
        if findings.edition:
            if findings.edition < newest:
                self.tally.note("went_back", f"{document_id} from edition {newest} to {findings.edition}")
            known.seen(findings.edition, since=began)
        return findings.edition

    async def _look_around(self, mode: "rpc.SearchMode.ValueType") -> None:
        answer = await self._search(rpc.SearchChunksRequest(query=WORD, mode=mode, top_k=100))
        if answer is not None:
            for kind, what in judge_together([one.chunk for one in answer.chunks]):
                self.tally.note(kind, what)

    async def _search(self, request: rpc.SearchChunksRequest) -> rpc.SearchChunksResponse | None:
        """The answer, its corpus version checked; None while the retriever is away."""
        at_least = self._newest_version
        try:
            answer: rpc.SearchChunksResponse = await self.stub.SearchChunks(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as exc:
            if exc.code() not in _AWAY:
                self.unexpected.append(f"{exc.code().name}: {exc.details()}")
            self.tally.unavailable += 1
            await asyncio.sleep(_AGAIN_S)
            return None
        self.tally.searches += 1
        if answer.corpus_version < at_least:
            self.tally.note("version_fell", f"corpus version fell from {at_least} to {answer.corpus_version}")
        self._newest_version = max(self._newest_version, answer.corpus_version)
        return answer
