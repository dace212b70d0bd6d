"""Who a process is: the service it runs and this one start of it.

Pure; made once by the runtime, carried by every event and by producer reports.
"""

from dataclasses import dataclass
from datetime import datetime

from uuid_utils.compat import uuid7


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """One start of one process of one service.

    `name` is the service (`retriever`) and becomes `ce_source`; `producer` is unique to this start.
    """

    name: str
    producer: str
    start_time: datetime


def new_identity(name: str, *, start_time: datetime) -> ServiceIdentity:
    """A fresh identity; its producer id is a UUIDv7, so that producers sort by their start."""
    return ServiceIdentity(name=name, producer=str(uuid7()), start_time=start_time)
