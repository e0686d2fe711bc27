//! The real archives, against figures that were counted independently of this code.

use std::collections::BTreeMap;

use feed::recorded::{DataSet, Recorded, RecordedOptions};
use feed::{Message, Timestamp};
use serde_json::Value;

use crate::shared;

fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

#[test]
fn a_month_of_beijing_is_complete_and_in_order() {
    let Some(air) = shared("data/air") else { return };
    let options = RecordedOptions {
        data_sets: vec![DataSet::Beijing12],
        from: Some("2013-12-31T16:00:00Z".parse().unwrap()),
        to: Some("2014-01-31T16:00:00Z".parse().unwrap()),
        ..RecordedOptions::default()
    };
    let messages: Vec<_> = Recorded::open(&air, &options).unwrap().map(Result::unwrap).collect();
    assert!(messages.is_sorted_by_key(|message| message.at));
    let mut n_by_device: BTreeMap<&str, u64> = BTreeMap::new();
    for message in &messages {
        let n = n_by_device.entry(&message.topic).or_default();
        assert_eq!(message.key, *n);
        *n += 1;
    }
    let stations = Recorded::stations(&air, &options).unwrap();
    assert_eq!(stations.len(), 9);
    assert_eq!(n_by_device.len(), 18);
    for (topic, n) in &n_by_device {
        // 744 hours; an hour without any measured value sends nothing.
        assert!((700..=744).contains(n), "{topic}: {n}");
    }
    // No,2014,1,1,0 of Gucheng as it stands in the file.
    let first = messages.iter().find(|m| m.topic == "devices/air-quality/beijing-Gucheng").unwrap();
    assert_eq!(json(first)["time"], "2013-12-31T16:00:00Z");
}

#[test]
fn the_first_hours_are_those_of_the_files() {
    let Some(air) = shared("data/air") else { return };
    let options = RecordedOptions { stations: vec!["Gucheng".to_owned()], ..RecordedOptions::default() };
    let messages: Vec<_> = Recorded::open(&air, &options).unwrap().take(2).map(Result::unwrap).collect();
    // 1,2013,3,1,0,6,18,5,NA,800,88,0.1,1021.1,-18.6,0,"NW",4.4,"Gucheng"
    let air_quality = json(&messages[0]);
    assert_eq!(air_quality["time"], "2013-02-28T16:00:00Z");
    assert_eq!((&air_quality["pm25"], &air_quality["co"]), (&Value::from(6), &Value::from(800)));
    assert_eq!(air_quality.get("no2"), None);
    let weather = json(&messages[1]);
    assert_eq!(weather["windDirection"], 315);
    assert_eq!(weather["temperature"], 0.1);
}

/// Missing values were counted with another program: of 26,304 hours Gucheng lacks 491 PM2.5, 1,276 CO and 119 wind directions.
#[test]
fn every_measured_value_of_a_station_is_passed_on() {
    let Some(air) = shared("data/air") else { return };
    let options = RecordedOptions { stations: vec!["gucheng".to_owned()], ..RecordedOptions::default() };
    let mut n_values: BTreeMap<&str, u64> = BTreeMap::new();
    for message in Recorded::open(&air, &options).unwrap() {
        let json = json(&message.unwrap());
        for name in ["pm25", "co", "temperature", "windDirection"] {
            *n_values.entry(name).or_default() += u64::from(json.get(name).is_some());
        }
    }
    let n_rows = 26_304;
    assert_eq!(n_values["pm25"], n_rows - 491);
    assert_eq!(n_values["co"], n_rows - 1_276);
    assert_eq!(n_values["temperature"], n_rows - 34);
    assert_eq!(n_values["windDirection"], n_rows - 119);
}

#[test]
fn five_cities_are_read_to_the_end_without_a_bad_row() {
    let Some(air) = shared("data/air") else { return };
    let options = RecordedOptions { data_sets: vec![DataSet::FiveCities], ..RecordedOptions::default() };
    let mut n_by_device: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = i64::MIN;
    for message in Recorded::open(&air, &options).unwrap() {
        let message = message.unwrap();
        assert!(message.at >= last);
        last = message.at;
        *n_by_device.entry(message.topic).or_default() += 1;
    }
    // Hours less missing values, counted with another program.
    let hours = 43_824;
    assert_eq!(n_by_device["devices/air-quality/shanghai-Jingan"], hours - 27_655);
    assert_eq!(n_by_device["devices/air-quality/beijing-US-Post"], hours - 2_068);
    assert_eq!(n_by_device["devices/air-quality/guangzhou-5th-Middle-School"], hours - 31_297);
    assert_eq!(n_by_device["devices/weather/beijing-Weather"], hours);
    assert_eq!(n_by_device.len(), 4 + 3 + 3 + 3 + 4);
    let end: Timestamp = "2014-12-31T15:00:00Z".parse().unwrap();
    assert_eq!(last, end.as_microsecond());
}
