//! Seeded randomness: one stream per purpose, normal numbers, and slow noise.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of randomness of its own for each purpose, so that one more device does not change the others.
pub(super) fn stream(seed: u64, city: &str, purpose: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv1a(&[city.as_bytes(), b"/", purpose.as_bytes()]));
    rng
}

/// FNV-1a, 64 bit: a hash that stays the same between versions of the standard library.
fn fnv1a(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A standard normal number (Box–Muller).
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let u = 1.0 - rng.random::<f64>();
    let v = rng.random::<f64>();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Slow noise: the continuous form of a first-order autoregressive process, standard normal at any time.
#[derive(Debug, Clone)]
pub(super) struct Ou {
    value: f64,
    tau_s: f64,
}

impl Ou {
    /// Correlation falls to 1/e within `tau_s` seconds.
    pub(super) fn new(tau_s: f64, rng: &mut ChaCha8Rng) -> Self {
        Self { value: normal(rng), tau_s }
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    pub(super) fn step(&mut self, dt_s: f64, rng: &mut ChaCha8Rng) -> f64 {
        let keep = (-dt_s / self.tau_s).exp();
        self.value = self.value * keep + (1.0 - keep * keep).sqrt() * normal(rng);
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_noise_is_standard_normal_and_decays_with_its_time_constant() {
        let mut rng = stream(1, "test", "noise");
        let mut noise = Ou::new(600.0, &mut rng);
        let values: Vec<f64> = (0..200_000).map(|_| noise.step(60.0, &mut rng)).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let lag_10 = values.windows(11).map(|w| (w[0] - mean) * (w[10] - mean)).sum::<f64>() / (n - 10.0) / variance;
        assert!(mean.abs() < 0.1, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.1, "variance {variance}");
        assert!((lag_10 - (-1.0f64).exp()).abs() < 0.05, "correlation after one time constant {lag_10}");
    }

    #[test]
    fn streams_of_different_purposes_differ_and_repeat() {
        let draw = |purpose| stream(7, "suzhou", purpose).random::<u64>();
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
    }
}
