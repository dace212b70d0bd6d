"""One Apache Kafka broker on loopback and on disk: its configuration, its storage and its command line.

Used by `supervisor.py` (`make up`), by `servers.py` (`make servers`) and by tests; `native_install.py` gets the broker.

A broker that is started again with the same folder and ports has all that it had, after a kill -9 too.
"""

import base64
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import ClassVar

from confluent_kafka import Consumer, KafkaException

from servicekit.errors import NotReady
from services.local.native_install import POM, find_java, install_kafka

_HOST = "127.0.0.1"
_TEMPLATE = POM.with_name("server.properties")
_FORMAT_WITHIN_S = 60.0
_ANSWER_S = 2.0
# A local stack's topics fit; the rest of the memory is the page cache's, where Kafka keeps what it serves.
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
_LOGGING = {
    "showDateTime": "true",
    "dateTimeFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "defaultLogLevel": "warn",  # a start is 3,000 lines otherwise
    "log.kafka.server.KafkaRaftServer": "info",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """One more place where the broker listens; clients that come here are sent to `advertised_port`."""

    name: str
    port: int
    advertised_port: int


@dataclass(frozen=True, slots=True)
class NativeKafka:
    """A broker to run; `more_listeners` is for who wants to stand between some client and the broker."""

    title: ClassVar[str] = "Kafka"
    data_dir: Path
    port: int
    controller_port: int
    more_listeners: tuple[Listener, ...] = ()

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{_HOST}:{self.port}"

    def answers(self) -> bool:
        """Whether it serves clients now. Blocking, 2 s at most."""
        try:
            socket.create_connection((_HOST, self.port), timeout=_ANSWER_S).close()
        except OSError:  # the client below would ask again until its time is out
            return False
        client = Consumer({"bootstrap.servers": self.address, "group.id": "ready", "log_level": 2})
        try:
            return bool(client.list_topics(timeout=_ANSWER_S).brokers)
        except KafkaException:
            return False
        finally:
            client.close()

    def prepare(self) -> Sequence[str]:
        """Install the broker, write its configuration, format its storage once; the command that runs it. Blocking.

        Raises:
            NotReady: Java or Maven is missing, or the storage cannot be formatted.
        """
        java, libraries = find_java(), install_kafka()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        properties = self.data_dir / "server.properties"
        properties.write_text(self._properties(), encoding="ascii")
        logging = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in _LOGGING.items()]
        run = [java, *_JVM, *logging, "-cp", f"{libraries}/*"]
        if not (self._log_dir / "meta.properties").exists():
            _format(run, properties)
        return [*run, "kafka.Kafka", str(properties)]

    def environment(self) -> Mapping[str, str]:
        """Nothing: its settings stand in its file."""
        return {}

    @property
    def _log_dir(self) -> Path:
        return self.data_dir.resolve() / "log"

    def _properties(self) -> str:
        own = Listener("PLAINTEXT", self.port, self.port)
        public = (own, *self.more_listeners)
        controller = f"CONTROLLER://{_HOST}:{self.controller_port}"
        return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
            controller_port=self.controller_port,
            listeners=",".join([*(f"{one.name}://{_HOST}:{one.port}" for one in public), controller]),
            advertised_listeners=",".join(f"{one.name}://{_HOST}:{one.advertised_port}" for one in public),
            protocols=",".join(f"{name}:PLAINTEXT" for name in (*(one.name for one in public), "CONTROLLER")),
            log_dir=self._log_dir,
        )


def _format(run: Sequence[str], properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
    # `--cluster-id=…`: an id may begin with a dash.
    command = [*run, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(properties)]
    try:
        done = subprocess.run(
            [*command, "--ignore-formatted"], capture_output=True, text=True, timeout=_FORMAT_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise NotReady(f"Kafka did not format {properties.parent} within {_FORMAT_WITHIN_S:g} s") from exc
    if done.returncode:
        raise NotReady(f"Kafka cannot format {properties.parent}: {(done.stdout + done.stderr).strip()[-2000:]}")
