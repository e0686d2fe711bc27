//! Data set T: a month of a city's air stations, made by a fixed rule.
//!
//! 600 stations x 5 properties x 2,880 quarter hours (30 days) = 8.64 M values with one decimal. Each series is a daily wave with a slow
//! random walk and a little noise on it, as real stations report them; the same numbers in every run and for every system.

use std::fmt::Write;
use std::ops::Range;

/// Stations.
pub(super) const N_STATIONS: usize = 600;
/// Quarter hours.
pub(super) const N_STEPS: usize = 2_880;
/// Values of the whole set.
pub(super) const N_VALUES: usize = N_STATIONS * PROPERTIES.len() * N_STEPS;
/// Seconds from 1970 to the first quarter hour: 2024-01-01T00:00:00Z.
pub(super) const START_S: i64 = 1_704_067_200;
/// Seconds of a quarter hour.
pub(super) const STEP_S: i64 = 900;
/// Type of the entities.
pub(super) const ENTITY_TYPE: &str = "AirQualityObserved";
/// Columns of the grid on which the stations stand, 0.02 degrees apart.
const GRID_COLUMNS: usize = 30;

/// One property.
pub(super) struct Property {
    pub(super) name: &'static str,
    /// Mean, in tenths.
    base: f64,
}

/// The properties, all in µg/m³.
pub(super) const PROPERTIES: [Property; 5] = [
    Property { name: "pm25", base: 350.0 },
    Property { name: "pm10", base: 700.0 },
    Property { name: "no2", base: 300.0 },
    Property { name: "so2", base: 80.0 },
    Property { name: "o3", base: 600.0 },
];

/// The data set.
pub(super) struct City {
    /// Tenths, by quarter hour, station, property.
    tenths: Vec<u16>,
}

/// A well mixed number from a counter (SplitMix64), in -1..1.
fn noise(counter: u64) -> f64 {
    let mut z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

impl City {
    pub(super) fn make() -> Self {
        let n = PROPERTIES.len();
        let mut tenths = vec![0; N_VALUES];
        for station in 0..N_STATIONS {
            for (p, property) in PROPERTIES.iter().enumerate() {
                let series = (station * n + p) as u64;
                let phase = noise(series) * 0.6;
                let mut walk = 0.0;
                for step in 0..N_STEPS {
                    walk = 0.99 * walk + 0.04 * noise(series << 20 | step as u64);
                    let wave = 0.3 * (std::f64::consts::TAU * step as f64 / 96.0 + phase).sin();
                    let value = property.base * (1.0 + wave + walk + 0.01 * noise(series << 20 | step as u64 | 1 << 50));
                    tenths[(step * N_STATIONS + station) * n + p] = value.clamp(0.0, 60_000.0).round() as u16;
                }
            }
        }
        Self { tenths }
    }

    /// The value in tenths.
    pub(super) fn tenths(&self, step: usize, station: usize, property: usize) -> u16 {
        self.tenths[(step * N_STATIONS + station) * PROPERTIES.len() + property]
    }

    /// The value as it is written.
    fn push(&self, text: &mut String, step: usize, station: usize, property: usize) {
        let tenths = self.tenths(step, station, property);
        // Writing to a string does not fail.
        let _ = write!(text, "{}.{}", tenths / 10, tenths % 10);
    }

    /// Influx line protocol, one line per station and quarter hour, seconds.
    pub(super) fn influx_lines(&self, steps: Range<usize>) -> String {
        let mut text = String::with_capacity(steps.len() * N_STATIONS * 80);
        for step in steps {
            for station in 0..N_STATIONS {
                let _ = write!(text, "air,station={} ", station_name(station));
                for (p, property) in PROPERTIES.iter().enumerate() {
                    text.push_str(if p > 0 { "," } else { "" });
                    let _ = write!(text, "{}=", property.name);
                    self.push(&mut text, step, station, p);
                }
                let _ = writeln!(text, " {}", time_s(step));
            }
        }
        text
    }

    /// VictoriaMetrics' JSON lines, one line per series.
    pub(super) fn victoriametrics_lines(&self, steps: Range<usize>) -> String {
        let mut text = String::with_capacity(steps.len() * N_STATIONS * 100);
        let times: Vec<String> = steps.clone().map(|s| format!("{}000", time_s(s))).collect();
        let times = times.join(",");
        for station in 0..N_STATIONS {
            for (p, property) in PROPERTIES.iter().enumerate() {
                let _ = write!(text, r#"{{"metric":{{"__name__":"{}","station":"{}"}},"values":["#, property.name, station_name(station));
                for step in steps.clone() {
                    text.push_str(if step > steps.start { "," } else { "" });
                    self.push(&mut text, step, station, p);
                }
                let _ = writeln!(text, r#"],"timestamps":[{times}]}}"#);
            }
        }
        text
    }

    /// PostgreSQL's COPY text: series, time, value.
    pub(super) fn copy_lines(&self, steps: Range<usize>) -> String {
        let mut text = String::with_capacity(steps.len() * N_STATIONS * 160);
        for step in steps {
            let time = time_text(step);
            for station in 0..N_STATIONS {
                for p in 0..PROPERTIES.len() {
                    let _ = write!(text, "{}\t{time}\t", series_number(station, p));
                    self.push(&mut text, step, station, p);
                    text.push('\n');
                }
            }
        }
        text
    }

    /// CSV as the bulk import takes it, with a header.
    pub(super) fn csv(&self, steps: Range<usize>) -> String {
        let mut text = String::with_capacity(steps.len() * N_STATIONS * 100);
        text.push_str("id,observedAt");
        for property in &PROPERTIES {
            let _ = write!(text, ",{}", property.name);
        }
        text.push('\n');
        for step in steps {
            let time = time_text(step);
            for station in 0..N_STATIONS {
                let _ = write!(text, "{},{time}", entity_id(station));
                for p in 0..PROPERTIES.len() {
                    text.push(',');
                    self.push(&mut text, step, station, p);
                }
                text.push('\n');
            }
        }
        text
    }

    /// A batch of NGSI-LD entities: all stations at one quarter hour.
    pub(super) fn entities(&self, step: usize) -> String {
        let mut text = String::with_capacity(N_STATIONS * 600);
        let time = time_text(step);
        for station in 0..N_STATIONS {
            text.push_str(if station == 0 { "[" } else { "," });
            let _ = write!(text, r#"{{"id":"{}","type":"{ENTITY_TYPE}""#, entity_id(station));
            for (p, property) in PROPERTIES.iter().enumerate() {
                let _ = write!(text, r#","{}":{{"type":"Property","value":"#, property.name);
                self.push(&mut text, step, station, p);
                let _ = write!(text, r#","unitCode":"GQ","observedAt":"{time}"}}"#);
            }
            text.push('}');
        }
        text.push(']');
        text
    }

    /// What a station sends over MQTT, for the built-in profile `air-quality`.
    pub(super) fn payload(&self, step: usize, station: usize) -> String {
        let mut text = format!(r#"{{"time":"{}","city":"bench","station":"{}""#, time_text(step), station_name(station));
        for (p, property) in PROPERTIES.iter().enumerate() {
            let _ = write!(text, r#","{}":"#, property.name);
            self.push(&mut text, step, station, p);
        }
        text.push('}');
        text
    }
}

/// The stations as entities with a name and a place and no values yet, for a batch create.
pub(super) fn stations() -> String {
    let one = |station: usize| {
        let (lon, lat) = place(station);
        serde_json::json!({
            "id": entity_id(station), "type": ENTITY_TYPE,
            "name": {"type": "Property", "value": format!("Station {}", station_name(station))},
            "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [lon, lat]}},
        })
    };
    serde_json::Value::Array((0..N_STATIONS).map(one).collect()).to_string()
}

/// Longitude and latitude of a station.
pub(super) fn place(station: usize) -> (f64, f64) {
    (120.0 + (station % GRID_COLUMNS) as f64 * 0.02, 30.0 + (station / GRID_COLUMNS) as f64 * 0.02)
}

/// West, south, east, north: a box with 10 x 10 = 100 stations.
pub(super) const BOX: [f64; 4] = [120.19, 30.09, 120.39, 30.29];

/// `s007`.
pub(super) fn station_name(station: usize) -> String {
    format!("s{station:03}")
}

pub(super) fn entity_id(station: usize) -> String {
    format!("urn:ngsi-ld:{ENTITY_TYPE}:bench:{}", station_name(station))
}

/// The number of a series in PostgreSQL's tables.
pub(super) const fn series_number(station: usize, property: usize) -> usize {
    station * PROPERTIES.len() + property
}

/// Seconds from 1970 to a quarter hour.
pub(super) const fn time_s(step: usize) -> i64 {
    START_S + step as i64 * STEP_S
}

/// A quarter hour as a DateTime.
pub(super) fn time_text(step: usize) -> String {
    // All of January 2024: the day is plain arithmetic.
    let s = step as i64 * STEP_S;
    format!("2024-01-{:02}T{:02}:{:02}:00Z", 1 + s / 86_400, s / 3_600 % 24, s / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_as_large_as_it_says_varied_and_the_same_every_time() {
        let (city, again) = (City::make(), City::make());
        assert_eq!(city.tenths.len(), 8_640_000);
        assert_eq!(city.tenths, again.tenths);
        for p in 0..PROPERTIES.len() {
            let mut seen: Vec<u16> = (0..N_STEPS).map(|step| city.tenths(step, 17, p)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert!(seen.len() > 40, "property {p} has {} different values only", seen.len());
        }
    }

    #[test]
    fn every_system_is_given_the_same_values() {
        let city = City::make();
        let value = format!("{}.{}", city.tenths(1, 2, 0) / 10, city.tenths(1, 2, 0) % 10);
        let line = |text: &str, i: usize| text.lines().nth(i).unwrap_or_default().to_owned();
        assert!(line(&city.influx_lines(0..2), 602).starts_with(&format!("air,station=s002 pm25={value},")));
        assert!(line(&city.influx_lines(0..2), 602).ends_with(" 1704068100"));
        assert_eq!(line(&city.copy_lines(1..2), 10), format!("10\t2024-01-01T00:15:00Z\t{value}"));
        assert!(
            line(&city.csv(0..2), 603).starts_with(&format!("urn:ngsi-ld:AirQualityObserved:bench:s002,2024-01-01T00:15:00Z,{value},"))
        );
        assert!(line(&city.victoriametrics_lines(1..2), 10).contains(&format!(r#""values":[{value}],"timestamps":[1704068100000]"#)));
        let entities: serde_json::Value = serde_json::from_str(&city.entities(1)).expect("JSON");
        assert_eq!(entities[2]["pm25"]["value"].to_string(), value);
        assert_eq!(time_text(N_STEPS - 1), "2024-01-30T23:45:00Z");
    }

    #[test]
    fn a_hundred_stations_are_in_the_box() {
        let [west, south, east, north] = BOX;
        let inside = (0..N_STATIONS).map(place).filter(|(x, y)| (west..east).contains(x) && (south..north).contains(y)).count();
        assert_eq!(inside, 100);
    }
}
