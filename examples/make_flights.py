"""Makes data/flights.jsonl: 10,000 flights of 2001 in the order in which they really left.

Source: US Bureau of Transportation Statistics, on-time performance, 2001, as packaged in npm's
`vega-datasets` 3.2.1 (`npm pack vega-datasets@3.2.1`, file package/data/flights-3m.parquet).
Usage: python3 make_flights.py package/data/flights-3m.parquet   (needs pyarrow)
"""
import datetime
import json
import pathlib
import sys

import pyarrow.compute as pc
import pyarrow.parquet as pq

START = datetime.datetime(2001, 3, 1)
rows = pq.read_table(sys.argv[1]).filter(pc.field("date") >= START).slice(0, 20_000).to_pylist()
# What happened is the departure: the scheduled time plus the delay. Ties keep the file's order.
rows.sort(key=lambda row: row["date"] + datetime.timedelta(minutes=row["delay"]))
with open(pathlib.Path(__file__).parent / "data" / "flights.jsonl", "w") as out:
    for row in rows[:10_000]:
        row["date"] = row["date"].strftime("%Y-%m-%d %H:%M")
        out.write(json.dumps(row, separators=(",", ":")) + "\n")
