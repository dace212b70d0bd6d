"""Tests of the vault: what was redacted comes back exactly for its conversation, and for nobody and nowhere else."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from servicekit.adapters.memory.state_store import MemoryStateStore
from servicekit.domain.verdict import Span
from servicekit.errors import BackendUnavailable, InvalidRequest
from servicekit.testing.clocks import FakeClock
from services.guardrail import pseudonyms as bounds
from services.guardrail.pseudonyms import Pseudonyms
from services.guardrail.redacting import Found, Redacted, Redactor, Replaceable
from services.guardrail.sealing import Owner, Sealer
from services.guardrail.vault import Vault
from tests.unit.guardrail.guardrail_fakes import VAULT_KEY, make_vault

OWNER = Owner("acme", "c-1")
NEW_KEY = b"n" * 32
ADDRESS = "ada@analytical.org"


@dataclass
class YieldingStore:
    """A store that lets others go first at every call, counts calls, and can be away."""

    inner: MemoryStateStore = field(default_factory=MemoryStateStore)
    away: bool = False
    calls: int = 0

    async def _step(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.away:
            raise BackendUnavailable("away", reason="STATE_STORE_UNAVAILABLE")

    async def get(self, key: str) -> bytes | None:
        """After others."""
        await self._step()
        return await self.inner.get(key)

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """After others."""
        await self._step()
        await self.inner.put(key, value, ttl_s=ttl_s)

    async def swap(self, key: str, *, expected: bytes | None, value: bytes | None, ttl_s: float) -> bool:
        """After others."""
        await self._step()
        return await self.inner.swap(key, expected=expected, value=value, ttl_s=ttl_s)

    async def ping(self) -> None:
        """After others."""
        await self._step()


def whole(text: str, kind: str = "EMAIL") -> Found:
    """A text that is replaced from its beginning to its end."""
    return Found(text, (Replaceable(Span(0, len(text)), kind),))


async def redact(vault: Vault, *texts: Found, owner: Owner = OWNER, remember: bool = True) -> Redacted:
    """As a check does."""
    return await Redactor(vault).redact(texts, owner, remember=remember)


async def restored(vault: Vault, text: str, *, owner: Owner = OWNER) -> str:
    """As RestoreText does."""
    return (await vault.restore(owner, [text]))[0].text


def values_of(store: MemoryStateStore) -> dict[str, bytes]:
    """All that the store keeps."""
    return {key: entry.value for share in store._shares.values() for key, entry in share.entries.items()}


kinds = st.sampled_from(["EMAIL", "PHONE", "SECRET", "US_SSN", "X"])
placeholders = st.builds("[{}_{}{}]".format, kinds, st.integers(0, 4), st.sampled_from(["", "b", "c"]))
words = st.one_of(
    st.text(max_size=6),
    placeholders,
    st.sampled_from(
        [ADDRESS, ADDRESS.upper(), "Ada@Analytical.org", "+44 7911", "+447911", "[", "]", "[EMAIL_", "_1]"]
    ),
)


@st.composite
def found_texts(draw: st.DrawFn) -> Found:
    """Any text with any spans, overlapping ones too, of any kinds."""
    text = "".join(draw(st.lists(words, max_size=8)))
    found = []
    for start, length, kind in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25), kinds), max_size=5)):
        if start < min(start + length, len(text)):
            found.append(Replaceable(Span(start, min(start + length, len(text))), kind))
    return Found(text, tuple(found))


@given(st.lists(found_texts(), min_size=1, max_size=5))
@settings(deadline=None)
def test_redacting_and_restoring_is_the_identity(texts: list[Found]) -> None:
    """Each text of a conversation comes back as it was, whatever was said before and after it.

    A placeholder that the conversation had given out before and that is typed again means its value, and comes back
    so: a text comes back as what it would have been read as when it was typed.
    """

    async def run() -> None:
        vault = make_vault()
        said = []
        for one in texts:
            meant = await restored(vault, one.text)
            read = one.text if meant == one.text else None
            redacted = (await redact(vault, one)).texts[0]
            said.append((one, read, redacted))
        for one, read, redacted in said:
            back = await restored(vault, redacted)
            if read is not None:
                assert back == one.text
            for item in one.replaceable:
                assert one.text[item.span.start : item.span.end] in back

    asyncio.run(run())


@given(found_texts())
@settings(deadline=None)
def test_nobody_else_learns_anything(found: Found) -> None:
    """Another tenant, another conversation, a request of that name, and everybody after expiry get placeholders."""

    async def run() -> None:
        clock = FakeClock()
        vault = make_vault(MemoryStateStore(clock=clock), clock=clock)
        redacted = (await redact(vault, found)).texts[0]
        others = (Owner("globex", "c-1"), Owner("acme", "c-2"), Owner("acme", "c-1", of_request=True))
        for other in others:
            assert await restored(vault, redacted, owner=other) == redacted
        clock.advance(27 * 3600)
        assert await restored(vault, redacted) == redacted

    asyncio.run(run())


async def test_ways_of_writing_share_a_number_and_come_back_exactly() -> None:
    """The model sees one person; each way of writing the value has a letter of its own."""
    vault = make_vault()
    said = [(await redact(vault, whole(text))).texts[0] for text in ("Ada@a.org", "ada@A.org", "Ada@a.org", "b@b.org")]
    assert said == ["[EMAIL_1]", "[EMAIL_1b]", "[EMAIL_1]", "[EMAIL_2]"]
    assert await restored(vault, " ".join(said)) == "Ada@a.org ada@A.org Ada@a.org b@b.org"


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [("1.2.3.45", "12.3.4.5", "IP"), ("j.doe@x.org", "jdoe@x.org", "EMAIL"), ("aB3", "Ab3", "SECRET")],
)
async def test_different_values_get_different_numbers(one: str, other: str, kind: str) -> None:
    """Dots count in addresses, and case in secrets."""
    vault = make_vault()
    assert (await redact(vault, whole(one, kind), whole(other, kind))).texts == (f"[{kind}_1]", f"[{kind}_2]")


async def test_only_what_users_typed_comes_back() -> None:
    """A value of a document has a placeholder that agrees and is not remembered, until a user types it."""
    vault = make_vault()
    assert (await redact(vault, whole(ADDRESS), remember=False)).texts == ("[EMAIL_1]",)
    assert await restored(vault, "[EMAIL_1]") == "[EMAIL_1]"
    assert (await redact(vault, whole(ADDRESS))).texts == ("[EMAIL_1]",)
    assert await restored(vault, "[EMAIL_1] [EMAIL_9]") == f"{ADDRESS} [EMAIL_9]"


async def test_a_typed_placeholder_is_never_given_out() -> None:
    """Not in the text that holds it, nor in a later one; a typed letter too."""
    vault = make_vault()
    await redact(vault, Found("What is [EMAIL_1]? And [EMAIL_2b]?", ()))
    assert (await redact(vault, whole("a@a.org"), whole("A@a.org"))).texts == ("[EMAIL_2]", "[EMAIL_2c]")
    assert await restored(vault, "[EMAIL_1] [EMAIL_2b]") == "[EMAIL_1] [EMAIL_2b]"


async def test_the_store_tells_nothing() -> None:
    """No value, kind or name of a conversation stands in the store, and what is kept is sealed anew each time."""
    store = MemoryStateStore()
    vault = make_vault(store)
    await redact(vault, whole(ADDRESS), owner=Owner("acme", "conversation-of-ada"))
    ((key, first),) = values_of(store).items()
    await redact(vault, whole("b@b.org"), owner=Owner("acme", "conversation-of-ada"))
    assert key.startswith("vault:acme:")
    assert not any(word in f"{key}{first!r}" for word in ("of-ada", "analytical", "EMAIL", "conversation"))
    assert values_of(store)[key][5:17] != first[5:17]


async def test_a_map_copied_to_another_conversation_does_not_open() -> None:
    """Whoever can write to the store cannot have another conversation restored in theirs."""
    store = MemoryStateStore()
    vault = make_vault(store)
    await redact(vault, whole(ADDRESS))
    (sealed,) = values_of(store).values()
    (place,) = Sealer([VAULT_KEY]).places(Owner("acme", "mine"))
    await store.put(place, sealed, ttl_s=60)
    with pytest.raises(BackendUnavailable, match="vault_key_file"):
        await vault.restore(Owner("acme", "mine"), ["[EMAIL_1]"])
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    await store.put(Sealer([VAULT_KEY]).places(OWNER)[0], flipped, ttl_s=60)
    with pytest.raises(BackendUnavailable):
        await vault.restore(OWNER, ["[EMAIL_1]"])


async def test_keys_rotate_while_conversations_go_on() -> None:
    """Added second, moved up, the old one removed: replicas agree on the way, and a foreign key opens nothing."""
    store = MemoryStateStore()
    old, both, new_first = (
        make_vault(store, keys=keys) for keys in ([VAULT_KEY], [VAULT_KEY, NEW_KEY], [NEW_KEY, VAULT_KEY])
    )
    await redact(old, whole("a@a.org"))
    await redact(new_first, whole("b@b.org"))
    assert await restored(both, "[EMAIL_1] [EMAIL_2]") == "a@a.org b@b.org"
    assert (await redact(both, whole("b@b.org"))).texts == ("[EMAIL_2]",)
    assert await restored(make_vault(store, keys=[b"x" * 32]), "[EMAIL_1]") == "[EMAIL_1]"


@pytest.mark.parametrize("keys", [[], [b"short"], [VAULT_KEY, b"x" * 31]])
def test_keys_of_another_length_are_refused(keys: list[bytes]) -> None:
    """The message names the setting and the lengths, no key."""
    with pytest.raises(InvalidRequest, match="vault_key_file") as refused:
        make_vault(keys=keys)
    assert "short" not in str(refused.value)


@pytest.mark.parametrize("seed", range(5))
async def test_replicas_that_redact_at_once_agree(seed: int) -> None:
    """Of many checks of one conversation on two replicas every value has one number, no number two values."""
    store = YieldingStore()
    replicas = [make_vault(store), make_vault(store)]
    chosen = random.Random(seed)
    texts = [f"{chosen.randrange(12)}@x.org" for _ in range(40)]
    said = await asyncio.gather(*(redact(chosen.choice(replicas), whole(text)) for text in texts))
    assert all(one.whole for one in said)
    pairs = {(text, one.texts[0]) for text, one in zip(texts, said, strict=True)}
    assert len(pairs) == len({text for text, _ in pairs}) == len({name for _, name in pairs})
    for text, name in pairs:
        assert await restored(replicas[0], name) == text


async def test_a_replica_that_dies_before_it_keeps_gives_nothing_out() -> None:
    """Cancelled between its look and its write, its numbers are free for the next."""
    store = YieldingStore()
    dying = asyncio.create_task(redact(make_vault(store), whole("a@a.org")))
    await asyncio.sleep(0)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert (await redact(make_vault(store), whole("b@b.org"))).texts == ("[EMAIL_1]",)


async def test_without_the_store_placeholders_agree_and_cannot_clash() -> None:
    """Every replica gives the same, unlike any that is numbered; what the store kept is back with it."""
    store, clock = YieldingStore(), FakeClock()
    one, other = make_vault(store, clock=clock), make_vault(store)
    await redact(one, whole("first@a.org"))
    store.away = True
    away = await redact(one, whole(ADDRESS), whole("b@b.org"), whole(ADDRESS.upper()))
    assert not away.whole
    assert away.texts[0] == away.texts[2] != away.texts[1]
    assert away.texts[0].startswith("[EMAIL_x")
    assert (await redact(other, whole(ADDRESS))).texts[0] == away.texts[0]
    with pytest.raises(BackendUnavailable):
        await one.restore(OWNER, [away.texts[0]])
    store.away = False
    clock.advance(2)
    assert await restored(one, f"[EMAIL_1] {away.texts[0]}") == f"first@a.org {away.texts[0]}"


async def test_a_store_that_failed_is_left_alone_for_a_second() -> None:
    """Checks do not each wait for it to fail again."""
    store, clock = YieldingStore(away=True), FakeClock()
    vault = make_vault(store, clock=clock)
    for _ in range(5):
        await redact(vault, whole(ADDRESS))
    assert store.calls == 1
    clock.advance(1.5)
    await redact(vault, whole(ADDRESS))
    assert store.calls == 2


async def test_pseudonyms_live_as_long_as_their_conversation() -> None:
    """Turns that redact nothing keep them alive, at one look an hour; those of a request end sooner."""
    clock = FakeClock()
    store = YieldingStore(MemoryStateStore(clock=clock))
    vault = make_vault(store, clock=clock)
    request = Owner("acme", "r-1", of_request=True)
    await redact(vault, whole(ADDRESS))
    await redact(vault, whole(ADDRESS), owner=request)
    for _ in range(40):
        clock.advance(3601)
        before = store.calls
        await redact(vault, Found("And now?", ()))
        await redact(vault, Found("And then?", ()))
        assert store.calls == before + 2
    assert await restored(vault, "[EMAIL_1]") == ADDRESS
    assert await restored(vault, "[EMAIL_1]", owner=request) == "[EMAIL_1]"


async def test_what_is_forgotten_does_not_come_back() -> None:
    """Erased under every key; numbers begin anew."""
    store = MemoryStateStore()
    await redact(make_vault(store), whole(ADDRESS))
    rotated = make_vault(store, keys=[NEW_KEY, VAULT_KEY])
    await rotated.forget(OWNER)
    assert values_of(store) == {}
    assert await restored(rotated, "[EMAIL_1]") == "[EMAIL_1]"


async def test_nothing_is_kept_for_a_check_outside_of_any_request() -> None:
    """Its placeholders are numbered, and gone with it."""
    store = MemoryStateStore()
    assert (await redact(make_vault(store), whole(ADDRESS), owner=Owner("acme", ""))).texts == ("[EMAIL_1]",)
    assert values_of(store) == {}


async def test_a_conversation_is_bounded() -> None:
    """Past its bounds values get placeholders that cannot be put back, and the result says so."""
    store = MemoryStateStore()
    vault = make_vault(store)
    many = [whole(f"{n}@x.org") for n in range(bounds.MAX_VALUES + 5)]
    flood = await redact(vault, *many)
    assert not flood.whole
    assert flood.texts[bounds.MAX_VALUES].startswith("[EMAIL_x")
    assert await restored(vault, flood.texts[0]) == "0@x.org"
    assert max(map(len, values_of(store).values())) < 1_000_000
    long = await redact(vault, whole("s" * (bounds.MAX_VALUE_CHARS + 1), "SECRET"), owner=Owner("acme", "c-2"))
    assert long.texts[0].startswith("[SECRET_x")


async def test_a_flood_of_typed_placeholders_makes_no_clash() -> None:
    """Where no more can be noted, nothing numbered is given out any more; what was comes back."""
    vault = make_vault()
    await redact(vault, whole(ADDRESS))
    typed = " ".join(f"[PHONE_{n}]" for n in range(1, bounds.MAX_TYPED + 10))
    await redact(vault, Found(typed, ()))
    after = await redact(vault, whole("+44", "PHONE"))
    assert after.texts[0].startswith("[PHONE_x")
    assert await restored(vault, f"{typed} [EMAIL_1]") == f"{typed} {ADDRESS}"


async def test_a_text_without_placeholders_needs_no_store() -> None:
    """It comes back at once, even while the store is away."""
    store = YieldingStore(away=True)
    assert await restored(make_vault(store), "Nothing here.") == "Nothing here."
    assert store.calls == 0


async def test_restoring_is_bounded() -> None:
    """A text cannot be made to grow without end; what is too much stays."""
    vault = make_vault()
    await redact(vault, whole("s" * 60_000, "SECRET"))
    (back,) = await vault.restore(OWNER, ["[SECRET_1]" * 100])
    assert len(back.text) <= bounds.MAX_RESTORED_CHARS
    assert back.restored + back.unknown == 100
    assert back.unknown > 80


async def test_no_value_shows_in_logs_and_representations() -> None:
    """Whatever happens to the store, what is printed of the vault's parts holds no value."""
    store = YieldingStore()
    vault = make_vault(store)
    with capture_logs() as logs:
        await redact(vault, whole(ADDRESS))
        opened = await vault.open(OWNER)
        updated = await vault.update(OWNER, lambda kept: kept.restore("[EMAIL_1]"))
        store.away = True
        await redact(vault, whole(ADDRESS))
        with pytest.raises(BackendUnavailable) as failed:
            await vault.restore(OWNER, [f"[EMAIL_1] {ADDRESS}"])
    shown = f"{logs}{opened}{opened.pseudonyms!r}{updated}{failed.value}{whole(ADDRESS)}{vault!r}"
    assert any(line["event"] == "vault.unavailable" for line in logs)
    assert "analytical" not in shown
    assert "c-1" not in f"{logs}{failed.value}"


def test_what_is_encoded_is_read_again() -> None:
    """Half a pair of a character, an old number and all."""
    kept = Pseudonyms(digest_key=VAULT_KEY)
    said = [kept.placeholder("X", value, remember=True) for value in ("\ud800", "b", "B")]
    again = Pseudonyms.decode(kept.encode(renewed_s=5.0), digest_key=VAULT_KEY)
    assert [again.placeholder("X", value, remember=True) for value in ("\ud800", "b", "B", "c")] == [*said, "[X_3]"]
    assert again.restore("[X_2b]").text == "B"
    assert again.renewed_s == 5.0
