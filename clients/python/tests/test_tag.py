import json
import pathlib
import unittest

from countersign.tag import TagKey, canonical

VECTORS = pathlib.Path(__file__).parents[3] / "fixtures" / "tag_vectors.jsonl"


class SharedVectors(unittest.TestCase):
    def test_every_vector_holds(self) -> None:
        rows = [json.loads(line) for line in VECTORS.read_text().splitlines()]
        self.assertGreaterEqual(len(rows), 30)
        for row in rows:
            with self.subTest(row["name"]):
                key = TagKey.derive(row["secret"], row["account"], row["owner"], row["key_id"])
                self.assertEqual(key.key.hex(), row["key"])
                stamp = (row["at"], row["counter"])
                if "order" in row:
                    issued = key.issue_order(*stamp, row["order"], row["prefix"])
                else:
                    issued = key.issue_cancel(*stamp, **row["cancel"], prefix=row["prefix"])
                if "expect" in row:
                    self.assertNotEqual(issued, row["id"])
                else:
                    self.assertEqual(issued, row["id"])


class Values(unittest.TestCase):
    def test_decimals_are_canonical(self) -> None:
        for text, expected in (
            ("1.00", "1"), ("0.10", "0.1"), ("007.5", "7.5"), ("100", "100"), ("0.00", ""), ("-0.50", "-0.5"), (None, ""),
        ):
            self.assertEqual(canonical(text), expected)
        for text in ("", "1e5", ".5", "5.", "1_0", "١", 1.5):
            with self.assertRaises(ValueError):
                canonical(text)

    def test_what_cannot_be_an_id_is_refused(self) -> None:
        key = TagKey.derive(b"a secret of these tests", "main", "daemon", 0)
        order = {"symbol": "A", "side": "BUY", "type": "MARKET", "quantity": "1"}
        for prefix in ("sixsix", "elevenchars", "a b"):
            with self.assertRaises(ValueError):
                key.issue_order(1_764_000_000_000, 0, order, prefix)
        with self.assertRaises(ValueError):
            key.issue_order(1_764_000_000, 0, order)
        with self.assertRaises(ValueError):
            TagKey.derive(b"short", "main", "daemon", 0)
        with self.assertRaises(ValueError):
            key.issue_cancel(1_764_000_000_000, 0, "A")

    def test_a_key_is_not_printed(self) -> None:
        key = TagKey.derive(b"a secret of these tests", "main", "daemon", 0)
        self.assertNotIn(repr(key.key), repr(key))


if __name__ == "__main__":
    unittest.main()
