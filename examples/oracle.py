"""What flights.yaml must give, worked out without any of Pharos' code (standard library only).

Usage: python3 oracle.py RESULTS LATE     compares two files of JSON lines with what is expected
       python3 oracle.py                  prints how much is expected

The rule of lateness: the watermark is the highest scheduled time read so far, less 60 minutes. It
advances between steps of 32 lines, not within one. A flight is late if the end of its 5-minute
window is not after the watermark; then it is dropped, and goes to LATE.
"""
import collections
import datetime
import json
import pathlib
import sys

STEP = 32
MAX_DELAY = datetime.timedelta(minutes=60)
SIZE = datetime.timedelta(minutes=5)

groups = collections.defaultdict(list)
late = collections.Counter()
closed_early = set()
highest = watermark = None
for number, line in enumerate(open(pathlib.Path(__file__).parent / "data" / "flights.jsonl")):
    if number % STEP == 0 and highest is not None:
        watermark = highest - MAX_DELAY
        closed_early |= {end for end, _ in groups if end <= watermark}
    flight = json.loads(line)
    date = datetime.datetime.strptime(flight["date"], "%Y-%m-%d %H:%M")
    end = date - (date - datetime.datetime(1970, 1, 1)) % SIZE + SIZE
    if watermark is not None and end <= watermark:
        late[json.dumps(flight, sort_keys=True)] += 1
    else:
        groups[end, flight["origin"]].append(flight)
    highest = date if highest is None else max(highest, date)

expected = collections.Counter()
for (_, origin), flights in groups.items():
    delays = [flight["delay"] for flight in flights]
    row = {
        "origin": origin,
        "flights": len(flights),
        "mean_delay": sum(delays) / len(delays),
        "worst_delay": max(delays),
        "miles": sum(flight["distance"] for flight in flights),
        "first": min(flight["date"] for flight in flights),
        "last": max(flight["date"] for flight in flights),
    }
    expected[json.dumps(row, sort_keys=True)] += 1

print(f"expected: {sum(expected.values())} results, {len(closed_early)} windows closed before the end, "
      f"{sum(late.values())} late flights")
assert len(closed_early) >= 100 and late


def read(path, pick=lambda row: row):
    return collections.Counter(json.dumps(pick(json.loads(line)), sort_keys=True) for line in open(path))


if len(sys.argv) == 3:
    for name, want, have in [("results", expected, read(sys.argv[1])),
                             ("late flights", late, read(sys.argv[2], lambda letter: letter["element"]))]:
        for row in list((want - have))[:5]:
            print(f"missing among the {name}: {row}")
        for row in list((have - want))[:5]:
            print(f"not expected among the {name}: {row}")
        if want != have:
            sys.exit(f"the {name} differ")
    print("results and late flights are as expected")
