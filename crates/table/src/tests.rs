//! Files as people have them, in and out.

use std::io::Cursor;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use proptest::prelude::*;

use super::*;

fn names(name: &str) -> Result<String, String> {
    if name.contains(' ') { Err(format!("`{name}` is not a name")) } else { Ok(format!("https://example.org/{name}")) }
}

fn read(text: &str, layout: Layout, skip_rows: u64) -> Result<Vec<Rows>, ReadError> {
    Reader::open(Source::csv(Cursor::new(text.to_owned())), layout, &names, skip_rows)?.collect()
}

const TWO_STATIONS: &str = "id,observedAt,pm25,open,note\n\
    urn:a:1,2024-01-01T00:00:00Z,3.5,true,fine\n\
    urn:a:2,2024-01-01T00:00:00Z,,false,\n\
    urn:a:1,2024-01-01 01:00:00+01:00,-4e1,,\"a, \"\"b\"\"\"\n";

#[test]
fn csv_becomes_typed_columns() {
    let layout = Layout { units: [("pm25".to_owned(), "GQ".to_owned())].into(), ..Layout::default() };
    let rows = read(TWO_STATIONS, layout, 0).unwrap();
    assert_eq!(rows.len(), 1);
    let batch = &rows[0].batch;
    let types: Vec<_> = batch.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    assert_eq!(types[0], (ENTITY_ID.to_owned(), DataType::Utf8));
    assert_eq!(
        types[2..],
        [
            ("https://example.org/pm25".to_owned(), DataType::Float64),
            ("https://example.org/open".to_owned(), DataType::Boolean),
            ("https://example.org/note".to_owned(), DataType::Utf8),
        ]
    );
    assert_eq!(batch.schema().field(2).metadata()[UNIT_CODE], "GQ");
    assert_eq!(batch.column(2).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(3.5), None, Some(-40.0)]);
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.value(2)), (1_704_067_200_000_000, 1_704_067_200_000_000));
    assert_eq!(batch.column(4).as_string::<i32>().value(2), "a, \"b\"");
}

#[test]
fn columns_are_renamed_left_out_and_given_a_prefix() {
    let text = "no,when,PM2.5,junk\n7,2024-01-01 08:00,0012,x\n";
    let layout = Layout {
        id: "no".to_owned(),
        time: "when".to_owned(),
        id_prefix: "urn:ngsi-ld:Station:".to_owned(),
        rename: [("PM2.5".to_owned(), "pm25".to_owned()), ("junk".to_owned(), String::new())].into(),
        utc_offset: Some(UtcOffset(8 * 3_600)),
        ..Layout::default()
    };
    let batch = read(text, layout, 0).unwrap().remove(0).batch;
    assert_eq!(batch.num_columns(), 3);
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "urn:ngsi-ld:Station:7");
    assert_eq!(batch.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 1_704_067_200_000_000);
    // A leading zero means a code.
    assert_eq!(batch.column(2).as_string::<i32>().value(0), "0012");
}

#[test]
fn what_is_wrong_is_said_with_row_and_column() {
    check("id,pm25\nurn:a:1,3\n", "column `observedAt`: expected as the column of the observed times, found the columns `id`, `pm25`");
    check("id,observedAt\n", "there is no column of an attribute, only ids and times");
    check("id,observedAt,a,a\n", "column `a`: there are two columns for the attribute `a`");
    check("id,observedAt,a b\nurn:a:1,2024-01-01T00:00:00Z,1\n", "column `a b`: `a b` is not a name");
    check(
        "id,observedAt,a\nurn:a:1,2024-01-01T00:00:00Z,1\n5,2024-01-01T00:00:00Z,1\n",
        "row 2, column `id`: found `5`, expected an absolute URI",
    );
    check("id,observedAt,a\nurn:a:1,yesterday,1\n", "row 1, column `observedAt`: found `yesterday`, expected a time");
    check("id,observedAt,a\nurn:a:1,2024-01-01T00:00:00,1\n", "row 1, column `observedAt`: found `2024-01-01T00:00:00`, expected a time");
    check("id,observedAt,a\nurn:a:1,,1\n", "row 1, column `observedAt`: there is no value");
    check("id,observedAt,a\nurn:a:1,2024-01-01T00:00:00Z\n", "row 1 has 2 fields; the header has 3");
    check("id,observedAt,datasetId,a\nurn:a:1,2024-01-01T00:00:00Z,urn:d,1\n", "column `datasetId`: row 1 names an instance");
    check("", "column `id`: expected as the column of the ids");
    let mut late = String::from("id,observedAt,a\n");
    late.push_str(&"urn:a:1,2024-01-01T00:00:00Z,1\n".repeat(BATCH_ROWS_MAX));
    late.push_str("urn:a:1,2024-01-01T00:00:00Z,x\n");
    check(&late, "row 10001, column `a`: found `x`, expected a number as in the rows before");
    check(&format!("id,observedAt,a\nurn:a:1,\"{}", "x".repeat(6 << 20)), "cannot read on");

    #[track_caller]
    fn check(text: &str, want: &str) {
        let error = read(text, Layout::default(), 0).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}\nwanted: {want}");
    }
}

/// `n` rows of two stations with every kind of column.
fn many(n: usize) -> String {
    let mut text = String::from("id,observedAt,pm25,note,late\n");
    for i in 0..n {
        let late = if i >= BATCH_ROWS_MAX { "7" } else { "" };
        text.push_str(&format!("urn:a:{},2024-01-{:02}T{:02}:00:00Z,{}.5,n{i},{late}\n", i % 2, 1 + i / 24 % 28, i % 24, i % 100));
    }
    text
}

type Cells = (u64, String, i64, Option<f64>, String, Option<f64>);

fn flat(rows: &[Rows]) -> Vec<Cells> {
    let mut all = Vec::new();
    for r in rows {
        assert!(r.batch.num_rows() <= BATCH_ROWS_MAX);
        let schema = r.batch.schema();
        let column = |name: &str| schema.column_with_name(name).map(|(i, _)| r.batch.column(i));
        let late = column("https://example.org/late").map(|c| c.as_primitive::<Float64Type>());
        let pm25 = column("https://example.org/pm25").unwrap().as_primitive::<Float64Type>();
        for i in 0..r.batch.num_rows() {
            all.push((
                r.first_row + i as u64,
                r.batch.column(0).as_string::<i32>().value(i).to_owned(),
                r.batch.column(1).as_primitive::<TimestampMicrosecondType>().value(i),
                pm25.is_valid(i).then(|| pm25.value(i)),
                column("https://example.org/note").unwrap().as_string::<i32>().value(i).to_owned(),
                late.filter(|l| l.is_valid(i)).map(|l| l.value(i)),
            ));
        }
    }
    all
}

#[test]
fn going_on_at_a_row_gives_the_rest() {
    let text = many(25_000);
    let all = flat(&read(&text, Layout::default(), 0).unwrap());
    assert_eq!(all.len(), 25_000);
    assert_eq!(all[15_000].5, Some(7.0), "a column that has no value at first");
    for skip in [1, 9_999, 10_000, 10_001, 24_999, 25_000, 30_000] {
        let rest = flat(&read(&text, Layout::default(), skip).unwrap());
        assert_eq!(rest, all[(skip as usize).min(all.len())..], "after {skip}");
    }
}

/// Writes what was read, with the names of a file, and reads it again.
fn through(format: Format, rows: &[Rows], skip_rows: u64) -> Vec<Rows> {
    let schema = rows.last().unwrap().batch.schema();
    let fields = schema.fields().iter().map(|f| {
        let name = match f.name().as_str() {
            ENTITY_ID => "id",
            OBSERVED_AT => "observedAt",
            iri => iri.rsplit('/').next().unwrap(),
        };
        f.as_ref().clone().with_name(name)
    });
    let file_schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    let mut writer = Writer::new(format, file_schema).unwrap();
    let mut bytes = Vec::new();
    for r in rows {
        let columns = schema.fields().iter().map(|f| {
            r.batch.column_by_name(f.name()).cloned().unwrap_or_else(|| arrow::array::new_null_array(f.data_type(), r.batch.num_rows()))
        });
        writer.write(&RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()).unwrap();
        bytes.extend(writer.take().unwrap());
    }
    bytes.extend(writer.finish().unwrap());
    let source = match format {
        Format::Csv => Source::csv(Cursor::new(bytes)),
        Format::Parquet => Source::parquet(file_of(&bytes)).unwrap(),
        Format::Arrow => Source::arrow(bytes).unwrap(),
    };
    Reader::open(source, Layout::default(), &names, skip_rows).unwrap().collect::<Result<_, _>>().unwrap()
}

fn file_of(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}

#[test]
fn what_is_written_is_read_back_in_every_format() {
    let rows = read(&many(25_000), Layout::default(), 0).unwrap();
    let want = flat(&rows);
    for format in [Format::Csv, Format::Parquet, Format::Arrow] {
        assert_eq!(flat(&through(format, &rows, 0)), want, "{format:?}");
        assert_eq!(flat(&through(format, &rows, 12_345)), want[12_345..], "{format:?}");
    }
}

#[test]
fn a_cut_or_boasting_arrow_stream_is_refused() {
    let rows = read(&many(100), Layout::default(), 0).unwrap();
    let mut writer = Writer::new(Format::Arrow, rows[0].batch.schema()).unwrap();
    writer.write(&rows[0].batch).unwrap();
    let bytes = writer.finish().unwrap();
    assert!(Source::arrow(bytes.clone()).is_ok());
    for n in [1, 7, 100, bytes.len() / 2] {
        assert!(Source::arrow(bytes[..n].to_vec()).is_err(), "cut after {n} bytes");
    }
    assert!(Source::arrow(vec![0xff; 64]).is_err());
    assert!(Source::parquet(file_of(&[0; 64])).is_err());
}

proptest! {
    #[test]
    fn rubbish_is_refused_not_a_panic(text in "(id,observedAt,a\n)?([a-z0-9:,\"\n.TZ-]|\\PC){0,200}") {
        let _ = read(&text, Layout::default(), 0);
    }
}
