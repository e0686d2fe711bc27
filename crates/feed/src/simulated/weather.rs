//! The weather of a simulated city: one field that all devices share, and the stations that measure it.
//!
//! The yearly course follows the latitude, tuned by eye to the coastal cities of eastern China (yearly mean 36.5 − 0.6·latitude °C,
//! yearly swing 7 + 0.46·(latitude − 22.5) °C), the daily course has its peak at 15 h, rain is more frequent in summer.

use std::collections::VecDeque;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Scene;
use super::clock::LocalTime;
use super::noise::{Ou, normal};
use crate::message::Payload;
use crate::outline::Outline;

/// The warmest day of the year: 22 July.
const WARMEST_DAY: f64 = 203.0;

/// Minutes over which precipitation is summed, as in the recorded archives.
const RAIN_WINDOW_MINUTES: usize = 60;

/// Most humid the air gets, as a fraction.
const HUMIDITY_MAX: f64 = 1.0;

/// Weather over the city at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) temperature_c: f64,
    pub(super) dew_point_c: f64,
    pub(super) pressure_hpa: f64,
    /// Amount of the past hour.
    pub(super) rain_mm: f64,
    /// Towards the east and towards the north.
    pub(super) wind_m_s: [f64; 2],
    /// How well the air mixes, around 1: wind, and the sun by day.
    pub(super) ventilation: f64,
    /// Sunlight, 0 by night, up to 1.
    pub(super) sun: f64,
}

/// The weather field and its slow noises.
#[derive(Debug)]
pub(super) struct Field {
    latitude: f64,
    elevation_m: f64,
    temperature: Ou,
    dryness: Ou,
    pressure: Ou,
    wind: [Ou; 2],
    raining: bool,
    rain_strength: f64,
    rain_minutes: VecDeque<f64>,
    now: Weather,
}

impl Field {
    pub(super) fn new(outline: &Outline, local: LocalTime, rng: &mut ChaCha8Rng) -> Self {
        let hours = 3600.0;
        let mut field = Self {
            latitude: outline.lat,
            elevation_m: outline.elevation_m,
            temperature: Ou::new(60.0 * hours, rng),
            dryness: Ou::new(30.0 * hours, rng),
            pressure: Ou::new(72.0 * hours, rng),
            wind: [Ou::new(12.0 * hours, rng), Ou::new(12.0 * hours, rng)],
            raining: rng.random::<f64>() < wet_share(local),
            rain_strength: 1.0,
            rain_minutes: VecDeque::from(vec![0.0; RAIN_WINDOW_MINUTES]),
            now: Weather {
                temperature_c: 0.0,
                dew_point_c: 0.0,
                pressure_hpa: 0.0,
                rain_mm: 0.0,
                wind_m_s: [0.0; 2],
                ventilation: 1.0,
                sun: 0.0,
            },
        };
        field.look(local);
        field
    }

    pub(super) fn now(&self) -> Weather {
        self.now
    }

    /// Advances by one step of `dt_s` seconds (a minute) to `local`.
    pub(super) fn step(&mut self, dt_s: f64, local: LocalTime, rng: &mut ChaCha8Rng) {
        self.temperature.step(dt_s, rng);
        self.dryness.step(dt_s, rng);
        self.pressure.step(dt_s, rng);
        for wind in &mut self.wind {
            wind.step(dt_s, rng);
        }
        self.step_rain(dt_s, local, rng);
        self.look(local);
    }

    /// Rain comes in spells of two and a half hours on average, as often as the season wants.
    fn step_rain(&mut self, dt_s: f64, local: LocalTime, rng: &mut ChaCha8Rng) {
        let spell_s = 2.5 * 3600.0;
        let share = wet_share(local);
        let (draw, strength) = (rng.random::<f64>(), normal(rng));
        if self.raining {
            self.raining = draw >= dt_s / spell_s;
        } else if draw < dt_s / (spell_s * (1.0 - share) / share) {
            self.raining = true;
            // Summer rain is heavier.
            self.rain_strength = (0.2 + 0.7 * strength + 0.6 * local.yearly(WARMEST_DAY)).exp();
        }
        let gust = 0.7 + 0.6 * rng.random::<f64>();
        self.rain_minutes.pop_front();
        self.rain_minutes.push_back(if self.raining { self.rain_strength * gust * dt_s / 3600.0 } else { 0.0 });
    }

    /// Works out the weather from the noises.
    fn look(&mut self, local: LocalTime) {
        let year = local.yearly(WARMEST_DAY);
        let mean_c = 36.5 - 0.6 * self.latitude - 0.0055 * self.elevation_m;
        let swing_c = 7.0 + 0.46 * (self.latitude - 22.5);
        let cloud = if self.raining { 0.4 } else { 1.0 };
        let temperature_c = mean_c + swing_c * year + 3.6 * cloud * local.daily(15.0) + 3.0 * self.temperature.value();

        // The further inland and the drier the season, the wider the gap to the dew point.
        let usual_gap_c = 4.5 + 0.25 * (self.latitude - 22.5) - 2.0 * year + 2.0 * local.daily(15.0);
        let gap_c = (usual_gap_c + 3.0 * self.dryness.value()) * if self.raining { 0.25 } else { 1.0 };

        let sea_level_hpa = 1015.0 - 9.0 * year + 4.0 * self.pressure.value();
        let day_wind = 1.0 + 0.25 * local.daily(15.0);
        // The monsoon: from the north in winter, from the south in summer.
        let wind_m_s = [1.6 * self.wind[0].value() * day_wind, (1.2 * year + 1.8 * self.wind[1].value()) * day_wind];
        let daylight = 12.0 + 0.06 * self.latitude * year;
        let sun = ((local.hour - 12.2) / daylight * std::f64::consts::PI).cos();
        let is_day = (local.hour - 12.2).abs() < daylight / 2.0;
        let sun = if is_day { sun.max(0.0) * cloud } else { 0.0 };
        let speed = wind_m_s[0].hypot(wind_m_s[1]);
        self.now = Weather {
            temperature_c,
            dew_point_c: temperature_c - gap_c.max(0.3),
            pressure_hpa: sea_level_hpa * (-self.elevation_m / 8_400.0).exp(),
            rain_mm: self.rain_minutes.iter().sum(),
            wind_m_s,
            ventilation: 0.45 + 0.18 * speed + 0.5 * sun,
            sun,
        };
    }
}

/// Share of the time with rain.
fn wet_share(local: LocalTime) -> f64 {
    0.08 + 0.05 * local.yearly(WARMEST_DAY)
}

/// A weather station.
#[derive(Debug)]
pub(super) struct Station {
    /// Warmer in the centre, colder outside.
    offset_c: f64,
    /// Wind in streets is weaker.
    shelter: f64,
    noise: Ou,
    wind_noise: [Ou; 2],
}

impl Station {
    /// `remoteness` is 0 in the centre and 1 at the edge of the city.
    pub(super) fn new(remoteness: f64, rng: &mut ChaCha8Rng) -> Self {
        Self {
            offset_c: 0.8 - 1.6 * remoteness + 0.2 * normal(rng),
            shelter: 0.7 + 0.3 * remoteness,
            noise: Ou::new(3600.0, rng),
            wind_noise: [Ou::new(900.0, rng), Ou::new(900.0, rng)],
        }
    }

    pub(super) fn read(&mut self, scene: &Scene, rng: &mut ChaCha8Rng, payload: &mut Payload) {
        let weather = &scene.weather;
        let local_c = self.offset_c + 0.3 * self.noise.step(scene.dt_s, rng);
        let temperature_c = tenth(weather.temperature_c + local_c);
        let dew_point_c = tenth(weather.dew_point_c + 0.3 * local_c).min(temperature_c);
        let [east, north] =
            std::array::from_fn(|axis| weather.wind_m_s[axis] * self.shelter + 0.5 * self.wind_noise[axis].step(scene.dt_s, rng));
        let speed_m_s = tenth(east.hypot(north));

        payload.rounded("temperature", temperature_c, 1);
        payload.rounded("pressure", weather.pressure_hpa, 1);
        payload.rounded("dewPoint", dew_point_c, 1);
        payload.rounded("relativeHumidity", relative_humidity(temperature_c, dew_point_c), 2);
        payload.rounded("precipitation", weather.rain_mm, 1);
        // A calm has no direction.
        if speed_m_s > 0.0 {
            payload.rounded("windDirection", wind_from_degrees(east, north), 0);
        }
        payload.rounded("windSpeed", speed_m_s, 1);
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Relative humidity, 0 to 1, of air at a temperature and dew point in °C.
///
/// Source: Magnus formula with the constants 17.62 and 243.12 °C of the WMO guide to instruments (WMO-No. 8, annex 4.B).
fn relative_humidity(temperature_c: f64, dew_point_c: f64) -> f64 {
    let pressure = |t: f64| (17.62 * t / (243.12 + t)).exp();
    (pressure(dew_point_c) / pressure(temperature_c)).clamp(0.0, HUMIDITY_MAX)
}

/// Whole degrees from north, clockwise, where a wind towards east and north comes from: 0 to 359.
fn wind_from_degrees(east: f64, north: f64) -> f64 {
    (-east).atan2(-north).to_degrees().rem_euclid(360.0).round() % 360.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wind_direction_is_where_the_wind_comes_from() {
        check(0.0, -1.0, 0.0); // towards the south: a north wind
        check(-1.0, 0.0, 90.0);
        check(0.0, 1.0, 180.0);
        check(1.0, 0.0, 270.0);
        check(0.001, -1.0, 0.0); // 359.9 rounds to 0, not 360

        #[track_caller]
        fn check(east: f64, north: f64, want: f64) {
            assert!((wind_from_degrees(east, north) - want).abs() < 1e-9, "({east}, {north})");
        }
    }

    #[test]
    fn humidity_follows_the_dew_point() {
        assert!((relative_humidity(20.0, 20.0) - 1.0).abs() < 1e-12);
        // WMO tables: 20 °C and a dew point of 9.3 °C are 50 per cent.
        assert!((relative_humidity(20.0, 9.3) - 0.50).abs() < 0.005);
    }
}
