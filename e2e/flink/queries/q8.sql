-- Who opened an auction in the ten seconds in which they joined.
CREATE TABLE person (id BIGINT, name STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND)
WITH ('connector' = 'columns', 'directory' = '${data}');

CREATE TABLE auction (seller BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND)
WITH ('connector' = 'columns', 'directory' = '${data}');

CREATE VIEW joined AS
SELECT id, name, window_start, window_end
FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY id, name, window_start, window_end;

CREATE VIEW opened AS
SELECT seller, window_start, window_end
FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY seller, window_start, window_end;

SELECT joined.id, joined.name
FROM joined
JOIN opened
ON joined.id = opened.seller
  AND joined.window_start = opened.window_start
  AND joined.window_end = opened.window_end;
