//! The past of an entity, aggregated over periods.
//!
//! Numbers are aggregated by the history itself, from its columns and roll-ups. What needs more than numbers (text, relationships, different
//! values, times of recording) is computed here from the instances.

use std::collections::BTreeMap;
use std::ops::Range;

use entity::{AggregationMethod as Method, AggregationPeriod as Period, Attribute, AttributeValue, Instant, Iri, Value};
use policy::{Action, Permit, Principal};
use store::history::{
    AggregateQuery, Aggregates, Bucket, Cell, ColumnKind, Evolution, History, HistoryScan, Measure, TemporalQuery, TimeProperty,
};
use store::state::Space;

use crate::error::NodeError;
use crate::node::Node;
use crate::temporal_methods::{compute, number};

/// Periods of one attribute in one answer.
pub const PERIODS_MAX: usize = 100_000;

/// A question about an entity's past over periods. They begin at the start of the interval, or with the first value if it has none.
#[derive(Clone, PartialEq, Debug)]
pub struct PeriodQuery {
    /// Which values.
    pub temporal: TemporalQuery,
    /// Only instances with these `datasetId`s (none: the default one); all if none are given.
    pub datasets: Option<Vec<Option<Iri>>>,
    /// What is computed.
    pub methods: Vec<Method>,
    /// Over which periods.
    pub period: Period,
}

/// The answer for one attribute.
#[derive(Clone, PartialEq, Debug)]
pub struct PeriodValues {
    /// The attribute.
    pub name: Iri,
    /// It is a relationship.
    pub is_relationship: bool,
    /// What each method gives that makes sense for its values.
    pub series: Vec<(Method, PeriodSeries)>,
}

/// Value, start and end of each period that has values, in the order of time.
pub type PeriodSeries = Vec<(Value, Instant, Instant)>;

impl Node {
    /// An entity's past over periods, and its type then. Attributes without a value in the interval are absent.
    ///
    /// Errors: the entity is unknown; none of the methods makes sense for an attribute that was asked for; there are more than
    /// [`PERIODS_MAX`] periods, or more instances than the question allows.
    pub fn evolution_over_periods(&self, who: &Principal, query: &PeriodQuery) -> Result<(Iri, Vec<PeriodValues>), NodeError> {
        if !matches!(self.permit(who, Action::Read, None)?, Permit::Everything) {
            return Err(NodeError::Denied { reason: "another city's questions come through the exchange between nodes".to_owned() });
        }
        let history = self.store.history();
        let id = &query.temporal.entity;
        let nothing = TemporalQuery { attributes: Some(Vec::new()), interval: None, last_n: None, ..query.temporal.clone() };
        let from_history = || history.evolution(&nothing)?.map(|e| e.entity_type).ok_or_else(|| NodeError::NoEntity { id: id.clone() });
        // Of an entity that is there the type is known without a look into the files.
        let present = if query.temporal.as_of.is_none() { self.store.table(Space::City).try_get(id.as_str())? } else { None };
        let entity_type = present.as_deref().and_then(|e| e.types.first().cloned()).map_or_else(from_history, Ok)?;
        let mut others = history.tables().into_iter().filter(|t| t.entity_type != entity_type);
        let mut answer = if others.try_fold(false, |found, t| Ok::<_, NodeError>(found || has_rows(history, &t.entity_type, id)?))? {
            // Another table has values from when it was of another type.
            history.evolution(&query.temporal)?.map_or_else(|| Ok(Vec::new()), |evolution| over_periods(query, &evolution))?
        } else {
            periods_in(history, query, &entity_type)?
        };
        answer.sort_by(|a, b| a.name.cmp(&b.name));
        // Has it a past at all?
        let entity_type = if answer.is_empty() && present.is_some() { from_history()? } else { entity_type };
        Ok((entity_type, answer))
    }
}

/// Has the table of a type values of an entity?
pub(crate) fn has_rows(history: &dyn History, entity_type: &Iri, id: &Iri) -> Result<bool, NodeError> {
    let entities = Some(vec![id.clone()]);
    let scan = HistoryScan { entity_type: entity_type.clone(), attributes: Vec::new(), entities, observed: None, as_of: None };
    for batch in history.stream(&scan)? {
        if batch?.num_rows() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The periods of an entity in the table of a type.
fn periods_in(history: &dyn History, query: &PeriodQuery, entity_type: &Iri) -> Result<Vec<PeriodValues>, NodeError> {
    let table = history.tables().into_iter().find(|t| t.entity_type == *entity_type);
    let is_wanted = |name: &Iri| query.temporal.attributes.as_ref().is_none_or(|list| list.contains(name));
    let (numbers, others): (Vec<_>, Vec<_>) =
        table.into_iter().flat_map(|t| t.columns).filter(|c| is_wanted(&c.name)).partition(|c| c.kind == ColumnKind::Number);
    let names = |columns: Vec<store::history::AttributeColumn>| columns.into_iter().map(|c| c.name).collect::<Vec<_>>();
    let (mut numbers, mut others) = (names(numbers), names(others));
    if !query.is_for_columns() {
        others.append(&mut numbers);
    }
    let mut answer = Vec::new();
    if !numbers.is_empty() {
        answer.extend(columns_over_periods(query, entity_type, numbers, &|q| Ok(history.aggregate(q)?))?);
    }
    if !others.is_empty() {
        let instances = TemporalQuery { attributes: Some(others), ..query.temporal.clone() };
        if let Some(evolution) = history.evolution(&instances)? {
            answer.extend(over_periods(query, &evolution)?);
        }
    }
    Ok(answer)
}

/// What the history computes for a method; none if it takes more than numbers.
const fn measure_of(method: Method) -> Option<Measure> {
    Some(match method {
        Method::TotalCount => Measure::Count,
        Method::DistinctCount => return None,
        Method::Sum => Measure::Sum,
        Method::Avg => Measure::Mean,
        Method::Min => Measure::Min,
        Method::Max => Measure::Max,
        Method::StdDev => Measure::StandardDeviation,
        Method::SumSq => Measure::SumOfSquares,
    })
}

impl PeriodQuery {
    /// Do the columns of the history have all that is asked?
    fn is_for_columns(&self) -> bool {
        self.temporal.time_property == TimeProperty::ObservedAt
            && self.temporal.last_n.is_none()
            && self.datasets.is_none()
            && self.methods.iter().all(|m| measure_of(*m).is_some())
    }

    fn bucket(&self, origin: Instant) -> Bucket {
        match self.period {
            Period::Whole => Bucket::Whole,
            Period::Micros(width_us) => Bucket::Width { width_us, origin },
            Period::Months(months) => Bucket::Months { months, origin, offset_s: 0 },
        }
    }

    fn check_periods(n_periods: usize) -> Result<(), NodeError> {
        if n_periods <= PERIODS_MAX {
            return Ok(());
        }
        let what = format!("the answer has more than {PERIODS_MAX} periods, which is the limit; ask for longer ones or a shorter interval");
        Err(NodeError::Limit { what })
    }
}

/// The interval of the question where it has ends, and of the values where it has none.
fn bounds(query: &PeriodQuery, values: &Range<Instant>) -> Range<Instant> {
    let asked = query.temporal.interval.clone().unwrap_or(Instant::MIN..Instant::MAX);
    let start = if asked.start > Instant::MIN { asked.start } else { values.start };
    start..if asked.end < Instant::MAX { asked.end } else { values.end }
}

/// Start and end of the period that `at` is in.
fn period_of(query: &PeriodQuery, bounds: &Range<Instant>, at: Instant) -> (Instant, Instant) {
    let range = query.bucket(bounds.start).of(at.micros(), Some(bounds));
    let end = Instant::from_micros(range.end);
    let asked_end = query.temporal.interval.as_ref().map_or(Instant::MAX, |i| i.end);
    (Instant::from_micros(range.start), if query.period == Period::Whole { bounds.end } else { end.min(asked_end) })
}

fn columns_over_periods(
    query: &PeriodQuery,
    entity_type: &Iri,
    attributes: Vec<Iri>,
    ask: &dyn Fn(&AggregateQuery) -> Result<Aggregates, NodeError>,
) -> Result<Vec<PeriodValues>, NodeError> {
    let n_attributes = attributes.len();
    let whole = AggregateQuery {
        entity_type: entity_type.clone(),
        attributes,
        entities: Some(vec![query.temporal.entity.clone()]),
        observed: query.temporal.interval.clone(),
        bucket: Bucket::Whole,
        per_entity: false,
        measures: vec![Measure::FirstAt, Measure::LastAt],
        as_of: query.temporal.as_of,
    };
    // Only where the question has no ends does it matter where the values have them.
    let is_open = whole.observed.as_ref().is_none_or(|i| i.start == Instant::MIN || i.end == Instant::MAX);
    let mut values = Instant::MAX..Instant::MIN;
    if is_open {
        let answer = ask(&whole)?;
        for i in 0..n_attributes {
            for cell in answer.cells(1 + 2 * i) {
                values.start = values.start.min(time_of(cell).unwrap_or(Instant::MAX));
            }
            for cell in answer.cells(2 + 2 * i) {
                values.end = values.end.max(time_of(cell).unwrap_or(Instant::MIN));
            }
        }
        if values.start > values.end {
            return Ok(Vec::new());
        }
    }
    let bounds = bounds(query, &values);
    let measures: Vec<Measure> = query.methods.iter().filter_map(|m| measure_of(*m)).chain([Measure::FirstAt]).collect();
    let answer = ask(&AggregateQuery { bucket: query.bucket(bounds.start), measures: measures.clone(), ..whole.clone() })?;
    PeriodQuery::check_periods(answer.n_rows())?;
    let mut all: Vec<PeriodValues> = Vec::new();
    for (i, name) in whole.attributes.iter().enumerate() {
        let first = 1 + i * measures.len();
        let times = answer.cells(first + measures.len() - 1);
        let series: Vec<(Method, PeriodSeries)> = query
            .methods
            .iter()
            .enumerate()
            .map(|(m, method)| {
                let cells = answer.cells(first + m).into_iter().zip(&times);
                let of_period = |(cell, at): (Option<Cell>, &Option<Cell>)| {
                    let (start, end) = period_of(query, &bounds, time_of(*at)?);
                    Some((value_of(cell?), start, end))
                };
                (*method, cells.filter_map(of_period).collect())
            })
            .collect();
        if series.iter().any(|(_, list)| !list.is_empty()) {
            all.push(PeriodValues { name: name.clone(), is_relationship: false, series });
        }
    }
    Ok(all)
}

fn time_of(cell: Option<Cell>) -> Option<Instant> {
    match cell {
        Some(Cell::Time(at)) => Some(at),
        _ => None,
    }
}

fn value_of(cell: Cell) -> Value {
    match cell {
        Cell::Count(n) => Value::from(n),
        Cell::Number(x) => number(x),
        Cell::Time(at) => Value::from(at.to_string()),
    }
}

/// The same from the instances of an evolution.
///
/// Errors: the evolution was cut; none of the methods makes sense for an attribute that is named; too many periods.
pub fn over_periods(query: &PeriodQuery, evolution: &Evolution) -> Result<Vec<PeriodValues>, NodeError> {
    if evolution.cut_at.is_some() {
        let what = format!(
            "the interval has more than {} instances of attributes that are not plain numbers; ask for a shorter one or fewer attributes",
            query.temporal.instances_max
        );
        return Err(NodeError::Limit { what });
    }
    let time = |a: &Attribute| match query.temporal.time_property {
        TimeProperty::ObservedAt => a.observed_at,
        TimeProperty::CreatedAt => Some(a.created_at),
        TimeProperty::ModifiedAt => Some(a.modified_at),
    };
    let is_shown = |a: &&Attribute| query.datasets.as_ref().is_none_or(|list| list.contains(&a.dataset_id));
    let timed: BTreeMap<&Iri, Vec<(Instant, &Attribute)>> = evolution
        .attributes
        .iter()
        .map(|(name, list)| (name, list.iter().filter(is_shown).filter_map(|a| Some((time(a)?, a))).collect::<Vec<_>>()))
        .filter(|(_, list)| !list.is_empty())
        .collect();
    let times = || timed.values().flatten().map(|(at, _)| *at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
    let bounds = bounds(query, &(first..last));
    let mut answer = Vec::new();
    for (name, mut list) in timed {
        list.sort_by_key(|(at, _)| *at);
        let mut periods: Vec<((Instant, Instant), Vec<&Attribute>)> = Vec::new();
        for (at, value) in list {
            let period = period_of(query, &bounds, at);
            match periods.last_mut().filter(|(known, _)| *known == period) {
                Some((_, values)) => values.push(value),
                None => periods.push((period, vec![value])),
            }
        }
        PeriodQuery::check_periods(periods.len())?;
        let series: Vec<(Method, PeriodSeries)> = query
            .methods
            .iter()
            .map(|method| {
                let of_period = |((start, end), values): &((Instant, Instant), Vec<&Attribute>)| {
                    compute(*method, values).map(|value| (value, *start, *end))
                };
                (*method, periods.iter().filter_map(of_period).collect::<PeriodSeries>())
            })
            .filter(|(_, list)| !list.is_empty())
            .collect();
        if series.is_empty() {
            // Of what was not named, what makes no sense is left out.
            if query.temporal.attributes.is_none() {
                continue;
            }
            return Err(NodeError::NoMethod { name: name.clone() });
        }
        let is_relationship = periods.iter().flat_map(|(_, values)| values).all(|a| is_relationship(&a.value));
        answer.push(PeriodValues { name: name.clone(), is_relationship, series });
    }
    Ok(answer)
}

const fn is_relationship(value: &AttributeValue) -> bool {
    matches!(value, AttributeValue::Relationship(_) | AttributeValue::ListRelationship(_))
}

#[cfg(test)]
#[path = "temporal_tests.rs"]
mod tests;
