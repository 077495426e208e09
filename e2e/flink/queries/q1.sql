-- All prices in another currency (times 1000): how many, and their sum.
CREATE TABLE bid (price BIGINT)
WITH ('connector' = 'columns', 'directory' = '${data}');

SELECT COUNT(*) AS bids, SUM(price * 908) AS total FROM bid;
