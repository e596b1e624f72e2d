-- What the field crews did, with the columns of an event; one row per event and invoice.
-- A look-back of seven days by recorded_at (UTC, like the dates of Airflow), the time at which a row was loaded into the
-- warehouse: late rows are found, and so is what an earlier run did not send. The ledger skips what is at Ropo One.
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
WHERE recorded_at >= '{{ (data_interval_end - macros.timedelta(days=7)).strftime("%Y-%m-%d %H:%M:%S") }}'
  AND recorded_at < '{{ data_interval_end.strftime("%Y-%m-%d %H:%M:%S") }}'
ORDER BY done_at
