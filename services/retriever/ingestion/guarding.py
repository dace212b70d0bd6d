"""Has the guardrail judge what is to be indexed: chunk texts, titles and headings. A step of `indexing.py`.

What a later search would have to be kept from is better kept out of the index. Texts that passed are remembered for a
while, by tenant and hash, so that a document that changes in one place is not judged wholly again.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from servicekit.domain.chunk import Chunk
from servicekit.domain.verdict import Action
from servicekit.ports.clock import Clock
from services.retriever.ingestion.preparing import search_text
from services.retriever.ingestion.progress import Stage
from services.retriever.ingestion.quality import Flag
from services.retriever.ingestion.work import Draft, Item, Work

_MAX_REMEMBERED = 100_000
_REMEMBERED_S = 300.0
_MAX_NAMED = 5


class GuardMode(StrEnum):
    """What is done about what the guardrail finds.

    `flag` only tells of it; `redact` stores redacted texts and refuses blocked ones; `refuse` refuses both.
    """

    OFF = "off"
    FLAG = "flag"
    REDACT = "redact"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was decided about one text; `text` is what to go on with, `detectors` are those that found something."""

    action: Action
    text: str
    detectors: tuple[str, ...] = ()


class Guard(Protocol):
    """Judges texts by the tenant's policy."""

    async def judge(
        self, tenant: str, texts: Mapping[str, str], *, document_id: str
    ) -> tuple[Mapping[str, Judgement], str]:
        """A judgement for each text, by the key it came with, and the version of the policy.

        Raises:
            BackendUnavailable, BackendTimeout, Overloaded: the guardrail does not answer.
        """
        ...


class GuardStep:
    """Flags, redacts or refuses, as decided."""

    def __init__(self, guard: Guard, *, mode: GuardMode, clock: Clock) -> None:
        self._guard = guard
        self._mode = mode
        self._passed = _Passed(clock)

    async def __call__(self, work: Work) -> None:
        """Judge each draft; the guardrail being away fails the whole, and it is tried again."""
        drafts = list(work.drafts())
        if drafts:
            await work.progress.enter(Stage.GUARDING)
        for item, draft in drafts:
            judged = await self._judge(work.tenant, draft)
            await self._act(work, item, draft, judged)

    async def _judge(self, tenant: str, draft: Draft) -> Mapping[str, Judgement]:
        """What was found, by text hash; texts that passed are absent."""
        texts = dict(_texts(draft))
        wanted = {key: text for key, text in texts.items() if not self._passed.holds(tenant, key)}
        if not wanted:
            return {}
        judged, version = await self._guard.judge(tenant, wanted, document_id=draft.document.document_id)
        self._passed.keep(tenant, version, [key for key, one in judged.items() if one.action is Action.ALLOW])
        return {key: one for key, one in judged.items() if one.action is not Action.ALLOW}

    async def _act(self, work: Work, item: Item, draft: Draft, judged: Mapping[str, Judgement]) -> None:
        if not judged:
            return
        refusing = {
            GuardMode.REDACT: {Action.BLOCK},
            GuardMode.REFUSE: {Action.BLOCK, Action.REDACT},
        }.get(self._mode, set())
        against = [one for one in judged.values() if one.action in refusing]
        if against:
            names = sorted({name for one in against for name in one.detectors})[:_MAX_NAMED]
            item.refuse_content(
                f"is against the guardrail's policy, found by {', '.join(names) or 'its rules'}: take it out",
                reason="GUARDRAIL_BLOCKED",
            )
            return
        item.flag(Flag.GUARDED)
        if self._mode is GuardMode.REDACT:
            redacted = {key: one.text for key, one in judged.items() if one.action is Action.REDACT}
            # In a thread: an embedder's tokenizer is CPU-bound, or asks a server.
            item.draft = await asyncio.to_thread(_redact, work, draft, redacted)


def _texts(draft: Draft) -> Iterator[tuple[str, str]]:
    """Everything that is stored of a document's content, by hash."""
    shown = [draft.document.title, *(name for chunk in draft.chunks for name in chunk.heading_path)]
    for text in dict.fromkeys([*(chunk.text for chunk in draft.chunks), *shown]):
        if text.strip():
            yield _hash(text), text


def _redact(work: Work, draft: Draft, redacted: Mapping[str, str]) -> Draft:
    """The draft with redacted texts; places in the source stay those of the original."""

    def shown(text: str) -> str:
        return redacted.get(_hash(text), text)

    document = replace(draft.document, title=shown(draft.document.title))

    def redact(chunk: Chunk) -> Chunk:
        text = shown(chunk.text)
        return replace(
            chunk,
            text=text,
            content_hash=_hash(text),
            token_count=chunk.token_count if text == chunk.text else work.embedder.tokenizer.count(text),
            title=document.title,
            heading_path=tuple(shown(name) for name in chunk.heading_path),
        )

    chunks = tuple(redact(chunk) for chunk in draft.chunks)
    return Draft(document, chunks, tuple(search_text(chunk, work.embedder) for chunk in chunks))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _Passed:
    """Texts that the guardrail let pass; a tenant's new policy forgets those of the old one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[str, str] = {}
        self._until_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    def holds(self, tenant: str, key: str) -> bool:
        until_s = self._until_s.get((tenant, self._versions.get(tenant, "") + key), 0.0)
        return until_s > self._clock.monotonic_s()

    def keep(self, tenant: str, version: str, keys: Sequence[str]) -> None:
        self._versions[tenant] = version
        until_s = self._clock.monotonic_s() + _REMEMBERED_S
        for key in keys:
            self._until_s[tenant, version + key] = until_s
        while len(self._until_s) > _MAX_REMEMBERED:
            self._until_s.popitem(last=False)
