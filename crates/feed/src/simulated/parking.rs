//! Off-street car parks that fill and empty with the city's day.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Scene;
use super::clock::LocalTime;
use super::noise::{Ou, normal};
use crate::message::Payload;

/// Cars arrive and leave so that the occupancy follows its target within this time.
const FOLLOW_S: f64 = 1_500.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Offices,
    Homes,
    Shops,
}

/// A car park.
#[derive(Debug)]
pub(super) struct CarPark {
    of: Use,
    n_spots: u64,
    popularity: f64,
    /// Occupied spots, before rounding.
    occupied: f64,
    noise: Ou,
}

impl CarPark {
    pub(super) fn new(local: LocalTime, rng: &mut ChaCha8Rng) -> Self {
        let of = [Use::Offices, Use::Homes, Use::Shops][rng.random_range(0..3)];
        let n_spots = 10 * rng.random_range(8..=90_u64);
        let popularity = rng.random_range(0.75..1.1);
        let noise = Ou::new(2.0 * 3600.0, rng);
        let occupied = share(of, &local) * popularity * n_spots as f64;
        Self { of, n_spots, popularity, occupied, noise }
    }

    pub(super) fn read(&mut self, scene: &Scene, rng: &mut ChaCha8Rng, payload: &mut Payload) {
        let capacity = self.n_spots as f64;
        let swing = 1.0 + 0.06 * self.noise.step(scene.dt_s, rng);
        let target = share(self.of, &scene.local) * self.popularity * swing * capacity;
        let follow = 1.0 - (-scene.dt_s / FOLLOW_S).exp();
        let turnover = 0.02 * (capacity * follow).sqrt() * normal(rng);
        self.occupied = (self.occupied + (target - self.occupied) * follow + turnover).clamp(0.0, capacity);
        // A whole number of at most n_spots, so the sum below holds exactly.
        let occupied = (self.occupied.round() as u64).min(self.n_spots);
        payload.integer("availableSpotNumber", self.n_spots - occupied);
        payload.integer("totalSpotNumber", self.n_spots);
        payload.integer("occupiedSpotNumber", occupied);
    }
}

/// Share of the spots that are wanted at a time.
pub(super) fn share(of: Use, local: &LocalTime) -> f64 {
    let day = local.between(8.3, 18.3);
    match (of, local.working_day) {
        (Use::Offices, true) => 0.08 + 0.80 * day,
        (Use::Offices, false) => 0.06 + 0.12 * day,
        (Use::Homes, true) => 0.90 - 0.45 * day,
        (Use::Homes, false) => 0.88 - 0.18 * local.between(10.0, 17.0),
        (Use::Shops, true) => 0.05 + 0.35 * local.between(10.0, 21.5) + 0.35 * local.bell(18.8, 1.4),
        (Use::Shops, false) => 0.05 + 0.50 * local.between(10.0, 21.5) + 0.40 * local.bell(15.5, 2.5),
    }
}
