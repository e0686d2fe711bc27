//! Beijing Multi-Site Air-Quality Data: air and weather per station and hour in one row.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::cells::{Quantity, Range, Table};
use super::{DataSet, Device, Opened, RecordedError, RowError, RowReader, Selection, StationInfo, archive_files, file_name};
use crate::Message;
use crate::message::{Identity, IdentityParts, Payload};

pub(super) const ATTRIBUTION: &str = "Beijing Multi-Site Air-Quality Data by Song Chen (UCI Machine Learning Repository 501), \
     Zhang et al. 2017, Proc. R. Soc. A 473:20170457; CC BY 4.0";

const STATIONS_FILE: &str = "stations.csv";

/// Member of the payload, column of the file. All concentrations are hourly, in µg/m³.
const AIR: [(&str, &str); 6] = [("pm25", "PM2.5"), ("pm10", "PM10"), ("so2", "SO2"), ("no2", "NO2"), ("co", "CO"), ("o3", "O3")];

/// °C, hPa, °C, mm/h, m/s.
const WEATHER: [(&str, &str, Range); 5] = [
    ("temperature", "TEMP", Range::Any),
    ("pressure", "PRES", Range::NotNegative),
    ("dewPoint", "DEWP", Range::Any),
    ("precipitation", "RAIN", Range::NotNegative),
    ("windSpeed", "WSPM", Range::NotNegative),
];

/// A line of `stations.csv`. Coordinates stay text, so that messages carry the file's digits.
#[derive(Debug, Deserialize)]
struct StationRow {
    station: String,
    name_zh: String,
    lon: String,
    lat: String,
}

#[derive(Debug)]
struct Reader {
    station: String,
    station_column: usize,
    air: Device,
    weather: Device,
    air_columns: Vec<Quantity>,
    weather_columns: Vec<Quantity>,
    wind_column: usize,
}

/// Opens the selected stations' files of the folder.
pub(super) fn open(folder: &Path, selection: &mut Selection) -> Result<Vec<(Opened, Vec<StationInfo>)>, RecordedError> {
    let stations = read_stations(&folder.join(STATIONS_FILE))?;
    let mut opened = Vec::new();
    for path in archive_files(folder)? {
        let name = file_name(&path);
        let station = name.strip_prefix("PRSA_Data_").and_then(|rest| rest.split('_').next()).unwrap_or_default();
        let Some(row) = stations.get(station) else {
            let known = stations.keys().cloned().collect::<Vec<_>>().join(", ");
            let expected = format!("`PRSA_Data_<station>_….csv.gz` with a station of `{STATIONS_FILE}` ({known})");
            return Err(RecordedError::FileName { path, expected });
        };
        if selection.takes(station) {
            let table = Table::open(&path)?;
            let reader = Reader::new(&table, row)?;
            opened.push((Opened { table, reader: Box::new(reader) }, vec![info(row)]));
        }
    }
    Ok(opened)
}

impl Reader {
    fn new(table: &Table, row: &StationRow) -> Result<Self, RecordedError> {
        let air_columns =
            AIR.iter().map(|(member, column)| table.quantity(column, member, Range::NotNegative)).collect::<Result<_, _>>()?;
        let weather_columns =
            WEATHER.iter().map(|(member, column, range)| table.quantity(column, member, *range)).collect::<Result<_, _>>()?;
        Ok(Self {
            station: row.station.clone(),
            station_column: table.column("station")?,
            air: Device::new(identity("air-quality", row)),
            weather: Device::new(identity("weather", row)),
            air_columns,
            weather_columns,
            wind_column: table.column("wd")?,
        })
    }
}

impl RowReader for Reader {
    fn messages(&mut self, table: &Table, at: Timestamp, out: &mut VecDeque<Message>) -> Result<(), RowError> {
        let found = table.cell(self.station_column);
        if found != self.station {
            return Err(table.row_error("station", format!("`{}`", self.station), found.to_owned()));
        }
        let mut air = Payload::new(at, &self.air.identity);
        for quantity in &self.air_columns {
            table.put(quantity, &mut air)?;
        }
        let mut weather = Payload::new(at, &self.weather.identity);
        for quantity in &self.weather_columns {
            table.put(quantity, &mut weather)?;
        }
        table.put_wind_direction(self.wind_column, &mut weather)?;
        out.extend(self.air.message(air, at.as_microsecond()));
        out.extend(self.weather.message(weather, at.as_microsecond()));
        Ok(())
    }
}

fn identity(profile: &str, row: &StationRow) -> Identity {
    Identity::new(&IdentityParts {
        profile,
        city: "beijing",
        station: &row.station,
        name_en: &row.station,
        name_zh: &row.name_zh,
        lon: &row.lon,
        lat: &row.lat,
        source: ATTRIBUTION,
    })
}

fn info(row: &StationRow) -> StationInfo {
    let degrees = |text: &str| text.parse().expect("read_stations checks the coordinates");
    StationInfo {
        data_set: DataSet::Beijing12,
        city: "beijing".to_owned(),
        station: row.station.clone(),
        name_en: row.station.clone(),
        name_zh: row.name_zh.clone(),
        lon: degrees(&row.lon),
        lat: degrees(&row.lat),
        profiles: vec!["air-quality", "weather"],
    }
}

fn read_stations(path: &Path) -> Result<BTreeMap<String, StationRow>, RecordedError> {
    let file = file_name(path);
    let bytes = std::fs::File::open(path).map_err(|source| RecordedError::Open { path: path.to_owned(), source })?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let mut stations = BTreeMap::new();
    for (row_idx, row) in reader.deserialize::<StationRow>().enumerate() {
        let line = u64::try_from(row_idx).expect("a row count fits 64 bits") + 2;
        let row = row.map_err(|source| RecordedError::Read { file: file.clone(), line: line - 1, source })?;
        for (column, text, limit) in [("lon", &row.lon, 180.0), ("lat", &row.lat, 90.0)] {
            let degrees = serde_json::from_str::<f64>(text).ok().filter(|degrees| degrees.abs() <= limit);
            if degrees.is_none() {
                let expected = format!("a number from -{limit} to {limit}");
                let found = text.clone();
                return Err(RowError { file, line, column: column.to_owned(), expected, found }.into());
            }
        }
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if row.station.is_empty() || !row.station.chars().all(is_key) {
            let expected = "a name of ASCII letters, digits and `-`".to_owned();
            return Err(RowError { file, line, column: "station".to_owned(), expected, found: row.station }.into());
        }
        stations.insert(row.station.clone(), row);
    }
    Ok(stations)
}
