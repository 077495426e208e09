-- The auctions with the most bids in the last ten seconds, every two seconds.
CREATE TABLE bid (auction BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND)
WITH ('connector' = 'columns', 'directory' = '${data}');

CREATE VIEW counts AS
SELECT auction, window_start, window_end, COUNT(*) AS bids
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;

CREATE VIEW most AS
SELECT window_start, window_end, MAX(bids) AS bids
FROM counts
GROUP BY window_start, window_end;

SELECT counts.auction, counts.bids
FROM counts
JOIN most
ON counts.window_start = most.window_start
  AND counts.window_end = most.window_end
  AND counts.bids = most.bids;
