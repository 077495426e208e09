-- The mean of the prices at which auctions close, by category.
CREATE TABLE auction (id BIGINT, category BIGINT, ts TIMESTAMP(3), expires TIMESTAMP(3))
WITH ('connector' = 'columns', 'directory' = '${data}');

CREATE TABLE bid (auction BIGINT, price BIGINT, ts TIMESTAMP(3))
WITH ('connector' = 'columns', 'directory' = '${data}');

SELECT category, AVG(final) AS mean
FROM (
  SELECT auction.id, auction.category, MAX(bid.price) AS final
  FROM auction
  JOIN bid ON auction.id = bid.auction
  WHERE bid.ts BETWEEN auction.ts AND auction.expires
  GROUP BY auction.id, auction.category
)
GROUP BY category;
