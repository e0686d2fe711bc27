//! PM2.5 Data of Five Chinese Cities: the PM2.5 of several posts and one weather station per city in one row.
//!
//! The archive gives no positions.
//! Posts that bear the name of a national station stand where that station stands; the others stand where a map shows
//! the name (±1 km), and the weather station, whose place is not stated either, at the centre of the city.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use jiff::Timestamp;

use super::cells::{Quantity, Range, Table};
use super::{DataSet, Device, Opened, RecordedError, RowError, RowReader, Selection, StationInfo, archive_files, file_name};
use crate::Message;
use crate::message::{Identity, IdentityParts, Payload};

pub(super) const ATTRIBUTION: &str = "PM2.5 Data of Five Chinese Cities by Song Chen (UCI Machine Learning Repository 394), \
     Liang et al. 2016, JGR Atmos. 121; CC BY 4.0";

/// °C, hPa, °C, %, mm/h.
const WEATHER: [(&str, &str, Range); 5] = [
    ("temperature", "TEMP", Range::Any),
    ("pressure", "PRES", Range::NotNegative),
    ("dewPoint", "DEWP", Range::Any),
    ("relativeHumidity", "HUMI", Range::Percent),
    ("precipitation", "precipitation", Range::NotNegative),
];

const WEATHER_STATION: &str = "Weather";

struct CityFile {
    prefix: &'static str,
    city: &'static str,
    /// Chinese name of the weather station.
    weather_zh: &'static str,
    lon: &'static str,
    lat: &'static str,
    posts: &'static [Post],
}

/// A PM2.5 post.
struct Post {
    column: &'static str,
    station: &'static str,
    name_en: &'static str,
    name_zh: &'static str,
    lon: &'static str,
    lat: &'static str,
    place: Place,
}

/// How a position is known.
#[derive(Clone, Copy)]
enum Place {
    /// That of the national station of the same name (±500 m).
    NationalStation,
    /// ±1 km.
    FromName,
    /// The city's centre stands for it.
    Centre,
}

impl Place {
    fn note(self) -> &'static str {
        match self {
            Self::NationalStation => "position of the national station of that name",
            Self::FromName => "approximate position from the post's name",
            Self::Centre => "position not stated, city centre given",
        }
    }
}

const fn post(column: &'static str, station: &'static str, names: [&'static str; 2], lon_lat: [&'static str; 2], place: Place) -> Post {
    Post { column, station, name_en: names[0], name_zh: names[1], lon: lon_lat[0], lat: lon_lat[1], place }
}

const FILES: [CityFile; 4] = [
    CityFile {
        prefix: "BeijingPM",
        city: "beijing",
        weather_zh: "北京气象站",
        lon: "116.397",
        lat: "39.908",
        posts: &[
            post("PM_Dongsi", "Dongsi-FC", ["Dongsi", "东四"], ["116.434", "39.9522"], Place::NationalStation),
            post("PM_Dongsihuan", "Dongsihuan", ["Dongsihuan", "东四环"], ["116.484", "39.939"], Place::FromName),
            post("PM_Nongzhanguan", "Nongzhanguan-FC", ["Nongzhanguan", "农展馆"], ["116.473", "39.9716"], Place::NationalStation),
            post("PM_US Post", "US-Post", ["US Post", "美国大使馆"], ["116.468", "39.955"], Place::FromName),
        ],
    },
    CityFile {
        prefix: "ShanghaiPM",
        city: "shanghai",
        weather_zh: "上海气象站",
        lon: "121.473",
        lat: "31.230",
        posts: &[
            post("PM_Jingan", "Jingan", ["Jing'an", "静安"], ["121.425", "31.2261"], Place::NationalStation),
            post("PM_US Post", "US-Post", ["US Post", "美国总领事馆"], ["121.447", "31.210"], Place::FromName),
            post("PM_Xuhui", "Xuhui", ["Xuhui", "徐汇"], ["121.412", "31.1654"], Place::NationalStation),
        ],
    },
    CityFile {
        prefix: "GuangzhouPM",
        city: "guangzhou",
        weather_zh: "广州气象站",
        lon: "113.264",
        lat: "23.129",
        posts: &[
            post("PM_City Station", "City-Station", ["City Station", "市监测站"], ["113.26", "23.1331"], Place::NationalStation),
            post(
                "PM_5th Middle School",
                "5th-Middle-School",
                ["5th Middle School", "市五中"],
                ["113.261", "23.105"],
                Place::NationalStation,
            ),
            post("PM_US Post", "US-Post", ["US Post", "美国总领事馆"], ["113.321", "23.121"], Place::FromName),
        ],
    },
    CityFile {
        prefix: "ChengduPM",
        city: "chengdu",
        weather_zh: "成都气象站",
        lon: "104.066",
        lat: "30.657",
        posts: &[
            post("PM_Caotangsi", "Caotangsi", ["Caotangsi", "草堂寺"], ["104.026", "30.6544"], Place::NationalStation),
            post("PM_Shahepu", "Shahepu", ["Shahepu", "沙河铺"], ["104.118", "30.6361"], Place::NationalStation),
            post("PM_US Post", "US-Post", ["US Post", "美国总领事馆"], ["104.068", "30.629"], Place::FromName),
        ],
    },
];

#[derive(Debug)]
struct Reader {
    posts: Vec<(Device, Quantity)>,
    weather: Option<Device>,
    weather_columns: Vec<Quantity>,
    wind_column: usize,
}

/// Opens the files of the selected cities, with the selected stations.
pub(super) fn open(
    folder: &Path,
    cities: &BTreeSet<&'static str>,
    selection: &mut Selection,
) -> Result<Vec<(Opened, Vec<StationInfo>)>, RecordedError> {
    let mut opened = Vec::new();
    for path in archive_files(folder)? {
        let name = file_name(&path);
        let Some(city_file) = FILES.iter().find(|file| name.starts_with(file.prefix)) else {
            let expected = FILES.map(|file| format!("`{}….csv.gz`", file.prefix)).join(", ");
            return Err(RecordedError::FileName { path, expected });
        };
        if cities.contains(city_file.city) {
            let table = Table::open(&path)?;
            let (reader, infos) = open_city(&table, city_file, selection)?;
            opened.push((Opened { table, reader: Box::new(reader) }, infos));
        }
    }
    Ok(opened)
}

fn open_city(table: &Table, city_file: &CityFile, selection: &mut Selection) -> Result<(Reader, Vec<StationInfo>), RecordedError> {
    let unknown = table
        .header()
        .iter()
        .find(|column| column.starts_with("PM_") && !city_file.posts.iter().any(|post| post.column == column.as_str()));
    if let Some(unknown) = unknown {
        let known = city_file.posts.iter().map(|post| post.column).collect::<Vec<_>>().join("`, `");
        return Err(table.row_error(unknown, format!("one of the posts `{known}`"), unknown.clone()).into());
    }
    let mut infos = Vec::new();
    let mut posts = Vec::new();
    for post in city_file.posts.iter().filter(|post| selection.takes(post.station)) {
        let quantity = table.quantity(post.column, "pm25", Range::NotNegative)?;
        posts.push((Device::new(identity("air-quality", city_file.city, post)), quantity));
        infos.push(info(city_file.city, post, "air-quality"));
    }
    let weather = weather_post(city_file);
    let weather = selection.takes(WEATHER_STATION).then(|| {
        infos.push(info(city_file.city, &weather, "weather"));
        Device::new(identity("weather", city_file.city, &weather))
    });
    let weather_columns = WEATHER.iter().map(|(member, column, range)| table.quantity(column, member, *range)).collect::<Result<_, _>>()?;
    Ok((Reader { posts, weather, weather_columns, wind_column: table.column("cbwd")? }, infos))
}

fn weather_post(city_file: &CityFile) -> Post {
    Post {
        column: "TEMP",
        station: WEATHER_STATION,
        name_en: "Weather station",
        name_zh: city_file.weather_zh,
        lon: city_file.lon,
        lat: city_file.lat,
        place: Place::Centre,
    }
}

impl RowReader for Reader {
    fn messages(&mut self, table: &Table, at: Timestamp, out: &mut VecDeque<Message>) -> Result<(), RowError> {
        // All cells are read before the first message counts: a row is taken as a whole or not at all.
        let mut payloads = Vec::with_capacity(self.posts.len());
        for (device, quantity) in &self.posts {
            let mut payload = Payload::new(at, &device.identity);
            table.put(quantity, &mut payload)?;
            payloads.push(payload);
        }
        let mut weather = None;
        if let Some(device) = &self.weather {
            let mut payload = Payload::new(at, &device.identity);
            for quantity in &self.weather_columns {
                table.put(quantity, &mut payload)?;
            }
            table.put_wind_direction(self.wind_column, &mut payload)?;
            weather = Some(payload);
        }
        let devices = self.posts.iter_mut().map(|(device, _)| device).chain(&mut self.weather);
        for (device, payload) in devices.zip(payloads.into_iter().chain(weather)) {
            out.extend(device.message(payload, at.as_microsecond()));
        }
        Ok(())
    }
}

fn identity(profile: &str, city: &str, post: &Post) -> Identity {
    Identity::new(&IdentityParts {
        profile,
        city,
        station: post.station,
        name_en: post.name_en,
        name_zh: post.name_zh,
        lon: post.lon,
        lat: post.lat,
        source: &format!("{ATTRIBUTION}; {}", post.place.note()),
    })
}

fn info(city: &str, post: &Post, profile: &'static str) -> StationInfo {
    let degrees = |text: &str| text.parse().expect("our own table holds numbers");
    StationInfo {
        data_set: DataSet::FiveCities,
        city: city.to_owned(),
        station: post.station.to_owned(),
        name_en: post.name_en.to_owned(),
        name_zh: post.name_zh.to_owned(),
        lon: degrees(post.lon),
        lat: degrees(post.lat),
        profiles: vec![profile],
    }
}
