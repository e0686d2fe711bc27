//! Traffic detectors: demand by the hour, and speeds that fall when demand nears the capacity.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Scene;
use super::clock::LocalTime;
use super::noise::{Ou, normal};
use crate::message::Payload;

/// Vehicles per hour that a lane carries on a city street with signals.
const LANE_CAPACITY_VEH_H: f64 = 900.0;

/// Length of a vehicle plus that of the detector, kilometres; density times this is the occupancy.
const DETECTED_LENGTH_KM: f64 = 0.0065;

/// A detector over one direction of a road.
#[derive(Debug)]
pub(super) struct Detector {
    lanes: f64,
    free_speed_km_h: f64,
    /// Demand of a working day's rush hour as a share of the capacity.
    busyness: f64,
    /// 1: towards the centre, busy in the morning; 0: out of it, busy in the evening.
    inbound: f64,
    noise: Ou,
}

impl Detector {
    /// `remoteness` is 0 in the centre and 1 at the edge of the city.
    pub(super) fn new(remoteness: f64, rng: &mut ChaCha8Rng) -> Self {
        let lanes = f64::from(rng.random_range(2..=4_u8));
        Self {
            lanes,
            free_speed_km_h: 42.0 + 6.0 * (lanes - 2.0) + 18.0 * remoteness + 3.0 * normal(rng),
            busyness: (1.0 - 0.45 * remoteness + 0.08 * normal(rng)).clamp(0.3, 1.15),
            inbound: rng.random::<f64>(),
            noise: Ou::new(1_800.0, rng),
        }
    }

    pub(super) fn read(&mut self, scene: &Scene, rng: &mut ChaCha8Rng, payload: &mut Payload) {
        let swing = 1.0 + 0.05 * scene.traffic_level + 0.06 * self.noise.step(scene.dt_s, rng);
        let demand = (self.busyness * daily_shape(&scene.local, self.inbound) * swing).max(0.0);
        let capacity_veh_h = self.lanes * LANE_CAPACITY_VEH_H;
        // Past the capacity the queue lets fewer through.
        let flow_share = if demand <= 1.0 { demand } else { (1.0 - 0.8 * (demand - 1.0)).max(0.55) };
        let counting_noise = normal(rng) * (flow_share * capacity_veh_h / 60.0).sqrt() * 60.0 * 0.3;
        let flow_veh_h = (flow_share * capacity_veh_h + counting_noise).clamp(0.0, 1.2 * capacity_veh_h);

        let wet = if scene.weather.rain_mm > 0.2 { 0.9 } else { 1.0 };
        let load = demand.min(1.4);
        // BPR-shaped: 39 per cent slower at capacity, a crawl beyond.
        let speed_km_h = (self.free_speed_km_h * wet / (1.0 + 0.65 * load.powi(4)) + 0.8 * normal(rng)).max(4.0);
        let density_veh_km = flow_veh_h / self.lanes / speed_km_h;
        let occupancy = (density_veh_km * DETECTED_LENGTH_KM).clamp(0.0, 1.0);

        payload.rounded("intensity", flow_veh_h, 0);
        // Without vehicles there is no speed to measure.
        if flow_veh_h >= 0.5 {
            payload.rounded("averageVehicleSpeed", speed_km_h, 1);
        }
        payload.rounded("occupancy", occupancy, 3);
    }
}

/// Demand over the day, about 1 at the busier rush hour of a working day.
pub(super) fn daily_shape(local: &LocalTime, inbound: f64) -> f64 {
    let day = local.between(6.0, 22.0);
    if local.working_day {
        let morning = (0.42 + 0.28 * inbound) * local.bell(8.0, 0.9);
        let evening = (0.42 + 0.28 * (1.0 - inbound)) * local.bell(17.9, 1.1);
        0.05 + 0.38 * day + morning + evening
    } else {
        0.07 + 0.30 * day + 0.25 * local.bell(11.5, 2.0) + 0.28 * local.bell(17.0, 2.5)
    }
}
