"""The spool: what it took is there in order after any restart, within its bound, and never shared or silently lost."""

import asyncio
import fcntl
import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.adapters.kafka import spool_file
from servicekit.adapters.kafka.spool import open_spool
from servicekit.adapters.kafka.spool_file import Lane, SpooledRecord, SpoolFile
from servicekit.errors import InvalidRequest

_TOPIC = "binnacle.feedback.recorded.v1"
_MAX_BYTES = 1024 * 1024


def record(
    sequence: int, *, partition: int = 0, producer: str = "p-1", size_bytes: int = 10, key: bytes | None = b"k"
) -> SpooledRecord:
    """A record whose value is its sequence."""
    value = str(sequence).encode().ljust(size_bytes, b".")
    headers = (("ce_id", f"e-{sequence}".encode()), ("ce_sequence", str(sequence).encode()))
    return SpooledRecord(_TOPIC, partition, producer, sequence, 1_700_000_000_000 + sequence, key, headers, value)


def sequences(found: Iterable[tuple[int, SpooledRecord]]) -> list[int]:
    """Those of what was read."""
    return [one.sequence for _, one in found]


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field survives a restart, an absent key and empty bytes too."""
    sent = [record(1), record(2, key=None), SpooledRecord(_TOPIC, 0, "p", 3, 0, b"", (("a", b"\x00"), ("b", b"")), b"")]
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        await spool.append(sent)[1]
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert [one for _, one in await spool.read((_TOPIC, 0))] == sent


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("remove"), st.integers(0, 2), st.integers(1, 7)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@given(_STEPS)
@settings(max_examples=25, deadline=None)
def test_order_holds_over_appends_removals_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: object
) -> None:
    """Each partition gives back what was put in and not taken out, oldest first, and counts it."""

    async def follow() -> None:
        folder, model, next_sequence = tmp_path_factory.mktemp("spool"), defaultdict[Lane, list[int]](list), 1
        remaining = list(steps)
        while remaining:
            async with open_spool(folder, service="gateway", max_bytes=_MAX_BYTES) as spool:
                assert set(spool.lanes()) == {lane for lane, left in model.items() if left}
                while remaining:
                    step, partition, number = remaining.pop(0)
                    lane = (_TOPIC, partition)
                    if step == "restart":
                        break
                    if step == "append":
                        new = range(next_sequence, next_sequence + number)
                        next_sequence = new.stop
                        spool.append([record(one, partition=partition) for one in new])
                        model[lane] += new
                    elif model[lane]:
                        spool.remove(await spool.read(lane, max_events=number))
                        del model[lane][:number]
                    assert sequences(await spool.read(lane)) == model[lane]
                    assert spool.holds(lane) == bool(model[lane])

    asyncio.run(follow())


async def test_appends_that_wait_share_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred events at once cost a few transactions, not two hundred."""
    transactions = 0
    apply = SpoolFile.apply

    def counted(self: SpoolFile, *args: object) -> None:
        nonlocal transactions
        transactions += 1
        apply(self, *args)

    monkeypatch.setattr(SpoolFile, "apply", counted)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        await asyncio.gather(*(spool.append([record(number)])[1] for number in range(1, 201)))
        assert transactions < 20
        assert sequences(await spool.read((_TOPIC, 0))) == list(range(1, 201))


async def test_full_spool_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    """The bound holds over a restart; what is removed makes room."""
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert spool.ok
        await spool.append([record(number, size_bytes=250_000) for number in range(1, 5)])[1]
        assert not spool.ok
        assert not spool.takes(250_000)
        assert spool.takes(10_000)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert not spool.takes(250_000)
        spool.remove(await spool.read((_TOPIC, 0), max_events=2))
        assert spool.takes(250_000)
        assert spool.ok


async def test_a_disk_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept of what the disk did not take; after a pause the next event tries it, and all is well again."""
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        apply = SpoolFile.apply

        def refuse(*args: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(SpoolFile, "apply", refuse)
        with pytest.raises(sqlite3.OperationalError):
            await spool.append([record(1)])[1]
        assert not spool.ok
        assert not spool.takes(10)
        assert not spool.holds((_TOPIC, 0))
        monkeypatch.setattr(SpoolFile, "apply", apply)
        spool._disk_again_s = 0.0
        assert spool.takes(10)
        await spool.append([record(2)])[1]
        assert spool.ok
        assert sequences(await spool.read((_TOPIC, 0))) == [2]


async def test_a_removal_that_failed_is_done_with_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Kafka has does not come back because the disk failed for an instant."""
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        await spool.append([record(1), record(2)])[1]
        apply = SpoolFile.apply

        def refuse_once(*args: object) -> None:
            monkeypatch.setattr(SpoolFile, "apply", apply)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(SpoolFile, "apply", refuse_once)
        spool.remove(await spool.read((_TOPIC, 0), max_events=1))
        assert sequences(await spool.read((_TOPIC, 0))) == [1, 2]
        await spool.append([record(3)])[1]
        assert sequences(await spool.read((_TOPIC, 0))) == [2, 3]


async def test_a_second_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes never share a spool; the message names the file and the way out."""
    monkeypatch.setattr(spool_file, "_LOCK_WITHIN_S", 0.1)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES):
        with pytest.raises(InvalidRequest, match="state_dir of its own") as refusal:
            async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES):
                pass
        assert str(tmp_path / "gateway.sqlite3") in refusal.value.message
        assert refusal.value.reason == "SPOOL_IN_USE"
        async with open_spool(tmp_path, service="guardrail", max_bytes=_MAX_BYTES):
            pass


async def test_the_lock_of_a_process_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    """A restart right after a kill does not fail on its predecessor's last instant."""
    handle = os.open(tmp_path / "gateway.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    asyncio.get_running_loop().call_later(0.2, os.close, handle)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert spool.ok


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The refusal names the path and what to do."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InvalidRequest, match="state_dir that it can write to"):
        async with open_spool(tmp_path / "file", service="gateway", max_bytes=_MAX_BYTES):
            pass


@pytest.mark.parametrize("damage", ["garbage", "torn page"])
async def test_a_corrupt_file_is_set_aside(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The spool opens empty and works; the damaged file is kept beside it, and the log says where."""
    path = tmp_path / "gateway.sqlite3"
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        await spool.append([record(number, size_bytes=5_000) for number in range(1, 50)])[1]
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content = bytearray(b"no database at all" * 500)
    else:
        content[8192:16384] = os.urandom(8192)
    path.write_bytes(content)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert spool.lanes() == ()
        await spool.append([record(1)])[1]
        assert sequences(await spool.read((_TOPIC, 0))) == [1]
    (aside,) = tmp_path.glob("gateway.sqlite3.corrupt-*")
    assert aside.read_bytes() == bytes(content)
    assert "corrupt_set_aside" in capsys.readouterr().out


async def test_partition_counts_outlive_the_process(tmp_path: Path) -> None:
    """What Kafka told of a topic is known at a start without Kafka."""
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert spool.partitions(_TOPIC) is None
        spool.remember_partitions(_TOPIC, 7)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        assert spool.partitions(_TOPIC) == 7


async def test_an_emptied_file_gives_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long outage the disk is free again."""
    monkeypatch.setattr(spool_file, "_SHRINK_FROM_BYTES", 100_000)
    async with open_spool(tmp_path, service="gateway", max_bytes=_MAX_BYTES) as spool:
        await spool.append([record(number, size_bytes=10_000) for number in range(1, 50)])[1]
        spool.remove(await spool.read((_TOPIC, 0)))
    assert (tmp_path / "gateway.sqlite3").stat().st_size < 50_000


_APPEND_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from servicekit.adapters.kafka.spool import open_spool
from servicekit.adapters.kafka.spool_file import SpooledRecord

async def main(folder):
    async with open_spool(Path(folder), service="gateway", max_bytes=2**30) as spool:
        async def put(first):
            for number in range(first, 10**9, 8):
                one = SpooledRecord("t", first, "p", number, 0, b"k", (("ce_id", b"e"),), b"v" * 300)
                await spool.append([one])[1]
                print(number, flush=True)
        await asyncio.gather(*(put(first) for first in range(8)))

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_durable_is_there_after_kill_nine(tmp_path: Path) -> None:
    """Every append that was confirmed before a kill -9 is read afterwards, in order, and nothing half."""
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _APPEND_UNTIL_KILLED, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert killed.stdout is not None
    confirmed: list[int] = []
    async with asyncio.timeout(30):
        while len(confirmed) < 400:
            line = await killed.stdout.readline()
            assert line, "the process ended"
            confirmed += _numbers(line)
        killed.kill()
        confirmed += _numbers(*(await killed.stdout.read()).split(b"\n")[:-1])
        await killed.wait()
    found = list[int]()
    async with open_spool(tmp_path, service="gateway", max_bytes=2**30) as spool:
        for lane in spool.lanes():
            numbers = sequences(await spool.read(lane, max_events=10**6))
            assert numbers == list(range(lane[1], numbers[-1] + 1, 8))
            found += numbers
    assert set(confirmed) <= set(found)


def _numbers(*lines: bytes) -> list[int]:
    """Lines that are no log lines."""
    return [int(line) for line in lines if line.strip().isdigit()]
