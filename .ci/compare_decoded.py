#!/usr/bin/env python3
"""Compares `countersign decode --json` with the readings expected of recorded frames, field by field.

    compare_decoded.py FRAMES_FOLDER COUNTERSIGN_BINARY

A row that must be kept passes read or kept raw; of every other Binance spot file each line must give one object.
Exits with 1 and the list of differences where there are any.
"""

import json
import pathlib
import subprocess
import sys

EXPECTATION = "expect_binance_spot.jsonl"
NOT_A_FIELD = {"file", "line", "must"}


def decode(binary, file):
    """One object a line of the file, or the reason why there is not."""
    # 0: all read, 1: some line kept raw; anything else is a failure.
    done = subprocess.run([binary, "decode", "--json", str(file)], capture_output=True, text=True, timeout=60)
    if done.returncode not in (0, 1):
        return [], [f"{file.name}: exit status {done.returncode}: {done.stderr.strip()}"]
    frames = file.read_bytes().split(b"\n")
    if frames[-1] == b"":
        frames.pop()
    lines = done.stdout.splitlines()
    problems = []
    if len(lines) != len(frames):
        problems.append(f"{file.name}: {len(frames)} lines in, {len(lines)} out")
    objects = []
    for number, line in enumerate(lines, 1):
        try:
            reading = json.loads(line)
        except ValueError as error:
            problems.append(f"{file.name}:{number}: not JSON: {error}")
            reading = {}
        if not isinstance(reading, dict) or reading.get("line") != number:
            problems.append(f"{file.name}:{number}: not an object that says its line")
            reading = {}
        if "kept_raw" in reading and number <= len(frames):
            raw = frames[number - 1].decode("utf-8", "replace").removesuffix("\r")
            if reading["kept_raw"] != raw or not reading.get("reason"):
                problems.append(f"{file.name}:{number}: not kept whole, or without a reason")
        objects.append(reading)
    return objects, problems


def differences(row, reading):
    where = f"{row['file']}:{row['line']}"
    if "kept_raw" in reading:
        return [] if row["must"] == "keep" else [f"{where}: kept raw: {reading['reason']}"]
    fields = row.keys() - NOT_A_FIELD
    return [
        f"{where}: {field} is {reading.get(field)!r}, expected {row[field]!r}"
        for field in sorted(fields)
        if field not in reading or reading[field] != row[field] or type(reading[field]) is not type(row[field])
    ]


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    folder, binary = pathlib.Path(sys.argv[1]), sys.argv[2]
    rows = [json.loads(line) for line in (folder / EXPECTATION).read_text().splitlines()]
    expected = {row["file"] for row in rows}
    readings, problems = {}, []
    for file in sorted(folder.glob("binance_spot_*.jsonl")):
        readings[file.name], found = decode(binary, file)
        problems += found
    compared = kept = 0
    for row in rows:
        objects = readings.get(row["file"], [])
        if row["line"] > len(objects):
            problems.append(f"{row['file']}:{row['line']}: no such line")
            continue
        problems += differences(row, objects[row["line"] - 1])
        compared += 1
        kept += "kept_raw" in objects[row["line"] - 1]
    for file in sorted(expected):
        told = sum(row["file"] == file for row in rows)
        if told != len(readings.get(file, [])):
            problems.append(f"{file}: {told} lines expected, {len(readings.get(file, []))} read")
    print("\n".join(problems), end="\n" if problems else "")
    others = sum(len(objects) for name, objects in readings.items() if name not in expected)
    print(f"{compared} lines compared ({kept} kept raw), {others} other lines, {len(problems)} differences")
    return 1 if problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
