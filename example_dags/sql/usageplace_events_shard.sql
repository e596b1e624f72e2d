-- What the field crews did, as in usageplace_events.sql, but one shard of it: number :shard of :shards, the task's
-- `parameters`. That is how SQLite writes them; most other databases' drivers take %(shard)s and %(shards)s.
SELECT
    work_order_no AS id,
    place_code AS usageplacecode,
    result AS status,
    done_at AS time,
    customer_no AS customernumber,
    contract_no,
    remark AS description,
    invoice_no AS invoicenumber,
    ropo_jobid AS jobid
FROM (
    SELECT
        field_work_outcome.*,
        -- A row's shard depends on its code alone, so that all events of a place are in one. All rows of an event go to
        -- the lowest of their shards: if one lacks its code, or has another, they are found invalid together, as in one
        -- task. A row without an id, which is then made from its content, goes with its code.
        min(
            -- SQLite has no hash function; the digits in which most codes end will do. Elsewhere this line hashes the
            -- code's letters and digits alone, as blanks around them make no other place:
            --   PostgreSQL      abs(mod(hashtext(regexp_replace(place_code, '[^0-9A-Za-z]', '', 'g')), %(shards)s))
            --   Snowflake       abs(mod(hash(regexp_replace(place_code, '[^0-9A-Za-z]', '')), %(shards)s))
            --   BigQuery        abs(mod(farm_fingerprint(regexp_replace(place_code, '[^0-9A-Za-z]', '')), %(shards)s))
            --   MariaDB, MySQL  mod(crc32(regexp_replace(place_code, '[^0-9A-Za-z]', '')), %(shards)s)
            -- (The remainder first: a hash may be the smallest of all integers, which has no absolute value.)
            abs(CAST(substr(trim(place_code, ' ' || char(9, 10, 13, 160)), -4) AS INTEGER) % :shards)
        -- (MariaDB and MySQL: BINARY before coalesce, or else WO-1a and WO-1A may be taken for one event.)
        ) OVER (PARTITION BY coalesce(nullif(trim(work_order_no), ''), place_code)) AS shard
    FROM field_work_outcome
    WHERE recorded_at >= '{{ data_interval_start.strftime("%Y-%m-%d %H:%M:%S") }}'
      AND recorded_at < '{{ data_interval_end.strftime("%Y-%m-%d %H:%M:%S") }}'
) AS outcome
-- An event without any code has no shard: the first one takes it, so that it is counted invalid, and not lost.
WHERE coalesce(shard, 0) = :shard
-- The same order every time: an event's invoices are told, and compared, in that of their rows.
ORDER BY done_at, invoice_no
