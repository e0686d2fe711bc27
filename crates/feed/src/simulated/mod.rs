//! A believable city without a city: devices inside a built-in outline, and the messages they would send.
//!
//! One weather field and one traffic level are shared by a city's devices, so that readings hang together: rain slows
//! traffic, wind and rain clean the air, rush hours raise nitrogen dioxide, heat and cold raise the electricity demand.
//! Around that, each device has its own slow noise (first-order autoregressive).
//! The numbers are plausible, not calibrated: every payload says `"simulated": true` and names the seed.
//!
//! **Invariants.**
//! The same city, seed, start and options give the same messages, byte for byte.
//! PM2.5 never exceeds PM10; a car park is never over-full; a meter never runs backwards.
//! Silence and lateness draw from their own randomness: without them the surviving readings are the same.
//!
//! Working days are Monday to Friday without the fixed holidays (1 January, 1–3 May, 1–3 October); the lunar holidays
//! and their make-up days are left out. Local time is UTC+8.

mod air;
mod clock;
mod devices;
mod meter;
mod noise;
mod parking;
#[cfg(test)]
mod tests;
mod traffic;
mod weather;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::Message;
use crate::message::{Payload, SECOND_US};
use crate::outline::{Outline, UnknownCity, outline};
use clock::LocalTime;
use devices::Device;
use noise::Ou;
use weather::{Field, Weather};

/// Largest number of devices of one kind.
pub const DEVICES_MAX: usize = 100_000;

/// Longest reporting interval, seconds: a day.
pub const INTERVAL_MAX_S: u32 = 86_400;

/// The shared state of the city advances in steps of a minute, whatever the devices' intervals are.
const STEP_S: i64 = 60;

/// A silent device comes back within this many minutes.
const SILENCE_MINUTES: std::ops::RangeInclusive<i64> = 5..=90;

/// How many devices of a kind there are, and how often each reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// Number of devices, at most [`DEVICES_MAX`].
    pub n_devices: usize,
    /// Seconds between two readings of a device, 1 to [`INTERVAL_MAX_S`].
    pub interval_s: u32,
}

/// What stands in the simulated city and how reliable it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulationOptions {
    /// Air-quality stations; default 12, every 5 minutes.
    pub air: Fleet,
    /// Weather stations; default 4, every 5 minutes.
    pub weather: Fleet,
    /// Traffic detectors; default 40, every minute.
    pub traffic: Fleet,
    /// Off-street car parks; default 15, every minute.
    pub parking: Fleet,
    /// Electricity meters; default 20, every minute.
    pub meters: Fleet,
    /// First instant without a reading; `None` goes on for ever.
    pub end: Option<Timestamp>,
    /// How often a day a device falls silent for 5 to 90 minutes, on average; default 0.2.
    pub silences_per_device_day: f64,
    /// Share of the readings that are delivered after later ones of the same device, 0 to 1; default 0.005.
    pub late_share: f64,
    /// A late reading comes at most this many seconds after the one that follows it; default 1,800.
    pub late_max_s: u32,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            air: Fleet { n_devices: 12, interval_s: 300 },
            weather: Fleet { n_devices: 4, interval_s: 300 },
            traffic: Fleet { n_devices: 40, interval_s: 60 },
            parking: Fleet { n_devices: 15, interval_s: 60 },
            meters: Fleet { n_devices: 20, interval_s: 60 },
            end: None,
            silences_per_device_day: 0.2,
            late_share: 0.005,
            late_max_s: 1_800,
        }
    }
}

/// Why a city cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// No outline of that city.
    #[error(transparent)]
    UnknownCity(#[from] UnknownCity),
    /// An option is out of its range.
    #[error("option `{option}`: expected {expected}, found {found}")]
    Option {
        /// Name of the option.
        option: String,
        /// Its range.
        expected: String,
        /// The value given.
        found: String,
    },
}

/// Messages of a simulated city in the order of delivery.
///
/// Messages are in the order of their time stamps, except late ones, which keep the time of their reading.
/// Endless unless [`SimulationOptions::end`] is set.
#[derive(Debug)]
pub struct Simulation {
    outline: &'static Outline,
    devices: Vec<Device>,
    city: CityState,
    events: BinaryHeap<Reverse<Event>>,
    n_events: u64,
    end_us: i64,
    reliability: Reliability,
}

#[derive(Debug)]
struct Reliability {
    silences_per_device_day: f64,
    late_share: f64,
    late_max_s: u32,
}

/// What happens next: a device takes a reading, or a late reading arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    due_us: i64,
    /// Order of events that are due at the same time.
    order: u64,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Reading(usize),
    Late(Box<LateMessage>),
}

/// Ordered only because the heap asks for it; `Event::order` decides before.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LateMessage {
    topic: String,
    payload: Vec<u8>,
    at: i64,
    key: u64,
}

/// What the devices of a city have in common.
#[derive(Debug)]
struct CityState {
    step_us: i64,
    field: Field,
    traffic_level: Ou,
    rng: ChaCha8Rng,
}

/// What a device sees when it takes a reading.
#[derive(Debug, Clone, Copy)]
struct Scene {
    local: LocalTime,
    /// Seconds since this device's last reading.
    dt_s: f64,
    weather: Weather,
    /// Shared swing of the city's traffic, standard normal.
    traffic_level: f64,
}

impl Simulation {
    /// A city by its key (see [`crate::outline`]), from `start` on, drawn from `seed`.
    ///
    /// Errors: no outline of that city; an option out of its range.
    pub fn new(city_key: &str, seed: u64, start: Timestamp, options: &SimulationOptions) -> Result<Self, SimulationError> {
        let outline = outline(city_key)?;
        check_options(start, options)?;
        let start_us = start.as_microsecond();
        let mut rng = noise::stream(seed, city_key, "city");
        let city = CityState {
            step_us: start_us,
            field: Field::new(outline, LocalTime::at(start), &mut rng),
            traffic_level: Ou::new(3.0 * 3600.0, &mut rng),
            rng,
        };
        let mut simulation = Self {
            outline,
            devices: devices::place(outline, seed, start, options),
            city,
            events: BinaryHeap::new(),
            n_events: 0,
            end_us: options.end.map_or(i64::MAX, Timestamp::as_microsecond),
            reliability: Reliability {
                silences_per_device_day: options.silences_per_device_day,
                late_share: options.late_share,
                late_max_s: options.late_max_s,
            },
        };
        for device_idx in 0..simulation.devices.len() {
            simulation.schedule(start_us, What::Reading(device_idx));
        }
        Ok(simulation)
    }

    /// The outline in which the devices stand.
    pub fn outline(&self) -> &'static Outline {
        self.outline
    }

    /// How many devices there are.
    pub fn n_devices(&self) -> usize {
        self.devices.len()
    }

    fn schedule(&mut self, due_us: i64, what: What) {
        self.events.push(Reverse(Event { due_us, order: self.n_events, what }));
        self.n_events += 1;
    }

    /// Lets one device take its reading; returns the message unless it is silent or late.
    fn read(&mut self, device_idx: usize, at_us: i64) -> Option<Message> {
        self.city.advance_to(at_us);
        let device = &mut self.devices[device_idx];
        let interval_us = i64::from(device.interval_s) * SECOND_US;
        let at = Timestamp::from_microsecond(at_us).expect("check_options keeps the clock within the calendar");
        let scene = Scene {
            local: LocalTime::at(at),
            dt_s: f64::from(device.interval_s),
            weather: self.city.field.now(),
            traffic_level: self.city.traffic_level.value(),
        };
        let mut payload = Payload::new(at, &device.identity);
        device.model.read(&scene, &mut device.rng, &mut payload);
        payload.simulated();

        let silent = device.is_silent(at_us, &self.reliability);
        let late_by_us = device.lateness_us(&self.reliability);
        let message = (!silent).then(|| {
            let key = device.n_sent;
            device.n_sent += 1;
            Message { topic: device.identity.topic.clone(), payload: payload.finish(&device.identity), at: at_us, key }
        });
        // The calendar of `Timestamp` ends in the year 9999, and so does the simulation.
        if let Some(next_us) = at_us.checked_add(interval_us).filter(|next_us| *next_us < self.end_us)
            && Timestamp::from_microsecond(next_us).is_ok()
        {
            self.schedule(next_us, What::Reading(device_idx));
        }
        match (message, late_by_us) {
            (Some(Message { topic, payload, at, key }), Some(late_by_us)) => {
                let due_us = at_us.saturating_add(interval_us).saturating_add(late_by_us);
                self.schedule(due_us, What::Late(Box::new(LateMessage { topic, payload, at, key })));
                None
            }
            (message, _) => message,
        }
    }
}

impl Iterator for Simulation {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            let Reverse(event) = self.events.pop()?;
            match event.what {
                What::Reading(device_idx) => {
                    if let Some(message) = self.read(device_idx, event.due_us) {
                        return Some(message);
                    }
                }
                What::Late(late) => {
                    let LateMessage { topic, payload, at, key } = *late;
                    return Some(Message { topic, payload, at, key });
                }
            }
        }
    }
}

impl CityState {
    fn advance_to(&mut self, at_us: i64) {
        while self.step_us + STEP_S * SECOND_US <= at_us {
            self.step_us += STEP_S * SECOND_US;
            let at = Timestamp::from_microsecond(self.step_us).expect("the city's clock stays behind its devices'");
            self.field.step(STEP_S as f64, LocalTime::at(at), &mut self.rng);
            self.traffic_level.step(STEP_S as f64, &mut self.rng);
        }
    }
}

impl Device {
    /// Whether the device says nothing at this time; draws the next silence.
    fn is_silent(&mut self, at_us: i64, reliability: &Reliability) -> bool {
        let chance = reliability.silences_per_device_day * f64::from(self.interval_s) / 86_400.0;
        let falls_silent = self.reliability_rng.random::<f64>() < chance;
        let minutes = self.reliability_rng.random_range(SILENCE_MINUTES);
        if at_us >= self.silent_until_us && falls_silent {
            self.silent_until_us = at_us.saturating_add(minutes * 60 * SECOND_US);
        }
        at_us < self.silent_until_us
    }

    /// How long after the following reading this one arrives, if it is late.
    fn lateness_us(&mut self, reliability: &Reliability) -> Option<i64> {
        let is_late = self.reliability_rng.random::<f64>() < reliability.late_share;
        let late_by_s = self.reliability_rng.random_range(0..=reliability.late_max_s);
        is_late.then(|| i64::from(late_by_s) * SECOND_US)
    }
}

fn check_options(start: Timestamp, options: &SimulationOptions) -> Result<(), SimulationError> {
    let error = |option: &str, expected: String, found: String| Err(SimulationError::Option { option: option.to_owned(), expected, found });
    let fleets = [
        ("air", options.air),
        ("weather", options.weather),
        ("traffic", options.traffic),
        ("parking", options.parking),
        ("meters", options.meters),
    ];
    for (name, Fleet { n_devices, interval_s }) in fleets {
        if n_devices > DEVICES_MAX {
            return error(&format!("{name}.n_devices"), format!("at most {DEVICES_MAX}"), n_devices.to_string());
        }
        if !(1..=INTERVAL_MAX_S).contains(&interval_s) {
            let expected = format!("1 to {INTERVAL_MAX_S} seconds");
            return error(&format!("{name}.interval_s"), expected, interval_s.to_string());
        }
    }
    if fleets.iter().all(|(_, fleet)| fleet.n_devices == 0) {
        return error("n_devices", "at least one device".to_owned(), "none of any kind".to_owned());
    }
    if !(0.0..=1.0).contains(&options.late_share) {
        return error("late_share", "a share from 0 to 1".to_owned(), options.late_share.to_string());
    }
    let silences = options.silences_per_device_day;
    if !(0.0..=1_000.0).contains(&silences) {
        return error("silences_per_device_day", "0 to 1000".to_owned(), silences.to_string());
    }
    if let Some(end) = options.end.filter(|end| *end <= start) {
        return error("end", format!("a time after the start {start}"), end.to_string());
    }
    Ok(())
}
