"""The client of the intake: numbers the bot's records, sends them in order, sends again what was not acknowledged,
and beats while there is nothing to say.

One background thread owns the connection. A caller hands a record over and waits for its answer, no longer than the
deadline; what then happens to the order is the caller's policy:

``local``   the order goes out with an id computed here (needs a ``TagKey`` of this bot), and is told again
``send``    the order goes out with a plain id, which is told as soon as the daemon answers
``refuse``  the order is not sent: ``NoAnswer`` is raised

An order that the daemon refuses as outside the limits is never sent, whatever the policy.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import http.client
import itertools
import json
import logging
import secrets
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple

from .link import Answer, HttpLink, Link, SocketLink
from .tag import TagKey

POLICIES = ("local", "send", "refuse")

_log = logging.getLogger("countersign")

_ANSWER_WITHIN = 5.0
"""A connection whose oldest record has had no answer for this long is given up."""
_PAUSE_MIN, _PAUSE_MAX = 0.05, 2.0
_SOON = 0.02
_TRIES_MAX = 3
_AGAIN = frozenset({"busy", "too_fast", "too_many_connections", "not_durable"})
_NUMBERED_WRONG = frozenset({"replay", "conflict"})
_NEVER_SENT = frozenset({"outside_limits", "id_in_use"})


class Refused(Exception):
    """The daemon refused the record; the order was not sent."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.code = str(answer.get("error"))
        self.hint = str(answer.get("hint"))
        super().__init__(f"{answer.get('message')} ({self.code}; hint: {self.hint})")


class OutsideLimits(Refused):
    """The order is outside this bot's limits; it was not sent."""


class NoAnswer(Exception):
    """The daemon did not answer within the deadline; the order was not sent."""


class _Record:
    """One record on its way. ``of`` and ``supersedes`` name other records, whose numbers may not be known yet."""

    def __init__(
        self,
        body: Mapping[str, Any],
        at_ms: int,
        nonce: Optional[str],
        of: Optional["_Record"] = None,
        supersedes: Optional["_Record"] = None,
    ) -> None:
        self.body = body
        self.at_ms = at_ms
        # The daemon's latest word when this was said, not when it is sent: it shows what the bot could not yet know.
        self.nonce = nonce
        self.of = of
        self.supersedes = supersedes
        self.seq: Optional[int] = None
        self.line: Optional[bytes] = None
        self.sent_at = 0.0
        self.tries = 0
        self.abandoned = False
        self.answer: "concurrent.futures.Future[Answer]" = concurrent.futures.Future()


@dataclass(frozen=True)
class Intent:
    """What was told, and the ids that the request must carry."""

    record: _Record
    client_order_id: Optional[str]
    cancel_client_order_id: Optional[str] = None
    acknowledged: bool = True


class Client:
    """Speaks for one bot of one account, by ``socket`` (a path) or ``url`` and ``token``."""

    def __init__(
        self,
        account: str,
        bot: str,
        *,
        socket: Optional[str] = None,
        url: Optional[str] = None,
        token: Optional[str] = None,
        deadline: float = 0.05,
        tag_key: Optional[TagKey] = None,
        id_prefix: Optional[str] = None,
        strategy: Optional[str] = None,
        owner: Optional[str] = None,
        egress: Optional[str] = None,
        heartbeat_every: float = 0.25,
        queue_max: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (socket is None) == (url is None):
            raise ValueError("name either the intake's socket or its url")
        if url is not None and token is None:
            raise ValueError("the intake's url needs this bot's token")
        if tag_key is not None and tag_key.account != account:
            raise ValueError(f"the tag key is of account {tag_key.account}, not {account}")
        self.account, self.bot = account, bot
        self.deadline = deadline
        self.tag_key = tag_key
        self.id_prefix = id_prefix
        self.dropped = 0
        """Records that found the queue full: never told."""
        self._address: Tuple[Optional[str], Optional[str], Optional[str]] = (socket, url, token)
        self._about = {name: text for name, text in (("strategy", strategy), ("owner", owner)) if text is not None}
        self._egress = egress
        self._heartbeat_every = heartbeat_every
        self._queue_max = queue_max
        self._clock = clock
        self._counter = itertools.count(secrets.randbelow(1024))
        self._lock = threading.Lock()
        self._queue: Deque[_Record] = deque()
        self._in_flight: Deque[_Record] = deque()
        self._seq = 0
        self._nonce: Optional[str] = None
        self._beat_at = 0.0
        self._closing = threading.Event()
        self._wake, self._waker = _wake_pair()
        self._thread = threading.Thread(target=self._run, name=f"countersign-{bot}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # What callers use.

    def announce(self, body: Mapping[str, Any], policy: str) -> Intent:
        """Tells an intent (``kind`` and its fields in the wire's names) and waits for the ids to use."""
        record = self._begin(body)
        try:
            answer: Optional[Answer] = record.answer.result(self.deadline)
        except concurrent.futures.TimeoutError:
            answer = None
        return self._settle(record, answer, policy)

    async def announce_async(self, body: Mapping[str, Any], policy: str) -> Intent:
        record = self._begin(body)
        answered = asyncio.wrap_future(record.answer)
        done, _ = await asyncio.wait({answered}, timeout=self.deadline)
        return self._settle(record, answered.result() if done else None, policy)

    def tell_result(
        self,
        intent: Intent,
        outcome: str,
        *,
        order_id: Optional[int] = None,
        code: Optional[int] = None,
        message: Optional[str] = None,
    ) -> None:
        """What the venue answered: accepted, rejected, not_sent or unknown. Does not wait."""
        body: Dict[str, Any] = {"kind": "result", "outcome": outcome}
        for name, value in (("order_id", order_id), ("code", code), ("message", message)):
            if value is not None:
                body[name] = value
        self._begin(body, of=intent.record)

    def close(self, timeout: float = 1.0) -> None:
        """Waits a little for what is queued to be acknowledged, then ends."""
        ends = time.monotonic() + timeout
        while (self._queue or self._in_flight) and self._thread.is_alive() and time.monotonic() < ends:
            time.sleep(0.005)
        self._closing.set()
        self._notify()
        self._thread.join(timeout)
        self._wake.close()
        self._waker.close()

    # What is told, and what becomes of an order whose answer is late.

    def _begin(
        self, body: Mapping[str, Any], of: Optional[_Record] = None, supersedes: Optional[_Record] = None
    ) -> _Record:
        if self.id_prefix and body["kind"] in ("place", "cancel_replace", "cancel") and _wants_ids(body):
            body = {**body, "id_prefix": self.id_prefix}
        with self._lock:
            record = _Record(body, int(self._clock() * 1000), self._nonce, of, supersedes)
            if len(self._queue) >= self._queue_max:
                self.dropped += 1
                _log.error("countersign: the queue of %d records is full, one was never told", self._queue_max)
                return record
            self._queue.append(record)
        self._notify()
        return record

    def _settle(self, record: _Record, answer: Optional[Answer], policy: str) -> Intent:
        if policy not in POLICIES:
            raise ValueError(f"the policy is one of {', '.join(POLICIES)}, not {policy!r}")
        if answer is not None and answer.get("ok") is True:
            return Intent(record, answer.get("client_order_id"), answer.get("cancel_client_order_id"))
        if answer is not None:
            code = answer.get("error")
            if code in _NEVER_SENT or policy == "refuse":
                raise (OutsideLimits if code == "outside_limits" else Refused)(answer)
            _log.warning("countersign: %s (%s); the order goes out all the same", answer.get("message"), code)
        elif policy == "refuse":
            self._abandon(record)
            if record.seq is not None:
                self.tell_result(Intent(record, None), "not_sent")
            raise NoAnswer(f"countersign did not answer within {self.deadline * 1000:.0f} ms; the order was not sent")
        return self._go_without(record, policy)

    def _go_without(self, record: _Record, policy: str) -> Intent:
        body = {name: value for name, value in record.body.items() if name != "id_prefix"}
        if not _wants_ids(body):
            # It says all there is to say, so it stays in the queue until it is acknowledged.
            return Intent(record, body.get("client_order_id"), acknowledged=False)
        self._abandon(record)
        order_id, cancel_id = self._ids(body, policy)
        if body["kind"] == "cancel_replace":
            body["place"] = {**body["place"], "client_order_id": order_id}
            body["cancel"] = {**body["cancel"], "client_order_id": cancel_id}
        else:
            body["client_order_id"] = order_id
        return Intent(self._begin(body, supersedes=record), order_id, cancel_id, acknowledged=False)

    def _ids(self, body: Mapping[str, Any], policy: str) -> Tuple[str, Optional[str]]:
        """The ids that are missing: of the order or cancel itself, and of the cancel of a cancel_replace."""
        symbol = body["symbol"]
        if body["kind"] == "cancel_replace":
            order = body["place"].get("client_order_id") or self._order_id({**body["place"], "symbol": symbol}, policy)
            cancel = body["cancel"].get("client_order_id") or self._cancel_id(symbol, body["cancel"], policy)
            return order, cancel
        if body["kind"] == "cancel":
            return self._cancel_id(symbol, body, policy), None
        return self._order_id(body, policy), None

    def _order_id(self, order: Mapping[str, Any], policy: str) -> str:
        if policy != "local":
            return self._plain_id()
        return self._local_key().issue_order(*self._stamp(), order, self.id_prefix or "")

    def _cancel_id(self, symbol: str, target: Mapping[str, Any], policy: str) -> str:
        if policy != "local":
            return self._plain_id()
        by = (target.get("order_id"), target.get("orig_client_order_id"))
        return self._local_key().issue_cancel(*self._stamp(), symbol, *by, prefix=self.id_prefix or "")

    def _local_key(self) -> TagKey:
        if self.tag_key is None:
            raise ValueError("the policy 'local' needs a tag_key of this bot")
        return self.tag_key

    def _stamp(self) -> Tuple[int, int]:
        return int(self._clock() * 1000), next(self._counter)

    def _plain_id(self) -> str:
        return (self.id_prefix or "") + secrets.token_hex(11)

    def _abandon(self, record: _Record) -> None:
        """Its answer no longer matters: it is not sent if it has not been, and not sent again."""
        with self._lock:
            record.abandoned = True
            if record in self._queue:
                self._queue.remove(record)

    # The background thread.

    def _run(self) -> None:
        pause, said = _PAUSE_MIN, False
        while not self._closing.is_set():
            link: Optional[Link] = None
            try:
                link = self._connect()
                self._hello(link)
                pause, said = _PAUSE_MIN, False
                self._converse(link)
            except (OSError, ValueError, http.client.HTTPException, Refused) as error:
                if not said:
                    _log.warning("countersign: not connected: %s", error)
                said = True
            finally:
                if link is not None:
                    link.close()
                self._take_back()
            self._closing.wait(pause)
            pause = min(pause * 2, _PAUSE_MAX)

    def _connect(self) -> Link:
        path, url, token = self._address
        if path is not None:
            return SocketLink(path, _ANSWER_WITHIN)
        return HttpLink(url or "", token or "", _ANSWER_WITHIN)

    def _hello(self, link: Link) -> None:
        link.send(_line({"v": 1, "account": self.account, "bot": self.bot, "kind": "hello"}))
        ends = time.monotonic() + _ANSWER_WITHIN
        answers: List[Answer] = []
        while not answers:
            if time.monotonic() > ends:
                raise ConnectionError("no answer to hello")
            answers = link.receive(None, ends - time.monotonic())
        if answers[0].get("ok") is not True:
            raise Refused(answers[0])
        self._seq = max(self._seq, int(answers[0]["last_seq"]))
        self._nonce = str(answers[0]["nonce"])

    def _converse(self, link: Link) -> None:
        # At once: from its first beat on the daemon waits for this bot's word before it calls an order a stranger's.
        self._beat_at = time.monotonic()
        while not self._closing.is_set():
            self._send_what_waits(link)
            wait = 0.0 if self._queue and len(self._in_flight) < link.window else self._beat_at - time.monotonic()
            for answer in link.receive(self._wake, max(0.0, min(wait, 1.0))):
                if not self._in_flight:
                    raise ConnectionError(f"an answer to nothing: {answer.get('message')}")
                self._take_answer(self._in_flight.popleft(), answer)
            _drain(self._wake)
            if self._in_flight and time.monotonic() - self._in_flight[0].sent_at > _ANSWER_WITHIN:
                raise ConnectionError("the daemon does not answer")

    def _send_what_waits(self, link: Link) -> None:
        while len(self._in_flight) < link.window:
            with self._lock:
                if self._queue:
                    record = self._queue.popleft()
                elif time.monotonic() >= self._beat_at and not self._in_flight:
                    beat = {"kind": "heartbeat"} if self._egress is None else {"kind": "heartbeat", "egress": self._egress}
                    record = _Record(beat, int(self._clock() * 1000), self._nonce)
                else:
                    return
                if record.line is None and not self._number(record):
                    continue
                record.sent_at = time.monotonic()
                self._in_flight.append(record)
            self._beat_at = time.monotonic() + self._heartbeat_every
            assert record.line is not None
            link.send(record.line)

    def _number(self, record: _Record) -> bool:
        """Gives the record its place in the sequence; not if it speaks of one that was never sent."""
        if record.of is not None and record.of.seq is None:
            return False
        if record.body["kind"] != "heartbeat":
            # A heartbeat takes no place in the sequence: it says which record was the last.
            self._seq += 1
        record.seq = self._seq
        whole: Dict[str, Any] = {"v": 1, "account": self.account, "bot": self.bot, "seq": record.seq, "at": record.at_ms}
        if record.nonce is not None:
            whole["nonce"] = record.nonce
        if record.of is not None:
            whole["of"] = record.of.seq
        if record.supersedes is not None and record.supersedes.seq is not None:
            whole["supersedes"] = record.supersedes.seq
        if record.body["kind"] not in ("heartbeat", "result"):
            whole.update(self._about)
        record.line = _line({**whole, **record.body})
        return True

    def _take_answer(self, record: _Record, answer: Answer) -> None:
        self._nonce = answer.get("nonce") or self._nonce
        if answer.get("heartbeat_wanted"):
            self._beat_at = min(self._beat_at, time.monotonic() + _SOON)
        code = answer.get("error")
        again = code in _AGAIN or (code in _NUMBERED_WRONG and record.tries < _TRIES_MAX)
        if again and not record.abandoned and record.body["kind"] != "heartbeat":
            record.tries += 1
            if code in _NUMBERED_WRONG:
                self._seq = max(self._seq, int(answer.get("last_seq") or 0))
                record.seq, record.line = None, None
            with self._lock:
                self._queue.appendleft(record)
            self._closing.wait(_SOON)
            return
        if code is not None and record.body["kind"] == "result":
            _log.info("countersign: a result was not taken: %s", answer.get("message"))
        if not record.answer.done():
            record.answer.set_result(answer)

    def _take_back(self) -> None:
        """What was not acknowledged goes to the front again, as it was."""
        with self._lock:
            kept = [r for r in self._in_flight if not r.abandoned and r.body["kind"] != "heartbeat"]
            self._queue.extendleft(reversed(kept))
            self._in_flight.clear()

    def _notify(self) -> None:
        try:
            self._waker.send(b"!")
        except OSError:
            pass  # It is awake already, or has ended.


def _wants_ids(body: Mapping[str, Any]) -> bool:
    if body["kind"] == "cancel_replace":
        return "client_order_id" not in body["place"] or "client_order_id" not in body["cancel"]
    return body["kind"] in ("place", "cancel") and "client_order_id" not in body and not body.get("all")


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def _wake_pair() -> Tuple[socket.socket, socket.socket]:
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    return wake, waker


def _drain(wake: socket.socket) -> None:
    try:
        while wake.recv(4096):
            pass
    except BlockingIOError:
        pass
