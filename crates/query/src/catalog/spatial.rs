//! What PostGIS adds to the catalogs.

use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::columns::Columns;
use super::directory::{OWNER_OID, PUBLIC_OID};
use super::system::SPATIAL_TYPES;

/// The types `geometry` and `geography` and their arrays, as rows of `pg_type`.
pub(super) fn types() -> Result<RecordBatch> {
    // Each number is followed by that of its array.
    let rows: Vec<(i32, String, bool)> =
        SPATIAL_TYPES.iter().flat_map(|(oid, name)| [(*oid, (*name).to_owned(), false), (oid + 1, format!("_{name}"), true)]).collect();
    let procedure = |row: &(i32, String, bool), what: &str| match row.2 {
        true => format!("array_{what}"),
        false => format!("{}_{what}", row.1),
    };
    Columns::new(rows.len())
        .oid("oid", rows.iter().map(|r| r.0))
        .text("typname", rows.iter().map(|r| &r.1))
        .all_oid("typnamespace", PUBLIC_OID)
        .all_oid("typowner", OWNER_OID)
        .all_small("typlen", -1)
        .all_flag("typbyval", false)
        .all_text("typtype", "b")
        .text("typcategory", rows.iter().map(|r| if r.2 { "A" } else { "U" }))
        .all_flag("typispreferred", false)
        .all_flag("typisdefined", true)
        .text("typdelim", rows.iter().map(|_| ":"))
        .all_oid("typrelid", 0)
        .text("typsubscript", rows.iter().map(|r| if r.2 { "array_subscript_handler" } else { "-" }))
        .oid("typelem", rows.iter().map(|r| if r.2 { r.0 - 1 } else { 0 }))
        .oid("typarray", rows.iter().map(|r| if r.2 { 0 } else { r.0 + 1 }))
        .text("typinput", rows.iter().map(|r| procedure(r, "in")))
        .text("typoutput", rows.iter().map(|r| procedure(r, "out")))
        .text("typreceive", rows.iter().map(|r| procedure(r, "recv")))
        .text("typsend", rows.iter().map(|r| procedure(r, "send")))
        .text("typmodin", rows.iter().map(|r| procedure(r, "typmod_in")))
        .text("typmodout", rows.iter().map(|r| procedure(r, "typmod_out")))
        .all_text("typanalyze", "-")
        .all_text("typalign", "d")
        .all_text("typstorage", "m")
        .all_flag("typnotnull", false)
        .all_oid("typbasetype", 0)
        .all_int("typtypmod", -1)
        .all_int("typndims", 0)
        .all_oid("typcollation", 0)
        .finish()
}

/// The reference systems between which `ST_Transform` can work.
/// Source: EPSG registry.
const REFERENCE_SYSTEMS: [(i32, &str, &str); 3] = [
    (
        3857,
        r#"PROJCS["WGS 84 / Pseudo-Mercator",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]],PROJECTION["Mercator_1SP"],PARAMETER["central_meridian",0],PARAMETER["scale_factor",1],PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH],AUTHORITY["EPSG","3857"]]"#,
        "+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0=0 +x_0=0 +y_0=0 +k=1 +units=m +nadgrids=@null +wktext +no_defs",
    ),
    (
        4326,
        r#"GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]]"#,
        "+proj=longlat +datum=WGS84 +no_defs",
    ),
    (
        4490,
        r#"GEOGCS["China Geodetic Coordinate System 2000",DATUM["China_2000",SPHEROID["CGCS2000",6378137,298.257222101,AUTHORITY["EPSG","1024"]],AUTHORITY["EPSG","1043"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4490"]]"#,
        "+proj=longlat +ellps=GRS80 +no_defs",
    ),
];

pub(super) fn reference_systems() -> Result<RecordBatch> {
    Columns::new(REFERENCE_SYSTEMS.len())
        .int("srid", REFERENCE_SYSTEMS.iter().map(|r| r.0))
        .all_text("auth_name", "EPSG")
        .int("auth_srid", REFERENCE_SYSTEMS.iter().map(|r| r.0))
        .text("srtext", REFERENCE_SYSTEMS.iter().map(|r| r.1))
        .text("proj4text", REFERENCE_SYSTEMS.iter().map(|r| r.2))
        .finish()
}
