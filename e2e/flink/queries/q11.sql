-- How many bids each bidder made until ten seconds without one passed.
-- A pause of exactly the gap does not end a session in Flink. In Beam it does, hence a millisecond less.
CREATE TABLE bid (bidder BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND)
WITH ('connector' = 'columns', 'directory' = '${data}');

SELECT bidder, COUNT(*) AS bids
FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '9.999' SECOND))
GROUP BY bidder, window_start, window_end;
