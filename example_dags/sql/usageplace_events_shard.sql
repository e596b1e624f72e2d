-- What the field crews did, as in usageplace_events.sql, but only one shard: number :shard of :shards, the task's
-- `parameters`. This is SQLite's syntax for parameters; most other databases' drivers use %(shard)s and %(shards)s.
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
        -- A row's shard depends only on its code, so that all events of a place are in one shard. All rows of an event
        -- go to the lowest of their shards: if one has no code, or another code, they are invalid together, as in one
        -- task. For a row without an id (its id is then made from its content), the code is used instead of the id.
        min(
            -- SQLite has no hash function; the last digits of the code are good enough. On other databases this line
            -- hashes only the letters and digits of the code, because blanks around a code do not make another place:
            --   PostgreSQL      abs(mod(hashtext(regexp_replace(place_code, '[^0-9A-Za-z]', '', 'g')), %(shards)s))
            --   Snowflake       abs(mod(hash(regexp_replace(place_code, '[^0-9A-Za-z]', '')), %(shards)s))
            --   BigQuery        abs(mod(farm_fingerprint(regexp_replace(place_code, '[^0-9A-Za-z]', '')), %(shards)s))
            --   MariaDB, MySQL  mod(crc32(regexp_replace(place_code, '[^0-9A-Za-z]', '')), %(shards)s)
            -- (The remainder first: the absolute value of the smallest integer cannot be computed.)
            abs(CAST(substr(trim(place_code, ' ' || char(9, 10, 13, 160)), -4) AS INTEGER) % :shards)
        -- (MariaDB and MySQL: BINARY before coalesce, otherwise WO-1a and WO-1A may count as one event.)
        ) OVER (PARTITION BY coalesce(nullif(trim(work_order_no), ''), place_code)) AS shard
    FROM field_work_outcome
    WHERE recorded_at >= '{{ (data_interval_end - macros.timedelta(days=7)).strftime("%Y-%m-%d %H:%M:%S") }}'
      AND recorded_at < '{{ data_interval_end.strftime("%Y-%m-%d %H:%M:%S") }}'
) AS outcome
-- An event without any code has no shard: the first shard takes it, so that it is counted as invalid, and not lost.
WHERE coalesce(shard, 0) = :shard
-- The same order every time: an event's invoices are sent, and compared, in the order of their rows.
ORDER BY done_at, invoice_no
