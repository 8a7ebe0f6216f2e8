import asyncio
import logging
import time
import unittest
from typing import Any

from countersign import Client, NoAnswer, OutsideLimits, Refused, TagKey

from .daemon import Daemon

KEY = TagKey.derive(b"a secret of these tests", "main", "bot/mm-1", 1)
ORDER = {
    "kind": "place",
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "time_in_force": "GTC",
    "quantity": "0.01",
    "price": "60000",
}
CANCEL = {"kind": "cancel", "symbol": "BTCUSDT", "order_id": 7}


class ClientCase(unittest.TestCase):
    def setUp(self) -> None:
        logging.getLogger("countersign").setLevel(logging.CRITICAL)

    def daemon(self, **named: Any) -> Daemon:
        daemon = Daemon(**named)
        self.addCleanup(daemon.close)
        return daemon

    def client(self, daemon: Daemon, **named: Any) -> Client:
        where: Any = {"socket": daemon.socket} if daemon.socket else {"url": daemon.url, "token": daemon.token}
        options = {"deadline": 2.0, "tag_key": KEY, "heartbeat_every": 30.0, **where, **named}
        client = Client("main", "mm-1", **options)
        self.addCleanup(client.close, 0.2)
        return client


class Telling(ClientCase):
    def test_an_intent_gets_its_id_and_its_result_names_it(self) -> None:
        for over_http in (False, True):
            daemon = self.daemon(over_http=over_http, last_seq=41)
            client = self.client(daemon, strategy="grid", owner="desk-a")
            intent = client.announce(ORDER, "refuse")
            self.assertEqual(intent.client_order_id, "issued-42")
            self.assertTrue(intent.acknowledged)
            client.tell_result(intent, "accepted", order_id=9)
            (result,) = daemon.wait_for(1, "result")
            self.assertEqual((result["seq"], result["of"], result["order_id"]), (43, 42, 9))
            (place,) = daemon.told("place")
            self.assertEqual((place["strategy"], place["owner"], place["account"]), ("grid", "desk-a", "main"))
            self.assertTrue(result["nonce"].isdigit())

    def test_async_callers_wait_without_blocking(self) -> None:
        client = self.client(self.daemon())

        async def several() -> Any:
            return await asyncio.gather(*(client.announce_async(ORDER, "refuse") for _ in range(50)))

        ids = [intent.client_order_id for intent in asyncio.run(several())]
        self.assertEqual(ids, [f"issued-{seq}" for seq in range(1, 51)])

    def test_heartbeats_hand_the_nonce_back(self) -> None:
        daemon = self.daemon()
        client = self.client(daemon, heartbeat_every=0.02, egress="203.0.113.7")
        client.announce(ORDER, "refuse")
        before = len(daemon.told("heartbeat"))
        beats = daemon.wait_for(before + 4, "heartbeat")[before + 1 :]
        self.assertEqual([beat["seq"] for beat in beats[:3]], [1, 1, 1], "a beat takes no number")
        self.assertEqual(beats[0]["egress"], "203.0.113.7")
        self.assertNotEqual(beats[0]["nonce"], beats[2]["nonce"])
        self.assertEqual(client.announce(ORDER, "refuse").client_order_id, "issued-2")

    def test_it_beats_from_its_first_contact(self) -> None:
        daemon = self.daemon()
        client = self.client(daemon)
        beat = daemon.wait_for(1, "heartbeat")[0]
        self.assertEqual(beat["seq"], 0, "it has said nothing yet")
        self.assertIn("nonce", beat)
        self.assertEqual(client.announce(ORDER, "refuse").client_order_id, "issued-1")

    def test_a_nonce_is_the_one_that_was_read_when_the_record_was_said(self) -> None:
        daemon = self.daemon()
        client = self.client(daemon)
        client.announce(ORDER, "refuse")
        client.announce(ORDER, "refuse")
        first, second = daemon.told("place")
        self.assertEqual(int(second["nonce"]), daemon.answered_at[first["seq"]])

    def test_a_prefix_is_asked_for_only_where_an_id_is(self) -> None:
        daemon = self.daemon()
        client = self.client(daemon, id_prefix="x-TKT5PX2F")
        client.announce(ORDER, "refuse")
        client.announce({**ORDER, "client_order_id": "mine"}, "refuse")
        client.announce({"kind": "cancel", "symbol": "BTCUSDT", "all": True}, "refuse")
        self.assertEqual([r.get("id_prefix") for r in daemon.told("place", "cancel")], ["x-TKT5PX2F", None, None])


class Refusals(ClientCase):
    def test_outside_the_limits_is_never_sent(self) -> None:
        daemon = self.daemon()
        daemon.mode = "outside_limits"
        client = self.client(daemon)
        for policy in ("local", "send", "refuse"):
            with self.assertRaises(OutsideLimits):
                client.announce(ORDER, policy)

    def test_another_refusal_stops_the_order_only_under_refuse(self) -> None:
        daemon = self.daemon()
        daemon.mode = "bad_field"
        client = self.client(daemon)
        with self.assertRaises(Refused):
            client.announce(ORDER, "refuse")
        self.assertEqual(len(client.announce(ORDER, "local").client_order_id or ""), 31)

    def test_a_sequence_that_was_used_is_left_behind(self) -> None:
        daemon = self.daemon(last_seq=5)
        client = self.client(daemon)
        client.announce(ORDER, "refuse")
        daemon.last_seq = 500  # Somebody else spoke under this name.
        self.assertEqual(client.announce(ORDER, "refuse").client_order_id, "issued-501")


class NoAnswerInTime(ClientCase):
    def unheard(self, **named: Any) -> Any:
        """A daemon that reads and says nothing, and a client that has found it: what is told is sent at once."""
        daemon = self.daemon()
        daemon.mode = "silent"
        client = self.client(daemon, deadline=0.3, **named)
        self.assertTrue(daemon.greeted.wait(5))
        return daemon, client

    def test_refuse_raises_and_says_that_nothing_was_sent(self) -> None:
        daemon, client = self.unheard()
        with self.assertRaises(NoAnswer):
            client.announce(ORDER, "refuse")
        results = daemon.wait_for(1, "result")
        self.assertEqual((results[0]["outcome"], results[0]["of"]), ("not_sent", daemon.told("place")[0]["seq"]))

    def test_local_computes_the_id_and_tells_it_again(self) -> None:
        daemon, client = self.unheard()
        intent = client.announce(ORDER, "local")
        self.assertEqual(len(intent.client_order_id or ""), 31)
        self.assertFalse(intent.acknowledged)
        first, second = daemon.wait_for(2, "place")
        self.assertEqual((second["supersedes"], second["client_order_id"]), (first["seq"], intent.client_order_id))
        cancel = client.announce(CANCEL, "local")
        self.assertEqual(len(cancel.client_order_id or ""), 31)

    def test_send_uses_a_plain_id(self) -> None:
        daemon, client = self.unheard(id_prefix="x-TKT5PX2F")
        intent = client.announce(ORDER, "send")
        self.assertRegex(intent.client_order_id or "", r"^x-TKT5PX2F[0-9a-f]{22}$")
        first, second = daemon.wait_for(2, "place")
        self.assertEqual((second["supersedes"], second["client_order_id"]), (first["seq"], intent.client_order_id))
        self.assertNotIn("id_prefix", second)

    def test_both_ids_of_a_cancel_replace_are_made(self) -> None:
        daemon, client = self.unheard()
        place = {name: value for name, value in ORDER.items() if name not in ("kind", "symbol")}
        body = {"kind": "cancel_replace", "symbol": "BTCUSDT", "cancel": {"order_id": 7}, "place": place}
        intent = client.announce(body, "local")
        self.assertEqual((len(intent.client_order_id or ""), len(intent.cancel_client_order_id or "")), (31, 31))
        told = daemon.wait_for(2, "cancel_replace")[1]
        self.assertEqual(told["place"]["client_order_id"], intent.client_order_id)
        self.assertEqual(told["cancel"]["client_order_id"], intent.cancel_client_order_id)

    def test_what_has_an_id_of_its_own_is_sent_again_as_it_was(self) -> None:
        daemon, client = self.unheard()
        intent = client.announce({**ORDER, "client_order_id": "mine"}, "send")
        self.assertEqual((intent.client_order_id, intent.acknowledged), ("mine", False))
        daemon.stop()
        daemon.mode = "answer"
        daemon.start()
        first, again = daemon.wait_for(2, "place")
        self.assertEqual(again, first)


class Outages(ClientCase):
    def test_a_daemon_that_is_down_is_told_everything_when_it_is_back(self) -> None:
        daemon = self.daemon()
        client = self.client(daemon, deadline=0.05)
        client.announce(ORDER, "send")
        daemon.stop()
        intents = [client.announce(ORDER, "send") for _ in range(3)]
        for intent in intents:
            client.tell_result(intent, "accepted", order_id=1)
        daemon.start()
        results = daemon.wait_for(3, "result")
        places = {place["seq"]: place for place in daemon.told("place")}
        self.assertEqual(
            [places[result["of"]]["client_order_id"] for result in results[-3:]],
            [intent.client_order_id for intent in intents],
        )
        ats = [record["at"] for record in daemon.told("place", "result")]
        self.assertEqual(ats, sorted(ats), "each carries the time it was made at, not sent at")

    def test_a_full_queue_drops_and_says_so(self) -> None:
        daemon = self.daemon()
        daemon.stop()
        client = self.client(daemon, deadline=0.001, queue_max=4)
        for _ in range(6):
            client.announce({**ORDER, "client_order_id": "mine"}, "send")
        self.assertEqual(client.dropped, 2)

    def test_a_wrong_token_is_no_answer(self) -> None:
        daemon = self.daemon(over_http=True)
        client = self.client(daemon, token="other", deadline=0.1)
        with self.assertRaises(NoAnswer):
            client.announce(ORDER, "refuse")


class Construction(unittest.TestCase):
    def test_what_cannot_work_is_said_at_once(self) -> None:
        for named in (
            {},
            {"socket": "/a", "url": "http://127.0.0.1:1", "token": "t"},
            {"url": "http://127.0.0.1:1"},
            {"socket": "/a", "tag_key": TagKey.derive(b"a secret of these tests", "other", "bot/mm-1", 1)},
        ):
            with self.assertRaises(ValueError):
                Client("main", "mm-1", **named)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
