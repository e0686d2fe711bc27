"""psycopg 3 by itself: python psycopg_client.py PORT."""

import datetime
import sys

import psycopg
import shapely

port = sys.argv[1]
where = f"host=127.0.0.1 port={port} user=conurb dbname=conurb"
GUCHENG = "urn:ngsi-ld:AirQualityObserved:gucheng"
UTC = datetime.timezone.utc
BOX = "POLYGON((116 39, 116.3 39, 116.3 41, 116 41, 116 39))"


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def places(connection):
    """Geometries with their reference system, both as parameters, in the ways that GeoAlchemy and people write them."""
    binary = shapely.to_wkb(shapely.Point(116.2, 39.9))
    extended = shapely.to_wkb(shapely.set_srid(shapely.Point(116.2, 39.9), 4326), include_srid=True)
    for place, parameters in [
        ("ST_GeomFromText(%s, %s)", (BOX, 4326)),
        ("ST_GeomFromText(%s::varchar, %s::integer)", (BOX, 4326)),
        ("ST_GeomFromEWKT(%s)", (f"SRID=4326;{BOX}",)),
        ("ST_SetSRID(ST_GeomFromText(%s), %s)", (BOX, 4326)),
        ("ST_MakeEnvelope(%s, %s, %s, %s, %s)", (116, 39, 116.3, 41, 4326)),
        ("ST_Buffer(ST_SetSRID(ST_MakePoint(%s, %s), %s), %s)", (116.2, 39.9, 4326, 0.1)),
        ("ST_GeomFromWKB(%s, %s)", (binary, 4326)),
        ("ST_GeomFromWKB(%s::bytea, %s::integer)", (binary, 4326)),
        ("ST_GeomFromEWKB(%s)", (extended,)),
        ("%s::geometry", (extended.hex(),)),
    ]:
        for kind in ("s", "b", "t"):
            sql = f'select id from "AirQualityObserved" where ST_Intersects(location, {place.replace("%s", f"%{kind}")})'
            # Bytes as the text of a geometry are not what ST_GeomFromText reads.
            same(connection.execute(sql, parameters).fetchall(), [(GUCHENG,)])
        # The reference system is that of the parameter.
        same(connection.execute(f"select ST_SRID({place})", parameters).fetchone(), (4326,))
    for srid, want in ((4326, 4326), (3857, 3857), (0, 0)):
        same(connection.execute("select ST_SRID(ST_GeomFromText(%s, %s)), ST_AsEWKT(ST_SetSRID(ST_MakePoint(1, 2), %s))", ("POINT(1 2)", srid, srid)).fetchone(),
             (want, f"SRID={want};POINT(1 2)" if want else "POINT(1 2)"))
    shown = connection.execute("select ST_GeomFromText(%s, %s) as g", ("POINT(1 2)", 4326)).fetchone()[0]
    point = shapely.from_wkb(shown)
    same((point.wkt, shapely.get_srid(point)), ("POINT (1 2)", 4326))
    for sql, parameters, state in [
        # Another reference system is an error, not a wrong answer.
        ('select id from "AirQualityObserved" where ST_Intersects(location, ST_GeomFromText(%s, %s))', (BOX, 3857), None),
        ("select ST_SetSRID(ST_MakePoint(1, 2), lanes) from (values (1), (2)) t(lanes)", (), "constant"),
        ("select ST_SetSRID(ST_MakePoint(1, 2), lanes + %s) from (values (1), (2)) t(lanes)", (1,), "constant"),
        ("select ST_SetSRID(ST_MakePoint(1, 2), %s)", ("here",), None),
    ]:
        try:
            connection.execute(sql, parameters)
        except psycopg.Error as error:
            assert state is None or state in str(error), error
        else:
            raise AssertionError(f"no error: {sql}")


def repeats(connection):
    """A statement is prepared on the server when it was executed five times, and says the same afterwards."""
    sql = 'select id, pm25 from "AirQualityObserved" where ST_DWithin(location, ST_GeomFromText(%s, %s), %s) and pm25 > %s order by id'
    for i in range(12):
        rows = connection.execute(sql, ("POINT(116.2 39.9)", 4326, 0.05 if i % 2 else 1.0, 39 if i % 3 else 0)).fetchall()
        want = [(GUCHENG, 120.5)] if i % 2 or i % 3 else [(GUCHENG, 120.5), ("urn:ngsi-ld:AirQualityObserved:tiantan", 38.0)]
        same(rows, want)
    # Prepared at once, with other reference systems from one execution to the next.
    for srid in (4326, 3857, 4326, 4490):
        same(connection.execute("select ST_SRID(ST_SetSRID(ST_MakePoint(%s, %s), %s))", (1, 2, srid), prepare=True).fetchone(), (srid,))
    with connection.cursor() as cursor:
        cursor.executemany('select count(*) from "AirQualityObserved" where pm25 > %s', [(0,), (40,), (100.5,), (1000,)], returning=True)
        counts = []
        while True:
            counts.append(cursor.fetchone()[0])
            if not cursor.nextset():
                break
        same(counts, [3, 2, 1, 0])


def values(connection):
    """Parameters and answers in both formats."""
    when = datetime.datetime(2014, 1, 1, 23, 30, tzinfo=UTC)
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            kind = "b" if binary else "t"
            row = cursor.execute(
                f'select id, pm25, observed_at, calibrated, lon, "stationName" from "AirQualityObserved" where observed_at >= %{kind} and pm25 > %{kind} order by id limit 1',
                (when, 40.25),
            ).fetchone()
            same(row, (GUCHENG, 120.5, datetime.datetime(2014, 1, 2, tzinfo=UTC), None, 116.2, "gucheng"))
            for value in (1, -(2**40), 0.1, 1e23, 5e-324, float("inf"), -1.5, "天坛", True, b"\x00\xff", datetime.date(2014, 1, 1), None):
                same(cursor.execute(f"select %{kind}", (value,)).fetchone(), (value,))
    same(connection.execute("select array[1.0, 0.1, null, 1e20]").fetchone(), ([1.0, 0.1, None, 1e20],))


def cursors(connection):
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.itersize = 2
        cursor.execute("select * from generate_series(1, 7) as g")
        same([r[0] for r in cursor], [1, 2, 3, 4, 5, 6, 7])
    for binary in (False, True):
        with connection.transaction(), connection.cursor("with_values", binary=binary) as cursor:
            cursor.execute('select id, pm25, location, observed_at from "AirQualityObserved" where pm25 > %s order by id', (40,))
            same([d.name for d in cursor.description], ["id", "pm25", "location", "observed_at"])
            first = cursor.fetchone()
            same((first[1], first[2], first[3].tzinfo is not None), (41.0, None, True))
            rest = cursor.fetchall()
            same((len(rest), rest[0][0], rest[0][1], shapely.from_wkb(rest[0][2]).wkt), (1, GUCHENG, 120.5, "POINT (116.2 39.9)"))
    # As GDAL reads: a binary cursor in plain statements.
    with connection.transaction():
        connection.execute('declare ogr binary cursor for select pm25, location from "AirQualityObserved" where pm25 > 100')
        rows = connection.execute("fetch 5 in ogr").fetchall()
        same((rows[0][0], shapely.from_wkb(rows[0][1]).wkt), (120.5, "POINT (116.2 39.9)"))
        same(connection.execute("fetch 5 in ogr").fetchall(), [])
        connection.execute("declare parts cursor for select * from generate_series(1, 20000) as g")
        same([d.name for d in connection.execute("fetch 0 in parts").description], ["g"])
        same([len(connection.execute(f"fetch {n} in parts").fetchall()) for n in ("3", "9000", "next", "all", "1")], [3, 9000, 1, 10996, 0])
        connection.execute("close ogr")
        for sql, state in [("fetch 1 from ogr", "34000"), ("close ogr", "34000")]:
            try:
                with connection.transaction():
                    connection.execute(sql)
            except psycopg.Error as error:
                same(error.sqlstate, state)
            else:
                raise AssertionError(sql)
    # A transaction ends its cursors.
    try:
        connection.execute("fetch 1 in parts")
    except psycopg.errors.InvalidCursorName:
        pass
    else:
        raise AssertionError("the cursor is still there")
    with connection.pipeline():
        several = [connection.execute("select %s::int", (i,)) for i in range(3)]
    same([c.fetchone()[0] for c in several], [0, 1, 2])
    try:
        connection.execute("select nonsense")
    except psycopg.errors.UndefinedColumn:
        pass
    same(connection.execute("select 7").fetchone(), (7,))


with psycopg.connect(where, autocommit=True) as connection:
    for check in (places, repeats, values, cursors):
        check(connection)
print("ok psycopg")
