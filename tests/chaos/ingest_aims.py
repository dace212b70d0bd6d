"""What is killed in a run, and at which step: drawn from a seed. Pure; carried out by `ingest_killing.py`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_BROKER_SHARE = 0.3
_FIRST_S, _LAST_S = 0.2, 4.0


class Victim(StrEnum):
    """The processes of the stack."""

    RETRIEVER = "retriever"
    BROKER = "broker"


class Aim(StrEnum):
    """A step of the pipeline in which the retriever dies."""

    FETCH = "fetch"
    PREPARE = "prepare"
    GUARD = "guard"
    EMBED = "embed"
    WRITE = "write"
    STORE_COMMIT = "inside_the_stores_commit"
    PUBLISH = "between_write_and_publish"
    COMMIT = "between_publish_and_commit"


@dataclass(frozen=True, slots=True)
class Fault:
    """Kill `victim` `at_s` after it was ready; aimed: at the next such instant. `skip`: occasions let pass."""

    victim: Victim
    at_s: float
    aim: Aim | None = None
    skip: int = 0


def plan(seed: int, *, aims: Sequence[Aim]) -> Sequence[Fault]:
    """One aimed kill, each aim in its turn, then one at random; in some runs the broker's besides."""
    rng = random.Random(seed)
    faults = [
        Fault(Victim.RETRIEVER, rng.uniform(0, 1), aims[seed % len(aims)], skip=rng.randrange(3)),
        Fault(Victim.RETRIEVER, rng.uniform(_FIRST_S, _LAST_S)),
    ]
    if rng.random() < _BROKER_SHARE:
        faults.append(Fault(Victim.BROKER, rng.uniform(_FIRST_S, _LAST_S)))
    return faults
