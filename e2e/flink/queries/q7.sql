-- The bids with the highest price of each ten seconds.
CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND)
WITH ('connector' = 'columns', 'directory' = '${data}');

CREATE VIEW windowed AS
SELECT *
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND));

CREATE VIEW highest AS
SELECT window_start, window_end, MAX(price) AS price
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY window_start, window_end;

SELECT windowed.auction, windowed.bidder, windowed.price
FROM windowed
JOIN highest
ON windowed.window_start = highest.window_start
  AND windowed.window_end = highest.window_end
  AND windowed.price = highest.price;
