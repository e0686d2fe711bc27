//! A small city in memory: a [`Source`] with a history that remembers how it was asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use entity::{Attribute, AttributeValue, Entity, Filter, Geometry, Instant, Iri, LOCATION, Value};
use query::{Rows, Source, SourceFactory};
use serde_json::json;
use store::history::memory::MemoryHistory;
use store::history::{
    About, Erasure, Evolution, Fact, History, HistoryError, HistoryScan, HistoryTable, Marked, Segment, TemporalQuery, What,
};

pub(crate) const NS: &str = "https://example.org/";

pub(crate) fn iri(name: &str) -> Iri {
    Iri::known(&format!("{NS}{name}"))
}

pub(crate) fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

/// The model history, and how it was asked.
#[derive(Default)]
pub(crate) struct AskedHistory {
    inner: MemoryHistory,
    pub(crate) scans: Mutex<Vec<HistoryScan>>,
}

impl AskedHistory {
    /// A value, observed (unless the text is empty) and recorded.
    pub(crate) fn put(&self, entity_type: &str, entity: &str, name: &str, value: Value, observed_at: &str, recorded_at: &str) {
        let mut instance = Attribute::property(value);
        instance.unit_code = (name == "pm25").then(|| "GQ".into());
        self.put_attribute(entity_type, entity, iri(name).as_str(), instance, observed_at, recorded_at);
    }

    /// An attribute of any kind by its full name.
    pub(crate) fn put_attribute(
        &self,
        entity_type: &str,
        entity: &str,
        name: &str,
        mut instance: Attribute,
        observed_at: &str,
        recorded_at: &str,
    ) {
        instance.observed_at = (!observed_at.is_empty()).then(|| at(observed_at));
        (instance.created_at, instance.modified_at) = (at(recorded_at), at(recorded_at));
        let what = What::Value { name: Iri::known(name), instance: instance.into() };
        let fact = Fact { entity_type: iri(entity_type), entity: Iri::known(entity), recorded_at: at(recorded_at), what };
        self.inner.append(vec![fact]);
    }
}

impl History for AskedHistory {
    fn append(&self, _facts: Vec<Fact>) {
        panic!("SQL never writes");
    }

    fn check_erasure(&self, erasure: &Erasure) -> Result<(), HistoryError> {
        self.inner.check_erasure(erasure)
    }

    fn erase(&self, _erasure: Erasure) -> Result<(), HistoryError> {
        panic!("SQL never writes");
    }

    fn purge(&self) -> Result<Vec<Segment>, HistoryError> {
        panic!("SQL never writes");
    }

    fn visit_marks(&self, of: Marked<'_>, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError> {
        self.inner.visit_marks(of, as_of, visit)
    }

    fn n_recent(&self) -> usize {
        self.inner.n_recent()
    }

    fn seal(&self) -> Result<Vec<Segment>, HistoryError> {
        panic!("SQL never writes");
    }

    fn evolution(&self, query: &TemporalQuery) -> Result<Option<Evolution>, HistoryError> {
        self.inner.evolution(query)
    }

    fn tables(&self) -> Vec<HistoryTable> {
        self.inner.tables()
    }

    fn scan(&self, scan: &HistoryScan) -> Result<Vec<RecordBatch>, HistoryError> {
        self.scans.lock().unwrap().push(scan.clone());
        self.inner.scan(scan)
    }
}

/// Entities and history; entities can be added while sessions are open.
#[derive(Default)]
pub(crate) struct City {
    pub(crate) entities: Mutex<Vec<Arc<Entity>>>,
    pub(crate) history: AskedHistory,
    /// The boxes that places were asked for.
    pub(crate) boxes: Mutex<Vec<[f64; 4]>>,
}

impl City {
    pub(crate) fn put(&self, entity: Entity) {
        let mut entities = self.entities.lock().unwrap();
        entities.retain(|e| e.id != entity.id);
        entities.push(Arc::new(entity));
    }
}

/// Entities without more: what the trait does of itself.
struct Plain(Vec<Arc<Entity>>);

impl Source for Plain {
    fn types(&self) -> Vec<Iri> {
        Vec::new()
    }

    fn entities(&self, _entity_type: &Iri) -> Vec<Arc<Entity>> {
        self.0.clone()
    }

    fn history(&self) -> &dyn History {
        unreachable!("only its entities are asked for")
    }

    fn short_name(&self, name: &Iri) -> String {
        name.local_name().to_owned()
    }
}

impl Source for City {
    fn types(&self) -> Vec<Iri> {
        let entities = self.entities.lock().unwrap();
        entities.iter().flat_map(|e| e.types.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn entities(&self, entity_type: &Iri) -> Vec<Arc<Entity>> {
        self.entities.lock().unwrap().iter().filter(|e| e.types.contains(entity_type)).cloned().collect()
    }

    fn scan(&self, entity_type: &Iri, attributes: &[Iri], filter: &Filter) -> Rows {
        for condition in filter.conjuncts() {
            if let Filter::Geo(place) = condition {
                self.boxes.lock().unwrap().push(place.reference.bbox());
            }
        }
        Plain(self.entities(entity_type)).scan(entity_type, attributes, filter)
    }

    fn history(&self) -> &dyn History {
        &self.history
    }

    fn short_name(&self, name: &Iri) -> String {
        assert_ne!(name.local_name(), "panic", "asked to panic");
        name.local_name().to_owned()
    }
}

/// The same city for everybody – except for the principal `nobody`, who sees an empty one.
pub(crate) struct Cities(pub(crate) Arc<City>);

impl SourceFactory for Cities {
    fn source(&self, principal: &str) -> Arc<dyn Source> {
        if principal == "nobody" { Arc::new(City::default()) } else { self.0.clone() }
    }
}

pub(crate) fn station(name: &str, pm25: f64, observed_at: &str) -> Entity {
    let mut entity = Entity::new(Iri::known(&format!("urn:ngsi-ld:AirQualityObserved:{name}")), iri("AirQualityObserved"));
    entity.created_at = at("2014-01-01T00:00:00Z");
    entity.modified_at = at("2014-01-02T00:00:00Z");
    let mut value = Attribute::property(pm25).observed(at(observed_at));
    value.unit_code = Some("GQ".into());
    entity.with(iri("pm25"), value).with(iri("stationName"), Attribute::property(name))
}

/// Three stations, a road, a few odd things, and two days of history.
pub(crate) fn city() -> Arc<City> {
    let city = City::default();
    let geo = |json: Value| Attribute::new(AttributeValue::Geo(Geometry::from_json(json).unwrap()));
    let place = |lon: f64, lat: f64| geo(json!({"type": "Point", "coordinates": [lon, lat]}));
    city.put(station("gucheng", 120.5, "2014-01-02T00:00:00Z").with(Iri::known(LOCATION), place(116.2, 39.9)));
    let name = Attribute::new(AttributeValue::Language(
        [("zh".into(), json!("天坛")), ("en".into(), json!("Temple of Heaven"))].into_iter().collect(),
    ));
    city.put(station("tiantan", 38.0, "2014-01-02T01:00:00Z").with(Iri::known(LOCATION), place(116.4, 39.8)).with(iri("title"), name));
    city.put(station("dingling", 41.0, "2014-01-01T23:00:00Z").with(iri("calibrated"), Attribute::property(true)));

    let road = Entity::new(Iri::known("urn:ngsi-ld:Road:1"), iri("Road"))
        .with(Iri::known(LOCATION), geo(json!({"type": "LineString", "coordinates": [[116.0, 39.0], [116.2, 39.0]]})))
        .with(iri("id"), Attribute::property("clash"))
        .with(iri("lanes"), Attribute::property(2))
        .with(iri("refDevice"), Attribute::new(AttributeValue::Relationship(vec![Iri::known("urn:d:1"), Iri::known("urn:d:2")])))
        .with(Iri::known("urn:a:speed"), Attribute::property(50))
        .with(Iri::known("urn:b:speed"), Attribute::property(60));
    city.put(road);
    let second = Entity::new(Iri::known("urn:ngsi-ld:Road:2"), iri("Road")).with(iri("lanes"), Attribute::property("two"));
    city.put(second);

    for (i, hour) in (0..4).zip(["00", "01", "02", "03"]) {
        let observed = format!("2014-01-01T{hour}:00:00Z");
        for (station, base) in [("gucheng", 100.0), ("tiantan", 30.0)] {
            let id = format!("urn:ngsi-ld:AirQualityObserved:{station}");
            city.history.put("AirQualityObserved", &id, "pm25", json!(base + f64::from(i)), &observed, &observed);
        }
    }
    // A correction, three days later.
    let corrected = "urn:ngsi-ld:AirQualityObserved:gucheng";
    city.history.put("AirQualityObserved", corrected, "pm25", json!(0.5), "2014-01-01T03:00:00Z", "2014-01-04T00:00:00Z");
    city.history.put("AirQualityObserved", corrected, "note", json!({"why": "repair"}), "", "2014-01-04T00:00:00Z");
    // A sensor that was of another type and in another scope once, lost an attribute, and is gone.
    let sensor = |entity_type: &str, s: &str, what| {
        let (entity, recorded_at) = (Iri::known("urn:ngsi-ld:Sensor:1"), at(s));
        city.history.inner.append(vec![Fact { entity_type: iri(entity_type), entity, recorded_at, what }]);
    };
    let became = |types: &[&str], scope: &str| {
        let types = types.iter().map(|t| iri(t)).collect();
        What::Became(About { types, scopes: vec![scope.parse().unwrap()], created_at: at("2014-01-01T00:00:00Z"), expires_at: None })
    };
    let id = "urn:ngsi-ld:Sensor:1";
    for entity_type in ["Sensor", "Asset"] {
        sensor(entity_type, "2014-01-01T00:00:00Z", became(&["Sensor", "Asset"], "/north"));
    }
    city.history.put("Sensor", id, "level", json!(1), "", "2014-01-01T00:00:00Z");
    city.history.put("Sensor", id, "owner", json!("us"), "", "2014-01-01T00:00:00Z");
    sensor("Sensor", "2014-01-02T00:00:00Z", What::AttributeDeleted { name: iri("owner"), dataset_id: None });
    sensor("Probe", "2014-01-03T00:00:00Z", became(&["Probe"], "/south"));
    city.history.put("Probe", id, "level", json!(3), "", "2014-01-03T00:00:00Z");
    sensor("Probe", "2014-01-04T00:00:00Z", What::EntityDeleted);
    // Only a history, no entity.
    city.history.put("Gone", "urn:ngsi-ld:Gone:1", "x", json!(1), "2014-01-01T00:00:00Z", "2014-01-01T00:00:00Z");
    Arc::new(city)
}
