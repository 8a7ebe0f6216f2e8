"""A connection to the intake: records go out as lines, answers come back in the same order."""

from __future__ import annotations

import http.client
import json
import select
import socket
import urllib.parse
from typing import Any, Dict, List, Optional, Union

Answer = Dict[str, Any]

ANSWER_BYTES_MAX = 64 * 1024


class SocketLink:
    """The unix socket: many records may wait for their answers."""

    window = 32

    def __init__(self, path: str, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._gathered = b""
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def send(self, line: bytes) -> None:
        self._socket.sendall(line + b"\n")

    def receive(self, wake: Optional[socket.socket], timeout: float) -> List[Answer]:
        """What has come until now; waits for something to come, for ``wake`` or for the time to pass."""
        watched = [self._socket] if wake is None else [self._socket, wake]
        readable, _, _ = select.select(watched, [], [], timeout)
        if self._socket not in readable:
            return []
        chunk = self._socket.recv(ANSWER_BYTES_MAX)
        if not chunk:
            raise ConnectionError("the daemon closed the connection")
        *lines, self._gathered = (self._gathered + chunk).split(b"\n")
        if len(self._gathered) > ANSWER_BYTES_MAX:
            raise ConnectionError("the daemon's answer has no end")
        return [_answer(line) for line in lines]

    def close(self) -> None:
        self._socket.close()


class HttpLink:
    """HTTP on the loopback interface: one record at a time."""

    window = 1

    def __init__(self, url: str, token: str, timeout: float) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the intake's url is like http://127.0.0.1:8731, not {url!r}")
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._answers: List[Answer] = []
        self._connection.connect()
        assert self._connection.sock is not None
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, line: bytes) -> None:
        self._connection.request("POST", "/v1/intents", body=line, headers=self._headers)
        self._answers.append(_answer(self._connection.getresponse().read(ANSWER_BYTES_MAX)))

    def receive(self, wake: Optional[socket.socket], timeout: float) -> List[Answer]:
        if not self._answers and wake is not None:
            select.select([wake], [], [], timeout)
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        self._connection.close()


Link = Union[SocketLink, HttpLink]


def _answer(line: bytes) -> Answer:
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ConnectionError("the daemon's answer is no object")
    return answer
