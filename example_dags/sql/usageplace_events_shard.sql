-- What the field crews did, as in usageplace_events.sql, but at the usage places of one shard only.
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
        -- The shard depends on the code alone (and not on the blanks around it), so that all events of a place are in
        -- one, whatever else is in the table when each task reads it.
        -- SQLite has no hash function; the digits in which most codes end will do. Elsewhere this line is:
        --   PostgreSQL      abs(mod(hashtext(trim(place_code)), {{ params.shards }})) AS shard
        --   Snowflake       abs(mod(hash(trim(place_code)), {{ params.shards }})) AS shard
        --   BigQuery        abs(mod(farm_fingerprint(trim(place_code)), {{ params.shards }})) AS shard
        --   MariaDB, MySQL  mod(crc32(trim(place_code)), {{ params.shards }}) AS shard
        -- (The remainder first: a hash may be the smallest of all integers, which has no absolute value.)
        abs(CAST(substr(trim(place_code), -4) AS INTEGER) % {{ params.shards }}) AS shard
    FROM field_work_outcome
    WHERE recorded_at >= '{{ data_interval_start.strftime("%Y-%m-%d %H:%M:%S") }}'
      AND recorded_at < '{{ data_interval_end.strftime("%Y-%m-%d %H:%M:%S") }}'
) AS outcome
-- A row without a code has no shard: the first one takes it, so that it is counted invalid, and not lost.
WHERE coalesce(shard, 0) = {{ params.shard }}
