"""Flights of 2001 as JSON lines, and what the example computes of them by DuckDB.

Usage: flights.py make PARQUET ROWS OUT      the first ROWS flights, in the order in which they left
       flights.py query JSON OUT THREADS     counts, means and extremes in windows of five minutes by origin
"""
import sys

import duckdb


def make(parquet, rows, out):
    duckdb.sql(f"""
        COPY (SELECT strftime(date, '%Y-%m-%d %H:%M') AS date, delay, distance, origin, destination
              FROM (SELECT * FROM '{parquet}' ORDER BY date LIMIT {int(rows)})
              ORDER BY epoch(flights_date) + delay * 60)
        TO '{out}' (FORMAT json)""".replace("flights_date", "CAST(date AS TIMESTAMP)"))


def query(source, out, threads):
    duckdb.sql(f"SET threads = {int(threads)}")
    duckdb.sql(f"""
        COPY (SELECT origin, count(delay) AS flights, avg(delay) AS mean_delay, max(delay) AS worst_delay,
                     sum(distance) AS miles, min(date) AS first, max(date) AS last
              FROM read_json('{source}', format = 'newline_delimited',
                             columns = {{date: 'TIMESTAMP', delay: 'BIGINT', distance: 'BIGINT',
                                         origin: 'VARCHAR', destination: 'VARCHAR'}})
              GROUP BY time_bucket(INTERVAL 5 MINUTES, date), origin)
        TO '{out}' (FORMAT json)""")


{"make": make, "query": query}[sys.argv[1]](*sys.argv[2:])
