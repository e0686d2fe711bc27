//! Where the devices of a city stand and what each of them is.

use geo::CoordsIter;
use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::clock::LocalTime;
use super::{Fleet, Scene, SimulationOptions, air, meter, noise, parking, traffic, weather};
use crate::message::{Identity, IdentityParts, Payload};
use crate::outline::Outline;

/// Draws of a place before the centre is taken instead; the outlines need a handful.
const PLACE_DRAWS_MAX: u32 = 1_000;

/// A device, its state and its randomness.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) identity: Identity,
    pub(super) interval_s: u32,
    pub(super) model: Model,
    pub(super) rng: ChaCha8Rng,
    pub(super) reliability_rng: ChaCha8Rng,
    pub(super) silent_until_us: i64,
    pub(super) n_sent: u64,
}

/// What a device measures.
#[derive(Debug)]
pub(super) enum Model {
    Air(air::Station),
    Weather(weather::Station),
    Traffic(traffic::Detector),
    Parking(parking::CarPark),
    Meter(meter::Meter),
}

impl Model {
    /// Takes a reading into the payload.
    pub(super) fn read(&mut self, scene: &Scene, rng: &mut ChaCha8Rng, payload: &mut Payload) {
        match self {
            Self::Air(station) => station.read(scene, rng, payload),
            Self::Weather(station) => station.read(scene, rng, payload),
            Self::Traffic(detector) => detector.read(scene, rng, payload),
            Self::Parking(car_park) => car_park.read(scene, rng, payload),
            Self::Meter(meter) => meter.read(scene, rng, payload),
        }
    }
}

/// A kind of device: its profile, the station's prefix and what people call it.
struct Kind {
    profile: &'static str,
    prefix: &'static str,
    name_en: &'static str,
    name_zh: &'static str,
    /// How much denser towards the centre: the distance is drawn as uniform^power.
    power: f64,
}

const AIR: Kind =
    Kind { profile: "air-quality", prefix: "sim-air", name_en: "Air-quality station", name_zh: "空气质量监测站", power: 0.9 };
const WEATHER: Kind = Kind { profile: "weather", prefix: "sim-weather", name_en: "Weather station", name_zh: "气象站", power: 0.7 };
const TRAFFIC: Kind =
    Kind { profile: "traffic", prefix: "sim-traffic", name_en: "Traffic detector", name_zh: "交通检测器", power: 1.3 };
const PARKING: Kind = Kind { profile: "parking", prefix: "sim-parking", name_en: "Car park", name_zh: "停车场", power: 1.6 };
const METER: Kind = Kind { profile: "meter", prefix: "sim-meter", name_en: "Electricity meter", name_zh: "电表", power: 1.2 };

struct Place {
    lon: f64,
    lat: f64,
    /// Distance from the centre, 0 to 1 at the farthest corner of the outline.
    remoteness: f64,
}

/// Places all devices of a city.
pub(super) fn place(outline: &Outline, seed: u64, start: Timestamp, options: &SimulationOptions) -> Vec<Device> {
    let local = LocalTime::at(start);
    let lat = outline.lat;
    let mut devices = Vec::new();
    let mut add = |kind: &Kind, fleet: Fleet, model: &dyn Fn(&Place, &mut ChaCha8Rng) -> Model| {
        for number in 1..=fleet.n_devices {
            devices.push(device(outline, seed, kind, number, fleet.interval_s, model));
        }
    };
    add(&AIR, options.air, &|place, rng| Model::Air(air::Station::new(lat, place.remoteness, rng)));
    add(&WEATHER, options.weather, &|place, rng| Model::Weather(weather::Station::new(place.remoteness, rng)));
    add(&TRAFFIC, options.traffic, &|place, rng| Model::Traffic(traffic::Detector::new(place.remoteness, rng)));
    add(&PARKING, options.parking, &|_, rng| Model::Parking(parking::CarPark::new(local, rng)));
    add(&METER, options.meters, &|_, rng| Model::Meter(meter::Meter::new(start, rng)));
    devices
}

fn device(
    outline: &Outline,
    seed: u64,
    kind: &Kind,
    number: usize,
    interval_s: u32,
    model: &dyn Fn(&Place, &mut ChaCha8Rng) -> Model,
) -> Device {
    let station = format!("{}-{number:02}", kind.prefix);
    let mut rng = noise::stream(seed, &outline.key, &station);
    let place = draw_place(outline, kind.power, &mut rng);
    let identity = Identity::new(&IdentityParts {
        profile: kind.profile,
        city: &outline.key,
        station: &station,
        name_en: &format!("{} {number} (simulated)", kind.name_en),
        name_zh: &format!("{}{number}号（模拟）", kind.name_zh),
        lon: &format!("{:.5}", place.lon),
        lat: &format!("{:.5}", place.lat),
        source: &format!("simulated by conurb, seed {seed}"),
    });
    Device {
        identity,
        interval_s,
        model: model(&place, &mut rng),
        rng,
        reliability_rng: noise::stream(seed, &outline.key, &format!("{station}/reliability")),
        silent_until_us: i64::MIN,
        n_sent: 0,
    }
}

/// A place inside the outline, denser towards the centre.
fn draw_place(outline: &Outline, power: f64, rng: &mut ChaCha8Rng) -> Place {
    // A degree of longitude is shorter than one of latitude.
    let shrink = outline.lat.to_radians().cos();
    let radius = outline
        .polygon_wgs84()
        .exterior_coords_iter()
        .map(|corner| ((corner.x - outline.lon) * shrink).hypot(corner.y - outline.lat))
        .fold(0.0, f64::max);
    for _ in 0..PLACE_DRAWS_MAX {
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        let remoteness = rng.random::<f64>().powf(power);
        let (lon, lat) = (outline.lon + radius * remoteness * angle.cos() / shrink, outline.lat + radius * remoteness * angle.sin());
        if outline.contains(lon, lat) {
            return Place { lon, lat, remoteness };
        }
    }
    Place { lon: outline.lon, lat: outline.lat, remoteness: 0.0 }
}
