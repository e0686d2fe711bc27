//! Geometry and time series in SQL, in process.

use query::{Engine, Limits};
use serde_json::json;

use crate::city::city;
use crate::slt::rows;

/// Asks each question and compares the rows.
async fn check(cases: &[(&str, &[&str])]) {
    let engine = Engine::new(city(), &Limits::default()).unwrap();
    for (sql, want) in cases {
        let answer = engine.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(rows(&answer), *want, "{sql}");
    }
}

/// Asks each question and compares state and message of the error.
async fn refused(cases: &[(&str, &str, &str)]) {
    let engine = Engine::new(city(), &Limits::default()).unwrap();
    for (sql, state, part) in cases {
        let error = engine.sql(sql).await.expect_err(sql);
        assert!(error.sqlstate() == *state && error.to_string().contains(part), "{sql}: {} {error}", error.sqlstate());
    }
}

#[tokio::test]
async fn places_are_geometries() {
    check(&[
        (r#"select st_astext(location), st_srid(location), st_x(location) = lon and st_y(location) = lat from "AirQualityObserved" where location is not null order by lon"#,
         &["POINT(116.2 39.9) | 4326 | true", "POINT(116.4 39.8) | 4326 | true"]),
        (r#"select st_astext(location), st_geometrytype(location), geometrytype(location), st_npoints(location) from "Road" where location is not null"#,
         &["LINESTRING(116 39,116.2 39) | ST_LineString | LINESTRING | 2"]),
        (r#"select st_asgeojson(location), st_asewkt(location) from "AirQualityObserved" where "stationName" = 'gucheng'"#,
         &[r#"{"type":"Point","coordinates":[116.2,39.9]} | SRID=4326;POINT(116.2 39.9)"#]),
        // Grouping, sorting and comparing treat a geometry like any other value.
        (r#"select count(*), count(distinct location) from "AirQualityObserved""#, &["3 | 2"]),
        (r#"select count(*) from "AirQualityObserved" a join "AirQualityObserved" b on a.location = b.location"#, &["2"]),
    ])
    .await;
}

#[tokio::test]
async fn places_are_compared() {
    let area = "st_makeenvelope(116.1, 39.85, 116.3, 39.95, 4326)";
    let stations = |condition: &str| format!(r#"select "stationName" from "AirQualityObserved" where {condition} order by 1"#);
    let cases: Vec<(String, &[&str])> = vec![
        (stations(&format!("st_within(location, {area})")), &["gucheng"]),
        (stations(&format!("st_contains({area}, location)")), &["gucheng"]),
        (stations(&format!("not st_intersects(location, {area})")), &["tiantan"]),
        (stations("st_within(location, 'POLYGON((116.3 39.7,116.5 39.7,116.5 39.9,116.3 39.9,116.3 39.7))')"), &["tiantan"]),
        // In degrees, in metres, and as text of another form.
        (stations("st_dwithin(location, st_setsrid(st_makepoint(116.2, 39.95), 4326), 0.06)"), &["gucheng"]),
        (stations("st_dwithin(location::geography, st_makepoint(116.2, 39.95)::geography, 6000)"), &["gucheng"]),
        (stations("st_dwithin(location::geography, st_makepoint(116.2, 39.95)::geography, 5000)"), &[]),
        (stations("st_dwithin(location::geography, 'SRID=4326;POINT(116.3 39.85)'::geography, 20000)"), &["gucheng", "tiantan"]),
        (r#"select count(*) from "AirQualityObserved" a, "Road" b where st_dwithin(a.location::geography, b.location::geography, 100200)"#.into(), &["2"]),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(sql, want)| (sql.as_str(), *want)).collect();
    check(&cases).await;
}

#[tokio::test]
async fn places_are_measured() {
    check(&[
        ("select st_distance('POINT(0 0)', 'LINESTRING(3 4,10 4,10 10)')", &["5.0"]),
        // A degree of latitude at the equator on the ellipsoid, and on the sphere.
        ("select round(st_distance('POINT(0 0)'::geography, 'POINT(0 1)'::geography)), round(st_distancesphere('POINT(0 0)', 'POINT(0 1)'))", &["110574.0 | 111195.0"]),
        ("select st_length('LINESTRING(0 0,3 4)'), round(st_length('LINESTRING(0 0,0 1)'::geography))", &["5.0 | 110574.0"]),
        ("select st_area('POLYGON((0 0,2 0,2 2,0 2,0 0),(0.5 0.5,1 0.5,1 1,0.5 1,0.5 0.5))'), st_perimeter('POLYGON((0 0,2 0,2 2,0 2,0 0))')", &["3.75 | 8.0"]),
        ("select round(st_area('POLYGON((0 0,1 0,1 1,0 1,0 0))'::geography) / 1e6)", &["12309.0"]),
        ("select st_astext(st_centroid('POLYGON((0 0,2 0,2 2,0 2,0 0))')), st_astext(st_envelope('LINESTRING(0 0,1 2)'))",
         &["POINT(1 1) | POLYGON((1 0,1 2,0 2,0 0,1 0))"]),
        ("select round(st_area(st_buffer('POINT(0 0)', 1)) * 10), st_srid(st_buffer(st_point(1, 2, 3857), 1))", &["31.0 | 3857"]),
        ("select round(st_x(st_transform(st_point(116.4, 39.9, 4326), 3857))), st_srid(st_transform(st_point(1, 1, 4326), 3857))", &["12957589.0 | 3857"]),
    ])
    .await;
}

#[tokio::test]
async fn geometries_are_read_and_written() {
    check(&[
        ("select st_astext(st_geomfromtext('point (1 2)')), st_srid(st_geomfromtext('POINT(1 2)', 4326))", &["POINT(1 2) | 4326"]),
        (
            "select st_astext('0101000020E61000000000000000205D400000000000A04340'::geometry), st_srid('SRID=4490;POINT(1 2)'::geometry)",
            &["POINT(116.5 39.25) | 4490"],
        ),
        ("select st_astext(st_geomfromwkb(st_asbinary('MULTIPOINT((1 2),(3 4))')))", &["MULTIPOINT((1 2),(3 4))"]),
        ("select st_ashexewkb(st_point(116.5, 39.25, 4326))", &["0101000020E61000000000000000205D400000000000A04340"]),
        (r#"select st_astext(st_geomfromgeojson('{"type":"LineString","coordinates":[[1,2],[3,4]]}'))"#, &["LINESTRING(1 2,3 4)"]),
        (
            "select st_astext(null), st_distance('POINT(0 0)', null), st_within(location, null) from \"Road\" limit 1",
            &["NULL | NULL | NULL"],
        ),
        // From the crate geodatafusion.
        ("select st_astext(st_simplify(st_geomfromtext('LINESTRING(0 0,1 0.01,2 0)'), 0.1))", &["LINESTRING(0 0,2 0)"]),
    ])
    .await;
    refused(&[
        ("select st_geomfromtext('PINT(1 2)')", "22000", ""),
        ("select st_distance(st_point(1, 2, 4326), st_point(1, 2, 3857))", "22000", "different reference systems, 4326 and 3857"),
        ("select st_x('LINESTRING(0 0,1 1)')", "22000", "for points; this is LineString"),
        ("select st_transform(st_point(1, 2, 4326), 2154)", "22000", "expected 4326, 4490 or 3857"),
        ("select st_within(1, 2)", "42000", "expected a geometry"),
        ("select st_geomfromgeojson('{}')", "22000", "ST_GeomFromGeoJSON"),
    ])
    .await;
}

#[tokio::test]
async fn the_history_of_a_place_is_a_geometry() {
    let city = city();
    for (lon, at) in [(116.0, "2014-01-01T00:00:00Z"), (116.5, "2014-01-01T01:00:00Z")] {
        let place = json!({"type": "Point", "coordinates": [lon, 39.9]});
        let value = entity::Attribute::new(entity::AttributeValue::Geo(entity::Geometry::from_json(place).unwrap()));
        city.history.put_attribute("Bus", "urn:bus:1", entity::LOCATION, value, at, at);
    }
    let engine = Engine::new(city, &Limits::default()).unwrap();
    let sql = r#"select observed_at, st_x(location), st_srid(location) from "Bus_history" order by 1"#;
    assert_eq!(rows(&engine.sql(sql).await.unwrap()), ["2014-01-01T00:00:00Z | 116.0 | 4326", "2014-01-01T01:00:00Z | 116.5 | 4326"]);
}

const HISTORY: &str = r#"from "AirQualityObserved_history""#;

#[tokio::test]
async fn times_are_put_into_buckets() {
    let by = |bucket: &str| {
        format!(
            "select {bucket} as b, count(pm25), last(pm25, observed_at), first(pm25, observed_at) {HISTORY} where id like '%tiantan' group by b order by b"
        )
    };
    let hours = by("time_bucket('2 hours', observed_at)");
    let shifted = by("time_bucket('2 hours', observed_at, '1 hour')");
    let since = by("time_bucket('3 hours', observed_at, timestamp '2014-01-01T01:00:00')");
    let month = by("time_bucket('1 month', observed_at)");
    check(&[
        (&hours, &["2014-01-01T00:00:00Z | 2 | 31.0 | 30.0", "2014-01-01T02:00:00Z | 2 | 33.0 | 32.0"]),
        (
            &shifted,
            &["2013-12-31T23:00:00Z | 1 | 30.0 | 30.0", "2014-01-01T01:00:00Z | 2 | 32.0 | 31.0", "2014-01-01T03:00:00Z | 1 | 33.0 | 33.0"],
        ),
        (&since, &["2013-12-31T22:00:00Z | 1 | 30.0 | 30.0", "2014-01-01T01:00:00Z | 3 | 33.0 | 31.0"]),
        (&month, &["2014-01-01T00:00:00Z | 4 | 33.0 | 30.0"]),
        (
            "select time_bucket('1 week', date '2014-01-01'), time_bucket(interval '1 day', timestamp '2014-01-01T10:00:00')",
            &["2013-12-30T00:00:00 | 2014-01-01T00:00:00"],
        ),
        ("select time_bucket('5 minutes', null) is null", &["true"]),
        // Rows without time do not count, and a filter is kept.
        (
            "select last(v, t), first(v, t), last(v, t) filter (where v < 3) from (values (1, 10), (2, 20), (3, 30), (4, null)) as x(v, t)",
            &["3 | 1 | 2"],
        ),
    ])
    .await;
    refused(&[
        ("select time_bucket('1 month 1 day', now())", "22000", "not both"),
        ("select time_bucket('0 s', now())", "22000", "at least a microsecond"),
        ("select time_bucket(1, 2)", "42000", "expected an interval"),
        ("select last(1)", "42000", "last"),
    ])
    .await;
}

#[tokio::test]
async fn gaps_are_filled() {
    let filled = format!(
        "select time_bucket_gapfill('30 minutes', observed_at) as b, id like '%gucheng' as g, avg(pm25), locf(avg(pm25)), interpolate(avg(pm25)) as i, count(*) {HISTORY}
         where observed_at >= '2013-12-31T23:30:00Z' and observed_at < '2014-01-01T02:00:00Z' group by b, g order by g desc, b"
    );
    let by_arguments = format!(
        "select time_bucket_gapfill('1 hour', observed_at, '2014-01-01T02:00:00Z', '2014-01-01T05:00:00Z') as b, locf(last(pm25, observed_at)) {HISTORY}
         where id like '%tiantan' and observed_at >= '2014-01-01T02:00:00Z' group by 1 order by 1"
    );
    let having = format!(
        "select b, v + 1 from (select time_bucket_gapfill('1 hour', observed_at) as b, sum(pm25) as v {HISTORY}
         where id like '%tiantan' and observed_at between '2014-01-01T00:00:00Z' and '2014-01-01T02:00:00Z' group by b having sum(pm25) <> 31) x order by b"
    );
    check(&[
        (
            &filled,
            &[
                "2013-12-31T23:30:00Z | true | NULL | NULL | NULL | NULL",
                "2014-01-01T00:00:00Z | true | 100.0 | 100.0 | 100.0 | 1",
                "2014-01-01T00:30:00Z | true | NULL | 100.0 | 100.5 | NULL",
                "2014-01-01T01:00:00Z | true | 101.0 | 101.0 | 101.0 | 1",
                "2014-01-01T01:30:00Z | true | NULL | 101.0 | NULL | NULL",
                "2013-12-31T23:30:00Z | false | NULL | NULL | NULL | NULL",
                "2014-01-01T00:00:00Z | false | 30.0 | 30.0 | 30.0 | 1",
                "2014-01-01T00:30:00Z | false | NULL | 30.0 | 30.5 | NULL",
                "2014-01-01T01:00:00Z | false | 31.0 | 31.0 | 31.0 | 1",
                "2014-01-01T01:30:00Z | false | NULL | 31.0 | NULL | NULL",
            ],
        ),
        (&by_arguments, &["2014-01-01T02:00:00Z | 32.0", "2014-01-01T03:00:00Z | 33.0", "2014-01-01T04:00:00Z | 33.0"]),
        (&having, &["2014-01-01T00:00:00Z | 31.0", "2014-01-01T01:00:00Z | NULL", "2014-01-01T02:00:00Z | 33.0"]),
    ])
    .await;
    let gapfill = |rest: &str| format!("select time_bucket_gapfill('1 hour', observed_at) as b, count(*) {HISTORY} {rest} group by b");
    let (no_start, no_finish) = (gapfill(""), gapfill("where observed_at > '2014-01-01'"));
    let too_many = format!(
        "select time_bucket_gapfill('1 s', observed_at) as b, count(*) {HISTORY} where observed_at >= '2014-01-01' and observed_at < '2015-01-01' group by b"
    );
    refused(&[
        (&no_start, "42000", "where to start is not known"),
        (&no_finish, "42000", "where to finish is not known"),
        (&too_many, "42000", "more than 100000 buckets"),
        ("select time_bucket_gapfill('1 hour', now())", "22000", "belongs into GROUP BY"),
        ("select locf(1)", "22000", "groups by time_bucket_gapfill"),
    ])
    .await;
}

#[tokio::test]
async fn only_places_that_can_match_are_looked_at() {
    let city = city();
    let engine = Engine::new(city.clone(), &Limits::default()).unwrap();
    for (condition, want) in [
        ("st_within(location, st_makeenvelope(116.1, 39.85, 116.3, 39.95, 4326))", Some([116.1, 39.85, 116.3, 39.95])),
        ("st_dwithin(st_setsrid(st_makepoint(116.2, 39.95), 4326), location, 0.5)", Some([115.7, 39.45, 116.7, 40.45])),
        (
            "st_intersects(location, st_makeenvelope(0, 0, 180, 90, 4326)) and st_contains(st_makeenvelope(116, 39, 117, 40, 4326), location)",
            Some([116.0, 39.0, 117.0, 40.0]),
        ),
        ("not st_within(location, st_makeenvelope(116.1, 39.85, 116.3, 39.95, 4326))", None),
        ("st_distance(location, st_makeenvelope(116.1, 39.85, 116.3, 39.95, 4326)) < 1", None),
    ] {
        city.boxes.lock().unwrap().clear();
        engine.sql(&format!(r#"select id from "AirQualityObserved" where {condition}"#)).await.unwrap();
        let asked = city.boxes.lock().unwrap().pop();
        let close = |a: [f64; 4], b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(asked.map(|a| want.is_some_and(|w| close(a, w))).unwrap_or(want.is_none()), "{condition}: {asked:?}");
    }
    // On the Earth the box is large enough for the distance in metres.
    let sql = r#"select "stationName" from "AirQualityObserved" where st_dwithin(location::geography, st_makepoint(116.2, 39.95)::geography, 6000)"#;
    assert_eq!(rows(&engine.sql(sql).await.unwrap()), ["gucheng"]);
    let [west, south, east, north] = city.boxes.lock().unwrap().pop().unwrap();
    assert!(
        west < 116.13 && west > 116.1 && south < 39.896 && south > 39.85 && east > 116.27 && north > 40.0,
        "{west} {south} {east} {north}"
    );
}
