"""Asks a text-classification server whether a text is an attack; the last stage of `detector.py`, where there is one.

Speaks what text-embeddings-inference answers on `/predict`: `{"inputs": text}` to `[{"label", "score"}]`. Blocks: in a
worker thread only.
"""

from collections.abc import Sequence
from threading import Lock
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from servicekit.errors import BackendTimeout, BackendUnavailable
from services.guardrail.detectors.injection.options import InjectionOptions

MAX_CHARS = 2_000
_MAX_ANSWER_BYTES = 64 << 10


class _Label(BaseModel):
    model_config = ConfigDict(extra="ignore")

    label: str
    score: float = Field(ge=0.0, le=1.0)


_ANSWER: TypeAdapter[list[_Label] | list[list[_Label]]] = TypeAdapter(list[_Label] | list[list[_Label]])


class RemoteClassifier:
    """Connections to the classifiers that policies name, kept open between questions; safe in any thread."""

    def __init__(self) -> None:
        self._clients: dict[str, httpx2.Client] = {}
        self._lock = Lock()

    def probability(self, text: str, options: InjectionOptions) -> float:
        """That the text (its first 2,000 characters) is an attack, 0 to 1.

        Raises:
            BackendTimeout, BackendUnavailable: no answer, or none that can be read; neither names the text.
        """
        host = urlsplit(options.classifier_url).netloc
        client = self._client(host)
        body = {"inputs": text[:MAX_CHARS], "truncate": True}
        try:
            with client.stream(
                "POST", options.classifier_url, json=body, timeout=options.classifier_timeout_ms / 1_000
            ) as answer:
                content = _read(answer, host)
        except httpx2.TimeoutException as exc:
            raise BackendTimeout(f"classifier {host} did not answer in time", reason="CLASSIFIER_TIMEOUT") from exc
        except httpx2.HTTPError as exc:
            raise _unusable(host, type(exc).__name__) from exc
        return _attack_share(_labels(content, host), options.classifier_labels, host)

    def close(self) -> None:
        """End all connections; the next question opens new ones."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, host: str) -> httpx2.Client:
        with self._lock:
            if host not in self._clients:
                self._clients[host] = httpx2.Client(trust_env=False, follow_redirects=False)
            return self._clients[host]


def _read(answer: httpx2.Response, host: str) -> bytes:
    if answer.status_code != httpx2.codes.OK:
        raise _unusable(host, f"status {answer.status_code}")
    content = b""
    for part in answer.iter_bytes():
        content += part
        if len(content) > _MAX_ANSWER_BYTES:
            raise _unusable(host, f"an answer beyond {_MAX_ANSWER_BYTES} bytes")
    return content


def _labels(content: bytes, host: str) -> Sequence[_Label]:
    try:
        answer = _ANSWER.validate_json(content)
    except ValidationError as exc:
        raise _unusable(host, "an answer that is no list of labels and scores") from exc
    labels: list[_Label] = []
    for entry in answer:
        labels += entry if isinstance(entry, list) else [entry]
    return labels


def _attack_share(labels: Sequence[_Label], attacks: Sequence[str], host: str) -> float:
    wanted = {name.casefold() for name in attacks}
    told = [label.score for label in labels if label.label.casefold() in wanted]
    if told:
        return min(1.0, sum(told))
    if len(labels) == 1:  # only the best label is told: it is not the attack's
        return 1.0 - labels[0].score
    names = ", ".join(sorted(label.label for label in labels))[:200]
    raise _unusable(host, f"labels {names or 'none'}, none of which is among classifier_labels")


def _unusable(host: str, problem: str) -> BackendUnavailable:
    return BackendUnavailable(f"classifier {host}: {problem}", reason="CLASSIFIER_UNUSABLE")
