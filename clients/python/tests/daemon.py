"""A small intake for the tests: answers as it is told and remembers every record."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import tempfile
import threading
import time
from typing import Any, Dict, List, Optional


class Daemon:
    """``mode``: ``answer``, ``silent`` (reads and says nothing), or the code of a refusal for orders and cancels."""

    def __init__(self, over_http: bool = False, last_seq: int = 0) -> None:
        self.mode = "answer"
        self.last_seq = last_seq
        self.records: List[Dict[str, Any]] = []
        self.answered_at: Dict[int, int] = {}
        """The nonce of the latest answer to each sequence."""
        self.greeted = threading.Event()
        self._by_seq: Dict[int, Dict[str, Any]] = {}
        self._changed = threading.Condition()
        self.token = "token"
        self.socket: Optional[str] = None
        self.url: Optional[str] = None
        self._folder = tempfile.TemporaryDirectory()
        self.start(over_http)

    def start(self, over_http: bool = False) -> None:
        daemon = self

        class Lines(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                daemon._connections.append(self.connection)
                for line in self.rfile:
                    answer = daemon.hear(json.loads(line))
                    if answer is not None:
                        self.wfile.write(json.dumps(answer).encode() + b"\n")

        class Requests(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                record = json.loads(self.rfile.read(int(self.headers["content-length"])))
                known = self.headers["authorization"] == f"Bearer {daemon.token}"
                answer = daemon.hear(record) if known else {"ok": False, "error": "unauthorized", "message": "who?"}
                text = json.dumps(answer).encode()
                self.send_response(200 if known else 401)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._connections: List[Any] = []
        if over_http:
            self._server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Requests)
            self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        else:
            self.socket = os.path.join(self._folder.name, "intake.sock")
            self._server = socketserver.ThreadingUnixStreamServer(self.socket, Lines)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Ends as a killed process does: connections break, the socket file stays."""
        self._server.shutdown()
        for connection in self._connections:
            try:
                connection.shutdown(2)
            except OSError:
                pass
        self._server.server_close()
        if self.socket and os.path.exists(self.socket):
            os.unlink(self.socket)

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    def hear(self, record: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        nonce = str(int(time.time() * 1e6))
        if record["kind"] == "hello":
            self.greeted.set()
            return {"v": 1, "ok": True, "last_seq": self.last_seq, "nonce": nonce}
        with self._changed:
            self.records.append(record)
            self._changed.notify_all()
        seq = record["seq"]
        if self.mode == "silent":
            return None
        reply = {"v": 1, "seq": seq, "nonce": nonce, "heartbeat_wanted": False, "missing": 0}
        self.answered_at[seq] = int(nonce)
        if record["kind"] == "heartbeat":  # It takes no place in the sequence.
            return {**reply, "ok": True, "durable": True, "client_order_ids": []}
        if self.mode != "answer" and record["kind"] not in ("result", "heartbeat"):
            return {**reply, "ok": False, "error": self.mode, "message": f"no: {self.mode}", "hint": "do not"}
        if seq <= self.last_seq and self._by_seq.get(seq) != record:
            code = "conflict" if seq in self._by_seq else "replay"
            return {**reply, "ok": False, "error": code, "message": code, "hint": "", "last_seq": self.last_seq}
        self.last_seq = max(self.last_seq, seq)
        self._by_seq[seq] = record
        ids: Dict[str, Any] = {}
        if record["kind"] in ("place", "cancel") and not record.get("all"):
            ids["client_order_id"] = record.get("client_order_id", f"issued-{seq}")
        if record["kind"] == "cancel_replace":
            ids = {"client_order_id": f"issued-{seq}", "cancel_client_order_id": f"cancel-{seq}"}
        return {**reply, "ok": True, "durable": True, "client_order_ids": list(ids.values()), **ids}

    def told(self, *kinds: str) -> List[Dict[str, Any]]:
        return [record for record in self.records if record["kind"] in kinds]

    def wait_for(self, count: int, *kinds: str) -> List[Dict[str, Any]]:
        """The records of these kinds, once there are so many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.told(*kinds)) >= count, timeout=5):
                raise AssertionError(f"{len(self.told(*kinds))} of {count} {kinds} came: {self.records}")
        return self.told(*kinds)
