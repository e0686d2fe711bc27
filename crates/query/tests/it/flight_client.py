"""Asks a Flight SQL server of the tests as people do: by the unmodified packages adbc_driver_flightsql and pyarrow.

Arguments: port, what to check. Prints a line `ok <check>` when it held.
"""

import sys
import threading
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow

PORT, CHECK = sys.argv[1], sys.argv[2]
URI = f"grpc://127.0.0.1:{PORT}"
WHO = {"username": "analyst", "password": "s3cret"}
GUCHENG = "urn:ngsi-ld:AirQualityObserved:gucheng"


def connect(uri=URI, autocommit=True, **options):
    return flight_sql.connect(uri, db_kwargs=options or WHO, autocommit=autocommit)


def refused(ask, *parts):
    """The message of the error that `ask` ends with."""
    try:
        ask()
    except Exception as error:  # Whatever the driver makes of it.
        for part in parts:
            assert part in str(error), f"expected `{part}` in `{error}`"
        return error
    raise AssertionError(f"no error with {parts}")


def query():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute('select id, pm25, calibrated, observed_at from "AirQualityObserved" order by pm25')
        rows = cursor.fetchall()
        assert [r[1] for r in rows] == [38.0, 41.0, 120.5], rows
        assert [r[2] for r in rows] == [None, True, None], rows
        assert rows[2][3].isoformat() == "2014-01-02T00:00:00+00:00", rows
        cursor.execute('select pm25, "stationName" from "AirQualityObserved" where pm25 > 1000')
        table = cursor.fetch_arrow_table()
        assert table.num_rows == 0 and table.column_names == ["pm25", "stationName"], table
        # Unit and full name travel with the column.
        metadata = table.schema.field("pm25").metadata
        assert metadata[b"unit_code"] == b"GQ" and metadata[b"iri"] == b"https://example.org/pm25", metadata
        cursor.execute("select current_user")
        assert cursor.fetchone() == ("conurb",)
        # Columns are called as PostgreSQL calls them, several the same if need be.
        cursor.execute("select 1, 2, pi() as a, 3 as a")
        assert cursor.fetch_arrow_table().column_names == ["?column?", "?column?", "a", "a"]


def errors():
    with connect() as connection, connection.cursor() as cursor:
        error = refused(lambda: cursor.execute("select * from airqualityobserved"), 'did you mean "AirQualityObserved"')
        text = lambda t: t.decode() if isinstance(t, bytes) else t
        assert ("sqlstate", "42P01") in [(text(k), text(v)) for k, v in error.details], error.details
        refused(lambda: cursor.execute("selec 1"), "Expected")
        refused(lambda: cursor.execute('delete from "Road"'), "read-only")
        refused(lambda: cursor.execute("set search_path = x"), "read-only")
        refused(lambda: cursor.executemany('insert into "Road" (id) values (?)', [("x",)]), "read-only")
        cursor.execute("select 1 / (value - 500000) from generate_series(1, 1000000)")
        refused(cursor.fetchall, "Divide by zero")
        # The connection is as good as before.
        cursor.execute("select 7")
        assert cursor.fetchone() == (7,)


def metadata():
    with connect() as connection:
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "conurb", info
        assert sorted(connection.adbc_get_table_types()) == ["SYSTEM TABLE", "TABLE"]
        schema = connection.adbc_get_table_schema("AirQualityObserved")
        assert schema.field("pm25").type == pyarrow.float64(), schema
        assert schema.field("observed_at").type == pyarrow.timestamp("us", "+00:00"), schema
        objects = connection.adbc_get_objects(depth="all", catalog_filter="conurb", db_schema_filter="public").read_all().to_pylist()
        assert [o["catalog_name"] for o in objects] == ["conurb"], objects
        tables = {t["table_name"]: t for s in objects[0]["catalog_db_schemas"] for t in s["db_schema_tables"]}
        assert {"AirQualityObserved", "AirQualityObserved_history", "Gone_history", "Road"} <= set(tables), sorted(tables)
        columns = [c["column_name"] for c in tables["AirQualityObserved_history"]["table_columns"]]
        assert columns == ["id", "dataset_id", "observed_at", "recorded_at", "note", "pm25"], columns
        schemas = connection.adbc_get_objects(depth="db_schemas").read_all().to_pylist()
        assert "public" in [s["db_schema_name"] for s in schemas[0]["catalog_db_schemas"]], schemas


def prepared():
    with connect() as connection, connection.cursor() as cursor:
        ask = 'select pm25 from "AirQualityObserved" where id = ? and pm25 > ?'
        cursor.execute(ask, (GUCHENG, 100))
        assert cursor.fetchall() == [(120.5,)]
        cursor.execute(ask, (GUCHENG, 200.0))
        assert cursor.fetchall() == []
        parameters = cursor.adbc_prepare(ask)
        assert parameters.types == [pyarrow.string(), pyarrow.float64()], parameters
        cursor.execute('select count(*) from "AirQualityObserved_history" where observed_at >= $1', ("2014-01-01T02:00:00Z",))
        assert cursor.fetchone() == (4,)
        # Each row of parameters is answered in turn.
        cursor.execute("select ? as n", pyarrow.record_batch({"0": pyarrow.array([1, 2, 3], pyarrow.int64())}))
        assert cursor.fetchall() == [(1,), (2,), (3,)]
        refused(lambda: cursor.execute(ask, (GUCHENG,)), "2 parameters, 1 were bound")


def ingest():
    with connect() as connection, connection.cursor() as cursor:
        rows = pyarrow.table({
            "id": ["urn:ngsi-ld:AirQualityObserved:new"] * 3,
            "observed_at": pyarrow.array([1388600000000, 1388603600000, 1388607200000], pyarrow.timestamp("ms")),
            "pm25": pyarrow.array([10, None, 12], pyarrow.int64()),
            "stationName": ["new", "new", None],
        })
        assert cursor.adbc_ingest("AirQualityObserved_history", rows, mode="append") == 3
        cursor.execute("""select observed_at, pm25, "stationName" from "AirQualityObserved_history" where id like '%:new' order by 1""")
        got = cursor.fetchall()
        assert [r[1] for r in got] == [10.0, None, 12.0] and [r[2] for r in got] == ["new", "new", None], got
        # A type that nobody has heard of yet.
        lamps = pyarrow.table({
            "id": [f"urn:lamp:{i}" for i in range(15_000)],
            "observed_at": pyarrow.array([1388600000 + i for i in range(15_000)], pyarrow.timestamp("s", "UTC")),
            "on": [i % 2 == 0 for i in range(15_000)],
        })
        refused(lambda: cursor.adbc_ingest("Lamp_history", lamps, mode="append"), "no table `Lamp_history` yet")
        assert cursor.adbc_ingest("Lamp_history", lamps, mode="create_append") == 15_000
        cursor.execute('select count(*), count(distinct id) from "Lamp_history" where "on"')
        assert cursor.fetchall() == [(7_500, 7_500)]
        refused(lambda: cursor.adbc_ingest("Lamp_history", lamps, mode="create"), "already")
        refused(lambda: cursor.adbc_ingest("Lamp_history", lamps, mode="replace"), "not replaced")
        refused(lambda: cursor.adbc_ingest("Lamp", lamps, mode="append"), "did you mean `Lamp_history`?")

        def bad(column, values, *parts):
            wrong = rows.slice(0, 2).set_column(rows.column_names.index(column), column, values)
            refused(lambda: cursor.adbc_ingest("AirQualityObserved_history", wrong, mode="append"), *parts)

        bad("id", pyarrow.array(["urn:x:1", "not an iri"]), "row 2", "column `id`")
        bad("id", pyarrow.array(["urn:x:1", None]), "row 2", "`id` is null")
        bad("observed_at", pyarrow.array([None, None], pyarrow.timestamp("us")), "row 1", "`observed_at` is null")
        bad("observed_at", pyarrow.array(["2014-01-01T00:00:00Z", "yesterday"]), "row 2", "`observed_at`")
        bad("pm25", pyarrow.array(["a", "b"]), "column `pm25` holds texts (expected numbers")
        bad("pm25", pyarrow.array([[1], [2]]), "column `pm25`")
        refused(lambda: cursor.adbc_ingest("AirQualityObserved_history", rows.drop(["id"]), mode="append"), "no column `id`")
        unknown = rows.append_column("no such thing", rows["pm25"])
        refused(lambda: cursor.adbc_ingest("AirQualityObserved_history", unknown, mode="append"), "column `no such thing` is no attribute")
        # Nothing of all that was kept.
        cursor.execute("""select count(*) from "AirQualityObserved_history" where id like 'urn:x:%'""")
        assert cursor.fetchone() == (0,)


def passwords():
    def ask(uri=URI, **options):
        with connect(uri, **options) as connection, connection.cursor() as cursor:
            cursor.execute("select current_user")
            return cursor.fetchone()

    header = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
    assert ask(username="analyst", password="s3cret") == ("conurb",)
    assert ask(username="guest", password="guest") == ("nobody",)
    # Without a handshake: the token itself.
    assert ask(**{header: "Bearer t0ken"}) == ("robot",)
    refused(lambda: ask(username="analyst", password="wrong"), "wrong user or password")
    refused(lambda: ask(username="offline", password="x"), "the directory does not answer")
    refused(lambda: ask(**{header: "Bearer guess"}), "wrong user or password")
    refused(lambda: ask(**{header: "nonsense"}), "cannot read the header `authorization`")
    refused(lambda: ask(uri=URI, **{"adbc.flight.sql.client_option.with_max_msg_size": "16777216"}), "credentials are needed")
    # Who can read only cannot ingest.
    rows = pyarrow.table({"id": ["urn:x:1"], "observed_at": ["2014-01-01T00:00:00Z"], "pm25": [1.0]})
    with connect(username="guest", password="guest") as connection, connection.cursor() as cursor:
        refused(lambda: cursor.adbc_ingest("AirQualityObserved_history", rows, mode="append"), "can read only")


def tls():
    certificate = open(sys.argv[3]).read()
    options = {
        "username": "analyst",
        "password": "s3cret",
        adbc_driver_flightsql.DatabaseOptions.TLS_ROOT_CERTS.value: certificate,
    }
    with connect(f"grpc+tls://localhost:{PORT}", **options) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from generate_series(1, 100000)")
        assert cursor.fetchone() == (100_000,)
    refused(lambda: connect().cursor().execute("select 1"))


def cancel():
    """The server has one place for a statement: it is free again as soon as the statement is cancelled."""
    with connect() as connection, connection.cursor() as cursor:
        for _ in range(3):
            def stop():
                time.sleep(0.4)
                cursor.adbc_cancel()

            stopper = threading.Thread(target=stop)
            stopper.start()
            started = time.monotonic()

            def ask():
                cursor.execute("select count(*) from generate_series(1, 1000000000000)")
                cursor.fetchone()

            refused(ask)
            assert time.monotonic() - started < 10
            stopper.join()
    with connect() as connection, connection.cursor() as cursor:
        deadline = time.monotonic() + 5
        while True:
            try:
                cursor.execute("select 1")
                assert cursor.fetchone() == (1,)
                break
            except Exception as error:
                assert "too many statements" in str(error) and time.monotonic() < deadline, error
                time.sleep(0.05)


def stream():
    """Two million rows, taken as they come."""
    with connect() as connection, connection.cursor() as cursor:
        started = time.monotonic()
        cursor.execute("select value, value * 0.5 as half, 'station ' || (value % 100) as name from generate_series(1, 2000000)")
        reader = cursor.fetch_record_batch()
        first = None
        n_rows, n_batches, total = 0, 0, 0
        for batch in reader:
            first = first or time.monotonic() - started
            n_rows += batch.num_rows
            n_batches += 1
            total += pyarrow.compute.sum(batch.column("value")).as_py()
        took = time.monotonic() - started
        assert (n_rows, total) == (2_000_000, 2_000_000 * 2_000_001 // 2), (n_rows, total)
        assert n_batches > 50, n_batches
        print(f"2000000 rows in {took:.2f} s, the first batch after {first:.3f} s")


import pyarrow.compute  # noqa: E402

checks = {f.__name__: f for f in [query, errors, metadata, prepared, ingest, passwords, tls, cancel, stream]}
checks[CHECK]()
print(f"ok {CHECK}")
