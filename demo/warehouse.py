"""Small warehouse of a utility: a SQLite table with the outcomes of field work, twelve rows a day."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path

TABLE = """
CREATE TABLE field_work_outcome (
    work_order_no TEXT, place_code TEXT, result TEXT, done_at TEXT, customer_no TEXT, contract_no TEXT,
    remark TEXT, invoice_no TEXT, ropo_jobid INTEGER, recorded_at TEXT, load_no INTEGER
)
"""
INSERT = "INSERT INTO field_work_outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# order, place, result, hour and minute, customer, contract, remark, invoice, jobid
DAY = [
    ("01", "643007572062443672", "cut off", "08:12:40", "A123456", "555555b", None, "594294", 1234),
    (
        "02",
        "643007572062443689",
        "not cut off",
        "08:47:05",
        "A123890",
        "555561b",
        "No access to the meter",
        "594301",
        1235,
    ),
    ("03", "643007572062443696", "reconnected", "09:03:31", "A124002", "555570b", None, "593990", 1198),
    # One event with two invoices: two rows.
    ("04", "643007572062443702", "cut off", "09:40:00", "A124417", "555602b", None, "594310", 1240),
    ("04", "643007572062443702", "cut off", "09:40:00", "A124417", "555602b", None, "594311", 1241),
    ("05", "RE12345", "cut off", "10:05:12", "A125001", "555640b", "Cut off at the pole", "594320", 1250),
    (
        "06",
        "643007572062443719",
        "not cut off",
        "10:31:00",
        "A125118",
        "555655b",
        "Paid at the door",
        "594333",
        1252,
    ),
    # The remark is missing, but Ropo One needs the reason.
    ("07", "643007572062443726", "not cut off", "10:58:20", "A125200", "555660b", None, "594340", 1255),
    ("08", "643007572062443733", "reconnected", "11:20:45", "A125307", "555671b", None, "594021", 1201),
    # A usage place that Ropo One does not know.
    ("09", "UNKNOWN-7781", "cut off", "12:44:09", "A125400", "555680b", None, "594350", 1258),
    ("10", "643007572062443740", "cut off", "13:02:00", "A125555", "555699b", None, "594361", 1260),
    (
        "10r",
        "643007572062443740",
        "reconnected",
        "15:32:00",
        "A125555",
        "555699b",
        "Paid, cut back in",
        "594361",
        1260,
    ),
]


def make_warehouse(path: Path, *, last_day: dt.date, days: int = 1) -> None:
    """Create the table with the outcomes of some days, each day loaded in its evening.

    :param last_day: the last of these days.
    :param days: the number of days.
    """
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute(TABLE)
        for load in range(1, days + 1):
            day = last_day - dt.timedelta(days=days - load)
            for number, place, result, time, *rest in DAY:
                order = f"WO-{day:%m%d}-{number}"
                row = (order, place, result, f"{day} {time}", *rest, f"{day} 20:15:00", load)
                database.execute(INSERT, row)
        database.commit()
