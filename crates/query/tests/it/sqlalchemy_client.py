"""SQLAlchemy, pandas, GeoPandas and GeoAlchemy as people use them: python sqlalchemy_client.py PORT DRIVER."""

import datetime
import decimal
import sys

import geopandas
import pandas
import shapely
from geoalchemy2 import Geometry, WKTElement
from geoalchemy2 import functions as spatial
from geoalchemy2.shape import from_shape, to_shape
from sqlalchemy import MetaData, Table, create_engine, inspect, select, text

port, driver = sys.argv[1:]
engine = create_engine(f"postgresql+{driver}://conurb@127.0.0.1:{port}/conurb")
UTC = datetime.timezone.utc
GUCHENG = "urn:ngsi-ld:AirQualityObserved:gucheng"
STATIONS = "AirQualityObserved"


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def one(sql, **parameters):
    with engine.connect() as connection:
        return connection.execute(text(sql), parameters).scalar()


def inspection():
    looked_at = inspect(engine)
    same(looked_at.default_schema_name, "public")
    same(sorted(looked_at.get_schema_names()), ["information_schema", "public"])
    same(sorted(looked_at.get_table_names()), [STATIONS, "AirQualityObserved_history", "Asset_history", "Gone_history", "Probe_history", "Road", "Sensor_history"])
    same((looked_at.get_view_names(), looked_at.get_materialized_view_names(), looked_at.get_sequence_names()), ([], [], []))
    same((looked_at.has_table("Road"), looked_at.has_table("road")), (True, False))
    columns = {c["name"]: c for c in looked_at.get_columns(STATIONS)}
    same(list(columns)[:7], ["id", "observed_at", "created_at", "modified_at", "lon", "lat", "location"])
    kinds = {name: str(columns[name]["type"]) for name in ("id", "pm25", "calibrated", "observed_at")}
    same(kinds, {"id": "TEXT", "pm25": "DOUBLE PRECISION", "calibrated": "BOOLEAN", "observed_at": "TIMESTAMP"})
    assert columns["observed_at"]["type"].timezone
    same((columns["id"]["nullable"], columns["pm25"]["nullable"]), (False, True))
    same(columns["pm25"]["comment"], "unit GQ; https://example.org/pm25")
    key = looked_at.get_pk_constraint(STATIONS)
    same((key["constrained_columns"], key["name"]), (["id"], "AirQualityObserved_pkey"))
    same(looked_at.get_pk_constraint("Gone_history")["constrained_columns"], [])
    for several in (looked_at.get_foreign_keys, looked_at.get_indexes, looked_at.get_unique_constraints, looked_at.get_check_constraints):
        same(several(STATIONS), [])
    same(looked_at.get_table_comment(STATIONS)["text"], "entities of type https://example.org/AirQualityObserved")
    same((looked_at.get_enums(), looked_at.get_domains()), ([], []))
    everything = MetaData()
    everything.reflect(engine)
    same(sorted(everything.tables), sorted(looked_at.get_table_names()))


def reflection():
    stations = Table(STATIONS, MetaData(), autoload_with=engine)
    same([c.name for c in stations.primary_key], ["id"])
    assert isinstance(stations.c.location.type, Geometry) and stations.c.location.type.srid == 4326
    with engine.connect() as connection:
        rows = connection.execute(select(stations.c.id, stations.c.pm25).where(stations.c.pm25 > 40).order_by(stations.c.id)).fetchall()
        same([tuple(r) for r in rows], [("urn:ngsi-ld:AirQualityObserved:dingling", 41.0), (GUCHENG, 120.5)])
        listed = connection.execute(select(stations.c.id).where(stations.c.id.in_(["a", GUCHENG]))).scalars().all()
        same(listed, [GUCHENG])
        whole = connection.execute(select(stations).where(stations.c.id == GUCHENG)).one()
        same((whole.observed_at, whole.stationName, whole.calibrated), (datetime.datetime(2014, 1, 2, tzinfo=UTC), "gucheng", None))
        same((to_shape(whole.location).wkt, whole.location.srid), ("POINT (116.2 39.9)", 4326))
        box = WKTElement("POLYGON((116 39, 116.3 39, 116.3 41, 116 41, 116 39))", srid=4326)
        found = connection.execute(select(stations.c.id).where(spatial.ST_Intersects(stations.c.location, box))).scalars().all()
        same(found, [GUCHENG])
        near = from_shape(shapely.Point(116.2, 39.8), srid=4326)
        distance = select(spatial.ST_Distance(stations.c.location, near), spatial.ST_AsText(stations.c.location))
        metres, written = connection.execute(distance.where(stations.c.id == GUCHENG)).one()
        same((round(metres, 9), written), (0.1, "POINT(116.2 39.9)"))


def parameters():
    same(one("select :a + 1", a=41), 42)
    same(float(one("select :a * 2.0", a=1.5)), 3.0)
    same(one("select :a || 'x'", a="天坛"), "天坛x")
    same(one("select :a", a=True), True)
    same(one("select :a", a=None), None)
    when = datetime.datetime(2014, 1, 1, 12, 30, 0, 250000, tzinfo=UTC)
    same(one("select :a", a=when), when)
    same(one("select :a", a=datetime.date(2014, 1, 1)), datetime.date(2014, 1, 1))
    same(decimal.Decimal(str(one("select :a", a=decimal.Decimal("1.5")))), decimal.Decimal("1.5"))
    same(bytes(one("select :a", a=b"\x00a")), b"\x00a")
    since = datetime.datetime(2014, 1, 1, 23, 30, tzinfo=UTC)
    same(one(f'select count(*) from "{STATIONS}" where observed_at >= :since and pm25 > :most', since=since, most=30), 2)
    same(one(f'select count(*) from "{STATIONS}" where id = any(:ids)', ids=[GUCHENG, "urn:nobody"]), 1)
    assert datetime.timedelta(hours=23) < datetime.datetime.now(UTC) - one("select now() - :a", a=datetime.timedelta(days=1)) < datetime.timedelta(hours=25)
    place = shapely.Point(116.2, 39.9).wkb
    same(one(f'select id from "{STATIONS}" where st_intersects(location, st_geomfromwkb(:place, 4326))', place=place), GUCHENG)


def cursors():
    with engine.connect().execution_options(stream_results=True, max_row_buffer=2) as connection:
        same([r[0] for r in connection.execute(text("select * from generate_series(1, 7) as g"))], [1, 2, 3, 4, 5, 6, 7])
    for level in ("AUTOCOMMIT", "REPEATABLE READ"):
        with engine.connect().execution_options(isolation_level=level) as connection:
            same(connection.execute(text("select 1")).scalar(), 1)
    with engine.connect() as connection:
        same(connection.get_isolation_level(), "READ COMMITTED")


def frames():
    frame = pandas.read_sql(f'select id, observed_at, pm25 from "{STATIONS}" order by id', engine)
    same((str(frame.dtypes["observed_at"]), str(frame.dtypes["pm25"])), ("datetime64[us, UTC]", "float64"))
    same(frame["pm25"].tolist(), [41.0, 120.5, 38.0])
    same(pandas.read_sql_table(STATIONS, engine).shape[0], 3)
    same(list(pandas.read_sql("select count(*), avg(pm25), max(pm25) as most from \"AirQualityObserved\"", engine).columns), ["count", "avg", "most"])
    same(pandas.read_sql(text(f'select id from "{STATIONS}" where pm25 > :least'), engine, params={"least": 40}).shape, (2, 1))
    same([len(f) for f in pandas.read_sql(f'select id from "{STATIONS}"', engine, chunksize=2)], [2, 1])
    places = geopandas.read_postgis(f'select id, location from "{STATIONS}" order by id', engine, geom_col="location")
    same(str(places.crs), "EPSG:4326")
    same([p.wkt if p is not None else None for p in places.geometry], [None, "POINT (116.2 39.9)", "POINT (116.4 39.8)"])
    roads = geopandas.read_postgis('select id, st_buffer(location, 0.1) as area from "Road" where location is not null', engine, geom_col="area")
    same((str(roads.crs), roads.geometry[0].contains(shapely.Point(116.1, 39.0))), ("EPSG:4326", True))


for check in (inspection, reflection, parameters, cursors, frames):
    check()
print(f"ok {driver}")
