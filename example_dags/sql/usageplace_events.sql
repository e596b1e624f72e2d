-- What the field crews did, as the columns an event is made of; one row per event and invoice.
-- The window is over recorded_at (UTC, like the dates of Airflow), the time a row landed in the warehouse: a report
-- that comes in late is then in the window in which it came, and not lost.
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
FROM field_work_outcome
WHERE recorded_at >= '{{ data_interval_start.strftime("%Y-%m-%d %H:%M:%S") }}'
  AND recorded_at < '{{ data_interval_end.strftime("%Y-%m-%d %H:%M:%S") }}'
ORDER BY done_at
