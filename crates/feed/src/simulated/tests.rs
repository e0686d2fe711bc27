//! Properties of whole simulated cities.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::outline::OUTLINES;

const HOUR_US: i64 = 3_600 * SECOND_US;

/// A Monday, 00:00 local time.
fn monday() -> Timestamp {
    "2024-03-10T16:00:00Z".parse().unwrap()
}

fn hours_after(start: Timestamp, hours: i64) -> Timestamp {
    Timestamp::from_microsecond(start.as_microsecond() + hours * HOUR_US).unwrap()
}

fn reliable(hours: i64) -> SimulationOptions {
    SimulationOptions {
        end: Some(hours_after(monday(), hours)),
        silences_per_device_day: 0.0,
        late_share: 0.0,
        ..SimulationOptions::default()
    }
}

fn simulate(city: &str, seed: u64, options: &SimulationOptions) -> Vec<Message> {
    Simulation::new(city, seed, monday(), options).unwrap().collect()
}

fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

fn number(json: &Value, name: &str) -> f64 {
    json[name].as_f64().unwrap_or_else(|| panic!("{name} in {json}"))
}

fn of_profile<'a>(messages: &'a [Message], profile: &str) -> impl Iterator<Item = (&'a Message, Value)> {
    let prefix = format!("devices/{profile}/");
    messages.iter().filter(move |message| message.topic.starts_with(&prefix)).map(|message| (message, json(message)))
}

#[test]
fn every_city_sends_each_device_at_its_interval_inside_its_outline() {
    for (city, _) in OUTLINES {
        let messages = simulate(city, 1, &reliable(1));
        let n_expected = (12 + 4) * 12 + (40 + 15 + 20) * 60;
        assert_eq!(messages.len(), n_expected, "{city}");
        assert!(messages.is_sorted_by_key(|message| message.at), "{city}: in the order of time");
        let outline = outline(city).unwrap();
        for message in &messages {
            let json = json(message);
            assert!(outline.contains(number(&json, "lon"), number(&json, "lat")), "{city}: {json}");
            assert_eq!(json["simulated"], true);
            assert_eq!(json["source"], "simulated by conurb, seed 1");
            assert_eq!(json["city"], city);
            let at: Timestamp = json["time"].as_str().unwrap().parse().unwrap();
            assert_eq!(at.as_microsecond(), message.at);
            let device = format!("{city}-{}", json["station"].as_str().unwrap());
            assert_eq!(message.topic.rsplit('/').next(), Some(device.as_str()));
        }
    }
}

#[test]
fn devices_stand_denser_towards_the_centre() {
    let fleet = Fleet { n_devices: 400, interval_s: 3_600 };
    let options = SimulationOptions { traffic: fleet, ..reliable(1) };
    let outline = outline("shanghai").unwrap();
    let messages = simulate("shanghai", 3, &options);
    let near = of_profile(&messages, "traffic")
        .filter(|(_, json)| {
            let (x, y) = (number(json, "lon") - outline.lon, number(json, "lat") - outline.lat);
            (x * 0.855).hypot(y) < 0.15
        })
        .count();
    // That circle covers about a seventh of the outline; evenly spread it would hold about 60.
    assert!((120..380).contains(&near), "{near} of 400 within 0.15° of the centre");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_seed_tells_the_whole_story(seed in any::<u64>(), city_idx in 0..8usize) {
        let city = OUTLINES[city_idx].0;
        let options = SimulationOptions { end: reliable(2).end, silences_per_device_day: 20.0, late_share: 0.05, ..SimulationOptions::default() };
        prop_assert_eq!(simulate(city, seed, &options), simulate(city, seed, &options));
        prop_assert_ne!(simulate(city, seed, &options), simulate(city, seed.wrapping_add(1), &options));
    }

    #[test]
    fn readings_keep_their_physical_bounds(seed in any::<u64>(), city_idx in 0..8usize) {
        let messages = simulate(OUTLINES[city_idx].0, seed, &reliable(30));
        for (_, json) in of_profile(&messages, "air-quality") {
            prop_assert!(number(&json, "pm25") <= number(&json, "pm10"), "{}", json);
            for name in ["pm25", "pm10", "so2", "no2", "co", "o3"] {
                prop_assert!((1.0..2_000.0).contains(&(number(&json, name) / if name == "co" { 5.0 } else { 1.0 })), "{}", json);
            }
        }
        for (_, json) in of_profile(&messages, "weather") {
            prop_assert!((-30.0..45.0).contains(&number(&json, "temperature")), "{}", json);
            prop_assert!(number(&json, "dewPoint") <= number(&json, "temperature"), "{}", json);
            prop_assert!((0.0..=1.0).contains(&number(&json, "relativeHumidity")), "{}", json);
            prop_assert!((900.0..1060.0).contains(&number(&json, "pressure")), "{}", json);
            prop_assert!((0.0..100.0).contains(&number(&json, "precipitation")), "{}", json);
            prop_assert!((0.0..30.0).contains(&number(&json, "windSpeed")), "{}", json);
            if let Some(direction) = json["windDirection"].as_f64() {
                prop_assert!((0.0..360.0).contains(&direction), "{}", json);
            }
        }
        for (_, json) in of_profile(&messages, "traffic") {
            prop_assert!((0.0..=5_000.0).contains(&number(&json, "intensity")), "{}", json);
            prop_assert!((0.0..=1.0).contains(&number(&json, "occupancy")), "{}", json);
            if let Some(speed) = json["averageVehicleSpeed"].as_f64() {
                prop_assert!((3.9..130.0).contains(&speed), "{}", json);
            }
        }
        for (_, json) in of_profile(&messages, "parking") {
            let [free, taken, total] = ["availableSpotNumber", "occupiedSpotNumber", "totalSpotNumber"].map(|name| json[name].as_u64().unwrap());
            prop_assert_eq!(free + taken, total);
        }
        let mut registers: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
        for (message, json) in of_profile(&messages, "meter") {
            let now = ["energyImportKwh", "energyPeakKwh", "energyOffPeakKwh"].map(|name| number(&json, name));
            prop_assert!((now[0] - now[1] - now[2]).abs() < 1e-6, "{}", json);
            let before = registers.insert(&message.topic, now).unwrap_or([0.0; 3]);
            prop_assert!((0..3).all(|register| now[register] >= before[register]), "{}", json);
        }
    }

    #[test]
    fn late_readings_come_after_later_ones_and_none_is_lost(seed in any::<u64>()) {
        let on_time = simulate("suzhou", seed, &reliable(3));
        let options = SimulationOptions { late_share: 0.1, late_max_s: 900, ..reliable(3) };
        let with_late = simulate("suzhou", seed, &options);
        let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
        let mut n_late = 0;
        for message in &with_late {
            let newest = newest.entry(&message.topic).or_insert(i64::MIN);
            n_late += usize::from(message.at < *newest);
            *newest = message.at.max(*newest);
        }
        let share = n_late as f64 / with_late.len() as f64;
        prop_assert!((0.05..0.15).contains(&share), "late share {}", share);
        let mut sorted = with_late.clone();
        let mut on_time_sorted = on_time;
        sorted.sort_by(|a, b| (a.at, &a.topic).cmp(&(b.at, &b.topic)));
        on_time_sorted.sort_by(|a, b| (a.at, &a.topic).cmp(&(b.at, &b.topic)));
        prop_assert!(sorted == on_time_sorted, "lateness changed a reading");
    }

    #[test]
    fn silence_removes_readings_and_changes_none(seed in any::<u64>()) {
        let whole = simulate("nanjing", seed, &reliable(12));
        let options = SimulationOptions { silences_per_device_day: 10.0, ..reliable(12) };
        let with_gaps = simulate("nanjing", seed, &options);
        let payloads: HashSet<&[u8]> = whole.iter().map(|message| message.payload.as_slice()).collect();
        prop_assert!(with_gaps.iter().all(|message| payloads.contains(message.payload.as_slice())));
        // Ten silences of 47 minutes a day leave about 70 per cent.
        let kept = with_gaps.len() as f64 / whole.len() as f64;
        prop_assert!((0.5..0.95).contains(&kept), "kept {}", kept);
        let mut keys: BTreeMap<&str, u64> = BTreeMap::new();
        for message in &with_gaps {
            let next = keys.entry(&message.topic).or_default();
            prop_assert_eq!(message.key, *next);
            *next += 1;
        }
    }
}

#[test]
fn traffic_has_two_rush_hours_on_working_days_and_slows_under_load() {
    let messages = simulate("hangzhou", 11, &reliable(7 * 24));
    let mut by_hour = [[(0.0, 0.0, 0u32); 24]; 7];
    for (message, json) in of_profile(&messages, "traffic") {
        let hours = (message.at - monday().as_microsecond()) / HOUR_US;
        let slot = &mut by_hour[usize::try_from(hours / 24).unwrap()][usize::try_from(hours % 24).unwrap()];
        slot.0 += number(&json, "intensity");
        slot.1 += json["averageVehicleSpeed"].as_f64().unwrap_or(50.0);
        slot.2 += 1;
    }
    let flow = |day: usize, hour: usize| by_hour[day][hour].0 / f64::from(by_hour[day][hour].2);
    let speed = |day: usize, hour: usize| by_hour[day][hour].1 / f64::from(by_hour[day][hour].2);
    for (day, hours) in by_hour.iter().enumerate().take(5) {
        assert!(flow(day, 8) > 1.25 * flow(day, 12), "day {day}: {hours:?}");
        assert!(flow(day, 17) > 1.25 * flow(day, 12), "day {day}");
        assert!(flow(day, 3) < 0.3 * flow(day, 12), "day {day}");
    }
    // Over five days, because a rainy night is slow too.
    let mean_speed = |hour| (0..5).map(|day| speed(day, hour)).sum::<f64>() / 5.0;
    assert!(mean_speed(8) < 0.9 * mean_speed(3), "{} {}", mean_speed(8), mean_speed(3));
    for day in 5..7 {
        assert!(flow(day, 8) < 0.8 * flow(0, 8), "weekend day {day} has no morning rush");
        assert!(flow(day, 16) > flow(day, 8), "weekend day {day} is busiest in the afternoon");
    }
}

#[test]
fn seasons_follow_the_latitude() {
    let mean = |city: &str, start: &str| {
        let start: Timestamp = start.parse().unwrap();
        let fleet = |n_devices| Fleet { n_devices, interval_s: 3_600 };
        let options = SimulationOptions {
            air: fleet(0),
            weather: fleet(4),
            traffic: fleet(0),
            parking: fleet(0),
            meters: fleet(0),
            end: Some(hours_after(start, 24 * 30)),
            ..SimulationOptions::default()
        };
        let values: Vec<f64> =
            Simulation::new(city, 5, start, &options).unwrap().map(|message| number(&json(&message), "temperature")).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    // Monthly means of the climate normals 1991–2020, rounded: Beijing −3 and 27, Shenzhen 16 and 29 °C.
    for (city, january, july) in [("beijing", -2.7, 27.0), ("shanghai", 5.0, 28.7), ("shenzhen", 15.7, 29.0)] {
        let (cold, warm) = (mean(city, "2024-01-01T16:00:00Z"), mean(city, "2024-07-01T16:00:00Z"));
        assert!((cold - january).abs() < 4.5, "{city} in January: {cold}");
        assert!((warm - july).abs() < 4.5, "{city} in July: {warm}");
    }
}

#[test]
fn pollutants_of_a_station_move_together_and_ozone_against_them() {
    let messages = simulate("beijing", 21, &reliable(14 * 24));
    let columns: Vec<[f64; 4]> = of_profile(&messages, "air-quality")
        .filter(|(message, _)| message.topic.ends_with("sim-air-01"))
        .map(|(_, json)| ["pm25", "pm10", "no2", "o3"].map(|name| number(&json, name)))
        .collect();
    let correlation = |a: usize, b: usize| {
        let n = columns.len() as f64;
        let mean = |c: usize| columns.iter().map(|row| row[c]).sum::<f64>() / n;
        let (mean_a, mean_b) = (mean(a), mean(b));
        let product = |x: usize, mx: f64, y: usize, my: f64| columns.iter().map(|row| (row[x] - mx) * (row[y] - my)).sum::<f64>();
        product(a, mean_a, b, mean_b) / (product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b)).sqrt()
    };
    assert!(correlation(0, 1) > 0.7, "PM2.5 and PM10: {}", correlation(0, 1));
    assert!(correlation(0, 2) > 0.3, "PM2.5 and NO2: {}", correlation(0, 2));
    assert!(correlation(2, 3) < -0.2, "NO2 and O3: {}", correlation(2, 3));
}

#[test]
fn options_out_of_range_are_named_with_their_range() {
    let base = SimulationOptions::default();
    check(SimulationOptions { late_share: 1.5, ..base }, "option `late_share`: expected a share from 0 to 1, found 1.5");
    check(SimulationOptions { late_share: f64::NAN, ..base }, "found NaN");
    check(
        SimulationOptions { air: Fleet { n_devices: 1, interval_s: 0 }, ..base },
        "option `air.interval_s`: expected 1 to 86400 seconds, found 0",
    );
    check(
        SimulationOptions { meters: Fleet { n_devices: 100_001, interval_s: 60 }, ..base },
        "option `meters.n_devices`: expected at most 100000, found 100001",
    );
    check(SimulationOptions { end: Some(monday()), ..base }, "option `end`: expected a time after the start");
    assert!(Simulation::new("atlantis", 1, monday(), &SimulationOptions::default()).is_err());

    #[track_caller]
    fn check(options: SimulationOptions, want: &str) {
        let error = Simulation::new("suzhou", 1, monday(), &options).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn a_year_is_yielded_without_being_held() {
    let mut simulation = Simulation::new("chengdu", 1, monday(), &SimulationOptions::default()).unwrap();
    let n_devices = simulation.n_devices();
    let last = simulation.by_ref().take(200_000).last().unwrap();
    assert!(last.at - monday().as_microsecond() > 40 * HOUR_US);
    // Pending: one reading per device and the late messages of at most half an hour.
    assert!(simulation.events.len() < n_devices + 200, "{} events", simulation.events.len());
}
