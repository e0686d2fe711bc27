//! Small archives written by the tests; the real ones are read in `tests/it/recorded.rs`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::*;

const HEADER_12: &str = "No,year,month,day,hour,PM2.5,PM10,SO2,NO2,CO,O3,TEMP,PRES,DEWP,RAIN,wd,WSPM,station\n";
const HEADER_SHANGHAI: &str =
    "No,year,month,day,hour,season,PM_Jingan,PM_US Post,PM_Xuhui,DEWP,HUMI,PRES,TEMP,cbwd,Iws,precipitation,Iprec\n";

/// A folder with the given `beijing12` and `five_cities` files.
struct Archive(tempfile::TempDir);

impl Archive {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for data_set in DataSet::ALL {
            fs::create_dir(folder.path().join(data_set.folder())).unwrap();
        }
        let stations = "station,cnemc_id,name_zh,lon,lat\nGucheng,1012A,古城,116.225,39.9279\nDongsi,1003A,东四,116.434,39.9522\n";
        fs::write(folder.path().join("beijing12/stations.csv"), stations).unwrap();
        Self(folder)
    }

    fn beijing12(self, station: &str, rows: &str) -> Self {
        self.write(&format!("beijing12/PRSA_Data_{station}_2013-2016.csv.gz"), &format!("{HEADER_12}{rows}"))
    }

    fn shanghai(self, rows: &str) -> Self {
        self.write("five_cities/ShanghaiPM2010.csv.gz", &format!("{HEADER_SHANGHAI}{rows}"))
    }

    fn write(self, name: &str, text: &str) -> Self {
        let file = fs::File::create(self.0.path().join(name)).unwrap();
        let mut gz = GzEncoder::new(file, Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        gz.finish().unwrap();
        self
    }

    fn open(&self, data_set: DataSet) -> Recorded {
        self.open_with(&RecordedOptions { data_sets: vec![data_set], ..RecordedOptions::default() })
    }

    fn open_with(&self, options: &RecordedOptions) -> Recorded {
        Recorded::open(self.0.path(), options).unwrap()
    }

    fn error(&self, data_set: DataSet) -> String {
        let options = RecordedOptions { data_sets: vec![data_set], ..RecordedOptions::default() };
        match Recorded::open(self.0.path(), &options) {
            Err(error) => error.to_string(),
            Ok(recorded) => recorded.filter_map(Result::err).last().expect("an error is expected").to_string(),
        }
    }
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

#[test]
fn a_row_of_beijing_becomes_an_air_and_a_weather_message_in_utc_with_its_own_digits() {
    let archive = Archive::new().beijing12("Gucheng", "1,2013,3,1,0,6.0,18,5,NA,800,,-0.10,1021.1,-18.6,0,NW,4.4,Gucheng\n");
    let messages: Vec<_> = archive.open(DataSet::Beijing12).map(Result::unwrap).collect();
    let [air, weather] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(air.topic, "devices/air-quality/beijing-Gucheng");
    assert_eq!(air.at, "2013-02-28T16:00:00Z".parse::<Timestamp>().unwrap().as_microsecond());
    assert!(
        text(air).starts_with(
            "{\"time\":\"2013-02-28T16:00:00Z\",\"city\":\"beijing\",\"station\":\"Gucheng\",\"name_en\":\"Gucheng\",\"name_zh\":\"古城\",\
             \"lon\":116.225,\"lat\":39.9279,\"pm25\":6.0,\"pm10\":18,\"so2\":5,\"co\":800,\"source\":\"Beijing Multi-Site"
        ),
        "missing NO2 and O3 are absent: {}",
        text(air)
    );
    assert_eq!(weather.topic, "devices/weather/beijing-Gucheng");
    assert!(text(weather).contains(
        "\"temperature\":-0.10,\"pressure\":1021.1,\"dewPoint\":-18.6,\"precipitation\":0,\"windSpeed\":4.4,\"windDirection\":315,"
    ));
    assert!(text(weather).contains("CC BY 4.0"));
}

#[test]
fn a_row_of_five_cities_becomes_a_message_per_measuring_post_and_one_of_weather() {
    let archive =
        Archive::new().shanghai("1,2014,7,1,0,2,53,NA,58,-9,38.08,1031,4,cv,8,0,0\n2,2014,7,1,1,2,NA,7,NA,-9999,NA,1031,4,SE,10,1.5,1.5\n");
    let messages: Vec<_> = archive.open(DataSet::FiveCities).map(Result::unwrap).collect();
    let topics: Vec<_> = messages.iter().map(|message| (message.topic.as_str(), message.key)).collect();
    assert_eq!(
        topics,
        [
            ("devices/air-quality/shanghai-Jingan", 0),
            ("devices/air-quality/shanghai-Xuhui", 0),
            ("devices/weather/shanghai-Weather", 0),
            ("devices/air-quality/shanghai-US-Post", 0),
            ("devices/weather/shanghai-Weather", 1),
        ]
    );
    let calm = json(&messages[2]);
    assert_eq!(calm["relativeHumidity"].to_string(), "0.3808");
    for absent in ["windDirection", "windSpeed", "Iws"] {
        assert_eq!(calm.get(absent), None, "{absent}: calm wind has no direction, and no wind speed is recorded");
    }
    let second = json(&messages[4]);
    assert_eq!(second["windDirection"], 135);
    assert_eq!(second.get("dewPoint"), None, "-9999 is missing");
    assert_eq!(second.get("relativeHumidity"), None);
    let post = json(&messages[3]);
    assert!(post["source"].as_str().unwrap().ends_with("approximate position from the post's name"), "{post}");
    assert_eq!(post["name_en"], "US Post");
}

#[test]
fn files_are_merged_in_the_order_of_time() {
    let rows = |station: &str, hours: &[u32]| -> String {
        hours.iter().map(|hour| format!("1,2014,1,1,{hour},5,5,5,5,5,5,1,1000,1,0,N,1,{station}\n")).collect()
    };
    let archive = Archive::new()
        .beijing12("Gucheng", &rows("Gucheng", &[0, 2, 3]))
        .beijing12("Dongsi", &rows("Dongsi", &[1, 2, 5]))
        .shanghai("1,2014,1,1,2,4,9,9,9,1,50,1000,1,NW,1,0,0\n");
    let options = RecordedOptions::default();
    let messages: Vec<_> = archive.open_with(&options).map(Result::unwrap).collect();
    assert_eq!(messages.len(), 3 * 2 + 3 * 2 + 4);
    assert!(messages.is_sorted_by_key(|message| message.at));
    let again: Vec<_> = archive.open_with(&options).map(Result::unwrap).collect();
    assert_eq!(messages, again);

    let from = Some("2013-12-31T18:00:00Z".parse().unwrap()); // 2 h local
    let to = Some("2013-12-31T19:00:00Z".parse().unwrap());
    let hour: Vec<_> = archive.open_with(&RecordedOptions { from, to, ..options }).map(Result::unwrap).collect();
    assert_eq!(hour.len(), 2 + 2 + 4, "[from, to) is half open");

    let of = |cities: &[&str], stations: &[&str]| {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let options = RecordedOptions { cities: strings(cities), stations: strings(stations), ..RecordedOptions::default() };
        archive.open_with(&options).map(|m| m.unwrap().topic).collect::<Vec<_>>()
    };
    assert_eq!(of(&["shanghai"], &[]).len(), 4);
    assert_eq!(of(&["Beijing"], &[]).len(), 12);
    assert_eq!(of(&[], &["dongsi", "Xuhui"]).len(), 7);
    assert_eq!(of(&["shanghai"], &["weather"]), ["devices/weather/shanghai-Weather"]);
}

#[test]
fn a_bad_row_is_named_by_file_line_column_expectation_and_finding() {
    let file = "`PRSA_Data_Gucheng_2013-2016.csv.gz`";
    let good = "1,2014,1,1,0,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng\n";
    check(
        "1,2014,1,1,1,five,5,5,5,5,5,1,1000,1,0,N,1,Gucheng",
        "line 3, column `PM2.5`: expected a number not below 0 or `NA`, found `five`",
    );
    check("1,2014,1,1,1,-5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng", "column `PM2.5`: expected a number not below 0 or `NA`, found `-5`");
    check("1,2014,1,1,1,5,5,5,5,5,5,+1,1000,1,0,N,1,Gucheng", "column `TEMP`: expected a number or `NA`, found `+1`");
    check(
        "1,2014,1,1,1,5,5,5,5,5,5,1,1000,1,0,NXW,1,Gucheng",
        "column `wd`: expected a compass point (N, NNE, … NNW), `cv` or `NA`, found `NXW`",
    );
    check("1,2014,2,30,1,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng", "column `day`: expected a date of the calendar, found `2014-2-30`");
    check("1,2014,1,1,24,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng", "column `hour`: expected an hour from 0 to 23, found `24`");
    check(
        "1,2014,1,1,0,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng",
        "column `hour`: expected a time after 2013-12-31T16:00:00Z, found `2013-12-31T16:00:00Z`",
    );
    check("1,2014,1,1,1,5,5,5,5,5,5,1,1000,1,0,N,1,Dongsi", "column `station`: expected `Gucheng`, found `Dongsi`");
    check("1,2014,1,1,1,5", "line 3, column `row`: expected 18 cells, found `6 cells`");

    #[track_caller]
    fn check_with(file: &str, good: &str, row: &str, want: &str) {
        let rows = format!("{good}{row}\n1,2014,1,1,2,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng\n");
        let archive = Archive::new().beijing12("Gucheng", &rows);
        let error = archive.error(DataSet::Beijing12);
        assert!(error.starts_with(file) && error.contains(want), "{error}");
        let options = RecordedOptions { data_sets: vec![DataSet::Beijing12], bad_rows: BadRows::Skip, ..RecordedOptions::default() };
        let mut recorded = archive.open_with(&options);
        let rest: Vec<_> = recorded.by_ref().map(Result::unwrap).collect();
        assert_eq!(rest.len(), 4, "the rows around are played");
        assert_eq!((recorded.n_skipped(), recorded.skipped().len()), (1, 1));
        assert_eq!(recorded.skipped()[0].to_string(), error);
    }
    #[track_caller]
    fn check(row: &str, want: &str) {
        check_with("`PRSA_Data_Gucheng_2013-2016.csv.gz`", "1,2014,1,1,0,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng\n", row, want);
    }
    // The default is to stop: after the error the source is at its end.
    let archive = Archive::new().beijing12("Gucheng", &format!("{good}x,y\n{good}"));
    let items: Vec<_> = archive.open(DataSet::Beijing12).collect();
    assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false], "{file}");
}

#[test]
fn damaged_bytes_stop_even_when_bad_rows_are_skipped() {
    let archive = Archive::new().beijing12("Gucheng", "1,2014,1,1,0,5,5,5,5,5,5,1,1000,1,0,N,1,Gucheng\n");
    let path = archive.0.path().join("beijing12/PRSA_Data_Gucheng_2013-2016.csv.gz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 6]).unwrap();
    let options = RecordedOptions { data_sets: vec![DataSet::Beijing12], bad_rows: BadRows::Skip, ..RecordedOptions::default() };
    let error = archive.open_with(&options).find_map(Result::err).unwrap();
    assert!(matches!(error, RecordedError::Read { .. }), "{error}");
    assert!(error.to_string().starts_with("cannot read `PRSA_Data_Gucheng_2013-2016.csv.gz` after line"), "{error}");
}

#[test]
fn what_is_asked_for_and_not_there_is_named() {
    let archive = Archive::new().beijing12("Gucheng", "").shanghai("");
    let open = |options: &RecordedOptions| Recorded::open(archive.0.path(), options).unwrap_err().to_string();
    let list = |name: &str| vec![name.to_owned()];
    let error = open(&RecordedOptions { cities: list("paris"), ..RecordedOptions::default() });
    assert_eq!(error, "no recorded city `paris`, expected one of beijing, shanghai, guangzhou, chengdu");
    let error = open(&RecordedOptions { stations: list("Dingling"), ..RecordedOptions::default() });
    assert_eq!(error, "no recorded station `Dingling` in the selected cities, expected one of Gucheng, Jingan, US-Post, Weather, Xuhui");

    let empty = tempfile::tempdir().unwrap();
    let error = Recorded::open(empty.path(), &RecordedOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("has no folder `beijing12` or `five_cities`"), "{error}");
    let error = Archive::new().error(DataSet::FiveCities);
    assert!(error.ends_with("has no file that ends in `.csv.gz`"), "{error}");

    let error = Archive::new().write("five_cities/ShanghaiPM.csv.gz", "year,month,day,hour\n").error(DataSet::FiveCities);
    assert!(error.contains("line 1, column `row`: expected a header with the column `PM_Jingan`, found `year,month,day,hour`"), "{error}");
    let header = HEADER_SHANGHAI.replace("PM_Xuhui", "PM_Xuhui2");
    let error = Archive::new().write("five_cities/ShanghaiPM.csv.gz", &header).error(DataSet::FiveCities);
    assert!(error.contains("expected one of the posts `PM_Jingan`, `PM_US Post`, `PM_Xuhui`, found `PM_Xuhui2`"), "{error}");
    let error = Archive::new().write("beijing12/PRSA_Data_Atlantis_x.csv.gz", HEADER_12).error(DataSet::Beijing12);
    assert!(error.contains("unexpected name") && error.contains("Dongsi, Gucheng"), "{error}");
}
