//! Air-quality stations: pollutants that share causes, so that they rise and fall together.

use rand_chacha::ChaCha8Rng;

use super::Scene;
use super::clock::LocalTime;
use super::noise::{Ou, normal};
use crate::message::Payload;

/// The coldest part of the year, when heating and inversions raise the levels: 20 January.
const COLDEST_DAY: f64 = 20.0;

/// An air-quality station.
#[derive(Debug)]
pub(super) struct Station {
    /// Yearly mean of PM2.5 without the station's own share, µg/m³.
    base_pm25: f64,
    /// Logarithm of how much dirtier than the city's mean the place is.
    place: f64,
    /// Share of road traffic in what is measured, larger in the centre.
    roadside: f64,
    regional: Ou,
    coarse: Ou,
    combustion: Ou,
    ozone: Ou,
}

impl Station {
    /// Levels rise with the latitude, as the yearly means of eastern China do; `remoteness` is 0 in the centre.
    pub(super) fn new(latitude: f64, remoteness: f64, rng: &mut ChaCha8Rng) -> Self {
        let hours = 3600.0;
        Self {
            base_pm25: (22.0 + 0.9 * (latitude - 22.5)).max(8.0),
            place: 0.12 * normal(rng) - 0.15 * remoteness,
            roadside: 1.0 - 0.6 * remoteness,
            regional: Ou::new(36.0 * hours, rng),
            coarse: Ou::new(12.0 * hours, rng),
            combustion: Ou::new(6.0 * hours, rng),
            ozone: Ou::new(18.0 * hours, rng),
        }
    }

    pub(super) fn read(&mut self, scene: &Scene, rng: &mut ChaCha8Rng, payload: &mut Payload) {
        let regional = self.regional.step(scene.dt_s, rng);
        let coarse = self.coarse.step(scene.dt_s, rng);
        let combustion = self.combustion.step(scene.dt_s, rng);
        let ozone = self.ozone.step(scene.dt_s, rng);

        let weather = &scene.weather;
        let road = 1.0 + self.roadside * (road_share(&scene.local) - 0.5);
        let washed = (-0.12 * weather.rain_mm).exp().max(0.35);
        let season = (0.35 * scene.local.yearly(COLDEST_DAY)).exp();
        let stagnant = season * washed / weather.ventilation;

        let pm25 = self.base_pm25 * stagnant * road.powf(0.3) * (self.place + 0.40 * regional).exp();
        // The coarse part comes on top, so PM2.5 stays below PM10.
        let dust = 0.55 * self.base_pm25 * washed * (self.place + 0.45 * coarse).exp();
        let no2 = 30.0 * stagnant.sqrt() * road * (self.place + 0.15 * regional + 0.25 * combustion).exp();
        let so2 = 6.0 * stagnant.sqrt() * (0.2 * regional + 0.3 * combustion).exp();
        let co = 550.0 * stagnant.sqrt() * road.powf(0.5) * (0.25 * regional + 0.15 * combustion).exp();
        // Sun and warmth make ozone, fresh nitrogen oxides take it away.
        let warmth = (0.03 * (weather.temperature_c - 18.0)).exp();
        let o3 = (34.0 + 105.0 * weather.sun * warmth - 0.45 * no2 + 10.0 * ozone).max(2.0);

        payload.rounded("pm25", at_least_1(pm25), 0);
        payload.rounded("pm10", at_least_1(pm25 + dust), 0);
        payload.rounded("so2", at_least_1(so2), 0);
        payload.rounded("no2", at_least_1(no2), 0);
        payload.rounded("co", at_least_1(co), 0);
        payload.rounded("o3", o3, 0);
    }
}

/// An instrument's detection limit of 1 µg/m³.
fn at_least_1(value: f64) -> f64 {
    value.max(1.0)
}

/// Road traffic of the city, 0 by night to about 1 in the rush hours.
fn road_share(local: &LocalTime) -> f64 {
    let peaks = if local.working_day { 1.0 } else { 0.35 };
    (0.1 + 0.5 * local.between(6.0, 22.5) + 0.4 * peaks * (local.bell(8.0, 1.2) + local.bell(18.0, 1.5))).min(1.0)
}
