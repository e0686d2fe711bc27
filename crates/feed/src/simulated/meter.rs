//! Electricity meters: load by the hour and the weather, summed into registers that never run backwards.

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Scene;
use super::clock::LocalTime;
use super::noise::Ou;
use crate::message::Payload;

/// All meters were installed at 2020-01-01T00:00:00 local time.
const INSTALLED_S: i64 = 1_577_808_000;

/// Share of the energy that is drawn in the peak tariff, for the registers' first reading.
const PEAK_SHARE: f64 = 0.78;

const WATT_HOURS_PER_KWH: f64 = 1_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Customer {
    Homes,
    Shop,
    Office,
    Workshop,
}

/// An electricity meter with a peak and an off-peak register.
#[derive(Debug)]
pub(super) struct Meter {
    customer: Customer,
    mean_kw: f64,
    noise: Ou,
    /// Energy drawn at 6–22 h local time (the two-rate household tariff of eastern China), watt hours.
    peak_wh: f64,
    off_peak_wh: f64,
}

impl Meter {
    /// The registers start with what the mean load would have drawn since the meter was installed.
    pub(super) fn new(start: Timestamp, rng: &mut ChaCha8Rng) -> Self {
        let customer = [Customer::Homes, Customer::Homes, Customer::Shop, Customer::Office, Customer::Workshop][rng.random_range(0..5)];
        let size = rng.random_range(0.6..1.6);
        let mean_kw = size
            * match customer {
                Customer::Homes => 18.0,
                Customer::Shop => 25.0,
                Customer::Office => 60.0,
                Customer::Workshop => 110.0,
            };
        let hours = (start.as_second() - INSTALLED_S).max(0) as f64 / 3600.0;
        let drawn_wh = mean_kw * hours * WATT_HOURS_PER_KWH;
        Self { customer, mean_kw, noise: Ou::new(1_200.0, rng), peak_wh: drawn_wh * PEAK_SHARE, off_peak_wh: drawn_wh * (1.0 - PEAK_SHARE) }
    }

    pub(super) fn read(&mut self, scene: &Scene, rng: &mut ChaCha8Rng, payload: &mut Payload) {
        let climate = 1.0 + 0.04 * (scene.weather.temperature_c - 25.0).max(0.0) + 0.018 * (12.0 - scene.weather.temperature_c).max(0.0);
        let noise = (0.10 * self.noise.step(scene.dt_s, rng)).exp();
        let power_kw = self.mean_kw * shape(self.customer, &scene.local) * climate * noise;
        let drawn_wh = power_kw * scene.dt_s / 3600.0 * WATT_HOURS_PER_KWH;
        if (6.0..22.0).contains(&scene.local.hour) {
            self.peak_wh += drawn_wh;
        } else {
            self.off_peak_wh += drawn_wh;
        }
        // Registers show whole watt hours, cut off as a meter does, so that they add up and never go back.
        let (peak_wh, off_peak_wh) = (self.peak_wh as u64, self.off_peak_wh as u64);
        payload.text("meterType", "Electricity");
        payload.rounded("activePowerKw", power_kw, 3);
        payload.number("energyImportKwh", &kwh_text(peak_wh + off_peak_wh));
        payload.number("energyPeakKwh", &kwh_text(peak_wh));
        payload.number("energyOffPeakKwh", &kwh_text(off_peak_wh));
    }
}

fn kwh_text(wh: u64) -> String {
    format!("{}.{:03}", wh / 1_000, wh % 1_000)
}

/// Load as a multiple of the mean.
fn shape(customer: Customer, local: &LocalTime) -> f64 {
    let works = local.working_day;
    match customer {
        Customer::Homes => {
            let day = if works { 0.15 } else { 0.45 };
            0.55 + day * local.between(9.0, 18.0) + 0.35 * local.bell(7.5, 1.0) + 1.0 * local.bell(20.0, 2.0)
        }
        Customer::Shop => 0.35 + 1.25 * local.between(9.5, 21.5),
        Customer::Office if works => 0.35 + 1.55 * local.between(8.0, 18.5),
        Customer::Office => 0.32 + 0.15 * local.between(9.0, 17.0),
        Customer::Workshop if works => 0.40 + 1.15 * local.between(7.5, 20.0),
        Customer::Workshop => 0.30 + 0.40 * local.between(8.0, 17.0),
    }
}
