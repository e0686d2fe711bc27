//! The parameters of a request's URL.

use entity::{AggregationPeriod, Filter, Instant, Iri, Pattern, SortOrder, TypeSelector};

use super::order::OrderText;
use super::select::{GeoParameters, parse_ids, parse_scopes, parse_types};
use super::temporal::TemporalText;
use super::{Aggregation, Endpoint, QOptions, TemporalParams, endpoint, parse_q};
use crate::DEFAULT_INSTANCE;
use crate::context::Context;
use crate::error::{Error, Result, shown};
use crate::view::{DatasetId, Join, JoinStyle, LanguageRanges, Member, Representation, View};

/// How many entities a page has if the request does not say.
pub const LIMIT_DEFAULT: usize = 100;

/// The most entities in one page.
pub const LIMIT_MAX: usize = 1_000;

/// How far into a result a page may start: a reader of more uses a narrower question, or the bulk export.
pub const OFFSET_MAX: usize = 1_000_000;

/// How many relationships may be followed one behind the other.
pub const JOIN_LEVEL_MAX: usize = 10;

/// The most names in one list.
const NAMES_MAX: usize = 1_000;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryParams {
    /// Which entities: everything that was asked, as one condition.
    pub filter: Filter,
    /// The type selection in it, to find a place to start.
    pub types: Option<TypeSelector>,
    /// The ids in it.
    pub ids: Vec<Iri>,
    /// How they are shown.
    pub view: View,
    /// The most entities in the answer; 0 only together with `count`.
    pub limit: usize,
    /// How many entities come before the answer.
    pub offset: usize,
    /// The total is asked for.
    pub count: bool,
    /// In which order; none for that of ids.
    pub order: Option<SortOrder>,
    /// Only this node is asked.
    pub local: bool,
    /// Existing attributes are left (`options=noOverwrite`).
    pub no_overwrite: bool,
    /// Existing entities keep what is not mentioned (`options=update` of an upsert).
    pub update: bool,
    /// All instances are meant (`deleteAll`).
    pub delete_all: bool,
    /// Of the entities only these attributes go (`drop`), or all but these (`keep`); none: the entities themselves.
    pub purged: Option<PurgedAttributes>,
    /// Which sources (`csf` of a query in a body).
    pub csf: Option<String>,
    /// Which entities were found, and where, is asked for (`entityMap`).
    pub entity_map: bool,
    /// How long that is to be kept, µs (`entityMapLifetime`).
    pub entity_map_lifetime_us: Option<i64>,
    /// When what is merged was observed (`observedAt`).
    pub observed_at: Option<Instant>,
    /// Details are asked for (`details`).
    pub details: bool,
    /// The words that names must have (`text`).
    pub text: Option<String>,
    /// The temporal query.
    pub temporal: TemporalParams,
    /// As it was known at this recorded time (`asOf`, an extension of this node); none for now.
    pub as_of: Option<Instant>,
}

/// Which attributes are purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgedAttributes {
    /// The names.
    pub names: Vec<Iri>,
    /// They stay, and all others go.
    pub others: bool,
}

/// What selects entities, collected from the URL or a body before it becomes one condition.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// Types, ids and patterns.
    pub(super) entities: Option<Filter>,
    pub(super) types: Option<TypeSelector>,
    pub(super) ids: Vec<Iri>,
    pub(super) attrs: Option<Vec<Iri>>,
    pub(super) q: Option<String>,
    pub(super) scope_q: Option<String>,
    pub(super) geo: GeoParameters,
    pub(super) expand_values: Vec<Iri>,
    /// How many relationships `q` may follow.
    pub(super) link_levels: usize,
}

impl Selection {
    /// The condition, and whether it is narrow enough to be asked of all brokers (clause 5.7.2).
    pub(super) fn filter(&self, context: &Context) -> Result<(Filter, bool)> {
        let mut filter = self.entities.clone().unwrap_or_else(Filter::all);
        let mut narrow = self.types.as_ref().is_some_and(|t| *t != TypeSelector::Any) || self.attrs.is_some();
        if let Some(attrs) = &self.attrs {
            filter = filter.and(Filter::HasAnyOf(attrs.clone()));
        }
        if let Some(q) = &self.q {
            let q = parse_q(q, QOptions { context, expand_values: &self.expand_values, link_levels: self.link_levels })
                .map_err(|e| e.within("q"))?;
            narrow |= q.has_attribute;
            filter = filter.and(q.filter);
        }
        if let Some(scope_q) = &self.scope_q {
            filter = filter.and(parse_scopes(scope_q).map_err(|e| e.within("scopeQ"))?);
        }
        if let Some(condition) = self.geo.condition(context)? {
            narrow = true;
            filter = filter.and(Filter::Geo(condition));
        }
        Ok((filter, narrow))
    }
}

impl QueryParams {
    /// Reads `pairs`, percent-decoded, as a request to `endpoint` may have them.
    ///
    /// Errors: [`crate::ErrorKind::InvalidRequest`] for a parameter that is unknown (naming the nearest known one), given twice or not supported;
    /// [`crate::ErrorKind::BadRequestData`] for a wrong value, a limit that is exceeded, or a question that is too wide (clause 5.7.2).
    pub fn from_pairs(pairs: &[(String, String)], context: &Context, endpoint: Endpoint) -> Result<Self> {
        let known = endpoint.parameters();
        check_names(pairs, &known)?;
        let text = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let owned = |name: &str| text(name).map(str::to_owned);

        let mut selection = Selection {
            q: owned("q"),
            scope_q: owned("scopeQ"),
            geo: GeoParameters {
                georel: owned("georel"),
                geometry: owned("geometry"),
                coordinates: owned("coordinates"),
                geoproperty: owned("geoproperty"),
            },
            ..Selection::default()
        };
        entities_of(&mut selection, &text, context)?;
        if let Some(list) = text("expandValues") {
            selection.expand_values = names("expandValues", list, context)?;
        }
        if let Some(list) = text("jsonKeys") {
            // Our bracket paths address raw keys always, so that there is nothing to switch; the names are checked all the same.
            names("jsonKeys", list, context)?;
        }
        let mut params = Self::empty();
        params.view = view_of(&text, context, endpoint)?;
        selection.link_levels = params.view.join.as_ref().map_or(0, |j| j.levels);
        if endpoint.selects() {
            selection.attrs.clone_from(&params.view.attrs);
        }
        params.local = flag("local", text("local"))?.unwrap_or(false);
        if selection.types == Some(TypeSelector::Any) && text("local") == Some("false") {
            return Err(Error::bad("`*` asks this node only and contradicts local=false").within("parameter type"));
        }
        params.local |= selection.types == Some(TypeSelector::Any);
        params.temporal = temporal_of(&text).params().map_err(of_parameter)?;
        params.temporal.aggregation = aggregation_of(&text, endpoint)?;
        params.as_of = instant(endpoint::AS_OF, text(endpoint::AS_OF))?;
        params.observed_at = instant("observedAt", text("observedAt"))?;
        params.entity_map = flag("entityMap", text("entityMap"))?.unwrap_or(false);
        params.entity_map_lifetime_us =
            text("entityMapLifetime").map(lifetime_us).transpose().map_err(|e| e.within("parameter entityMapLifetime"))?;
        params.purged = match (text("drop"), text("keep")) {
            (None, None) => None,
            (Some(list), None) => Some(PurgedAttributes { names: attrs("drop", list, context)?, others: false }),
            (None, Some(list)) => Some(PurgedAttributes { names: attrs("keep", list, context)?, others: true }),
            (Some(_), Some(_)) => return Err(Error::invalid("goes without `keep`").within("parameter drop")),
        };
        if endpoint.needs_time() && params.temporal.interval.is_none() {
            return Err(Error::bad("a temporal query needs `timerel` and `timeAt`").within("parameter timerel"));
        }
        params.finish(&selection, context, endpoint.selects() && !endpoint.is_local()).map_err(of_parameter)?;
        let keys = text("orderBy").map(|l| l.split(',').map(str::to_owned).collect()).unwrap_or_default();
        let order = OrderText { keys, collation: owned("collation"), coordinates: owned("orderFrom"), geometry: owned("orderGeometry") };
        params.order(order.order(context).map_err(of_parameter)?).map_err(of_parameter)?;
        params.page(&text)?;
        params.options(text("options"), endpoint)?;
        params.delete_all = flag("deleteAll", text("deleteAll"))?.unwrap_or(false);
        params.details = flag("details", text("details"))?.unwrap_or(false);
        params.text = owned("text");
        Ok(params)
    }

    /// Asks for everything.
    pub(super) fn empty() -> Self {
        Self {
            filter: Filter::all(),
            types: None,
            ids: Vec::new(),
            view: View::default(),
            limit: LIMIT_DEFAULT,
            offset: 0,
            count: false,
            order: None,
            local: false,
            no_overwrite: false,
            update: false,
            delete_all: false,
            purged: None,
            csf: None,
            entity_map: false,
            entity_map_lifetime_us: None,
            observed_at: None,
            details: false,
            text: None,
            temporal: TemporalParams::default(),
            as_of: None,
        }
    }

    pub(super) fn finish(&mut self, selection: &Selection, context: &Context, must_be_narrow: bool) -> Result<()> {
        let (filter, narrow) = selection.filter(context)?;
        if must_be_narrow && !narrow && !self.local {
            return Err(Error::bad(
                "the question is too wide: name a type, an attribute (attrs or q) or a place (georel), or ask this node only (local=true)",
            ));
        }
        self.filter = filter;
        self.types.clone_from(&selection.types);
        self.ids.clone_from(&selection.ids);
        Ok(())
    }

    /// An order can only be kept by one node (clause 4.23).
    pub(super) fn order(&mut self, order: Option<SortOrder>) -> Result<()> {
        if order.is_some() && !self.local {
            return Err(Error::bad("an order is possible for this node alone (add local=true)").within("orderBy"));
        }
        self.order = order;
        Ok(())
    }

    fn page<'a>(&mut self, text: &dyn Fn(&str) -> Option<&'a str>) -> Result<()> {
        self.count = flag("count", text("count"))?.unwrap_or(false);
        if let Some(limit) = text("limit") {
            self.limit = number("limit", limit, LIMIT_MAX)?;
        }
        if let Some(offset) = text("offset") {
            self.offset = number("offset", offset, OFFSET_MAX)?;
        }
        if self.limit == 0 && !self.count {
            return Err(Error::bad("0 makes sense only together with count=true").within("parameter limit"));
        }
        Ok(())
    }

    fn options(&mut self, options: Option<&str>, endpoint: Endpoint) -> Result<()> {
        for word in options.into_iter().flat_map(|o| o.split(',')) {
            if !endpoint.options().contains(&word) {
                let expected = endpoint.options().join(", ");
                return Err(
                    Error::invalid(format!("`{}` is not an option here (expected {expected})", shown(word))).within("parameter options")
                );
            }
            match word {
                "noOverwrite" => self.no_overwrite = true,
                "update" => self.update = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The place of an error in the URL rather than in a body.
fn of_parameter(e: Error) -> Error {
    let at = if e.at.is_empty() { String::new() } else { format!("parameter {}", e.at) };
    Error { at, ..e }
}

fn check_names(pairs: &[(String, String)], known: &[&str]) -> Result<()> {
    for (i, (name, _)) in pairs.iter().enumerate() {
        let at = |e: Error| e.within(&format!("parameter {}", shown(name)));
        if !known.contains(&name.as_str()) {
            if endpoint::UNSUPPORTED.contains(&name.as_str()) {
                return Err(at(Error::invalid("is a parameter of NGSI-LD that this node does not support")));
            }
            // Far-off names are no help.
            let nearest = known.iter().map(|k| (strsim::damerau_levenshtein(k, name), k)).min().filter(|(distance, _)| *distance <= 3);
            return Err(at(Error::invalid(match nearest {
                Some((_, k)) => format!("is not a parameter here (did you mean `{k}`?)"),
                None if known.is_empty() => "is not a parameter here (there are none)".to_owned(),
                None => format!("is not a parameter here (expected {})", known.join(", ")),
            })));
        }
        if pairs[..i].iter().any(|(earlier, _)| earlier == name) {
            return Err(at(Error::invalid("given twice")));
        }
    }
    Ok(())
}

fn entities_of<'a>(selection: &mut Selection, text: &dyn Fn(&str) -> Option<&'a str>, context: &Context) -> Result<()> {
    let mut filter = Filter::all();
    if let Some(types) = text("type") {
        let types = parse_types(types, context).map_err(|e| e.within("parameter type"))?;
        filter = filter.and(Filter::Type(types.clone()));
        selection.types = Some(types);
    }
    if let Some(ids) = text("id") {
        selection.ids = parse_ids(ids).map_err(|e| e.within("parameter id"))?;
        filter = filter.and(Filter::Id(selection.ids.clone()));
    }
    if let Some(pattern) = text("idPattern") {
        filter = filter.and(Filter::IdPattern(id_pattern(pattern).map_err(|e| e.within("parameter idPattern"))?));
    }
    selection.entities = Some(filter);
    Ok(())
}

/// A pattern for ids; the whole id is not required to match (clause 5.2.33 asks for a regular expression and no more).
pub(crate) fn id_pattern(text: &str) -> Result<Pattern> {
    Pattern::new(text).map_err(|e| Error::bad(e.to_string().replace('\n', " ")))
}

fn view_of<'a>(text: &dyn Fn(&str) -> Option<&'a str>, context: &Context, endpoint: Endpoint) -> Result<View> {
    let mut view = View::default();
    for word in text("options").into_iter().flat_map(|o| o.split(',')) {
        match word {
            "sysAttrs" => view.sys_attrs = true,
            other => set_format(&mut view, other),
        }
    }
    // `format` wins over the deprecated options (clause 6.3.7).
    if let Some(format) = text("format") {
        if !endpoint.formats().contains(&format) {
            let expected = endpoint.formats().join(", ");
            return Err(
                Error::invalid(format!("`{}` is not a format here (expected {expected})", shown(format))).within("parameter format")
            );
        }
        (view.representation, view.temporal_values) = (Representation::Normalized, false);
        set_format(&mut view, format);
    }
    view.pick = text("pick").map(|list| members("pick", list, context)).transpose()?;
    view.omit = text("omit").map(|list| members("omit", list, context)).transpose()?.unwrap_or_default();
    view.attrs = text("attrs").map(|list| attrs("attrs", list, context)).transpose()?;
    view.lang = text("lang").map(LanguageRanges::parse).transpose().map_err(|e| e.within("parameter lang"))?;
    view.dataset_ids = text("datasetId").map(|l| dataset_ids(l.split(','))).transpose().map_err(|e| e.within("parameter datasetId"))?;
    view.geometry_property =
        text("geometryProperty").map(|name| context.expand(name)).transpose().map_err(|e| e.within("parameter geometryProperty"))?;
    let owned = |name: &str| text(name).map(str::to_owned);
    let contained_by = text("containedBy").map(|l| l.split(',').map(str::to_owned).collect());
    let join = JoinText { join: owned("join"), level: owned("joinLevel"), contained_by };
    view.join = join.join().map_err(of_parameter)?;
    // A body brings its own members and its own join.
    if endpoint != Endpoint::QueryByBody {
        check_reach(&view).map_err(of_parameter)?;
    }
    Ok(view)
}

fn set_format(view: &mut View, word: &str) {
    match word {
        "concise" => view.representation = Representation::Concise,
        "simplified" | "keyValues" => view.representation = Representation::Simplified,
        "temporalValues" => view.temporal_values = true,
        _ => {}
    }
}

/// Is an answer aggregated over periods asked for? `format` wins over the deprecated options, as everywhere.
///
/// Errors: the options contradict each other.
pub(super) fn wants_aggregation<'a>(text: &dyn Fn(&str) -> Option<&'a str>, endpoint: Endpoint) -> Result<bool> {
    const WORD: &str = "aggregatedValues";
    if !endpoint.is_temporal() {
        return Ok(false);
    }
    let has_option = |word: &str| text("options").is_some_and(|o| o.split(',').any(|w| w == word));
    match text("format") {
        Some(format) => Ok(format == WORD),
        None if has_option(WORD) && has_option("temporalValues") => {
            Err(Error::invalid("`temporalValues` and `aggregatedValues` exclude each other").within("parameter options"))
        }
        None => Ok(has_option(WORD)),
    }
}

fn aggregation_of<'a>(text: &dyn Fn(&str) -> Option<&'a str>, endpoint: Endpoint) -> Result<Option<Aggregation>> {
    let is_asked = wants_aggregation(text, endpoint)?;
    // A document has the methods itself.
    if endpoint == Endpoint::QueryTemporalByBody {
        return Ok(None);
    }
    match (is_asked, text("aggrMethods")) {
        (true, Some(methods)) => Aggregation::parse(methods.split(','), text("aggrPeriodDuration")).map(Some).map_err(of_parameter),
        (true, None) => Err(Error::bad("aggregated values need `aggrMethods`").within("parameter aggrMethods")),
        (false, _) => match ["aggrMethods", "aggrPeriodDuration"].into_iter().find(|name| text(name).is_some()) {
            Some(name) => Err(Error::bad("goes with format=aggregatedValues only").within(&format!("parameter {name}"))),
            None => Ok(None),
        },
    }
}

fn temporal_of<'a>(text: &dyn Fn(&str) -> Option<&'a str>) -> TemporalText {
    let owned = |name: &str| text(name).map(str::to_owned);
    TemporalText {
        timerel: owned("timerel"),
        time_at: owned("timeAt"),
        end_time_at: owned("endTimeAt"),
        timeproperty: owned("timeproperty"),
        last_n: owned("lastN"),
    }
}

/// A duration such as `PT5M`, in microseconds; a month counts as 30 days.
///
/// Errors: [`crate::ErrorKind::BadRequestData`].
pub fn lifetime_us(text: &str) -> Result<i64> {
    const MONTH_US: i64 = 30 * 86_400 * 1_000_000;
    match super::aggregation::duration(text) {
        Ok(AggregationPeriod::Micros(us)) => Ok(us),
        Ok(AggregationPeriod::Months(n)) => Ok(i64::from(n) * MONTH_US),
        Ok(AggregationPeriod::Whole) => Err(Error::bad("a lifetime is longer than nothing")),
        Err(what) => Err(Error::bad(format!("`{}` {what} (expected e.g. PT5M)", shown(text)))),
    }
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Instant>> {
    let parsed = text.map(|t| t.parse().map_err(|e: entity::InstantError| Error::bad(e.to_string())));
    parsed.transpose().map_err(|e| e.within(&format!("parameter {name}")))
}

fn flag(name: &str, text: Option<&str>) -> Result<Option<bool>> {
    match text {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => {
            Err(Error::invalid(format!("expected `true` or `false`, found `{}`", shown(other))).within(&format!("parameter {name}")))
        }
    }
}

fn number(name: &str, text: &str, max: usize) -> Result<usize> {
    let at = |e: Error| e.within(&format!("parameter {name}"));
    match text.parse::<usize>() {
        Ok(n) if n <= max => Ok(n),
        Ok(n) => Err(at(Error::bad(format!("{n} is more than the limit of {max}")))),
        Err(_) => Err(at(Error::bad(format!("expected a number from 0 to {max}, found `{}`", shown(text))))),
    }
}

/// Expands the names of a list.
pub(crate) fn name_list<'a>(list: impl Iterator<Item = &'a str>, context: &Context) -> Result<Vec<Iri>> {
    let names: Vec<Iri> = list.map(|name| context.expand(name)).collect::<Result<_>>()?;
    if names.len() > NAMES_MAX {
        return Err(Error::bad(format!("{} names are more than the limit of {NAMES_MAX}", names.len())));
    }
    Ok(names)
}

fn names(parameter: &str, list: &str, context: &Context) -> Result<Vec<Iri>> {
    name_list(list.split(','), context).map_err(|e| e.within(&format!("parameter {parameter}")))
}

/// The attributes of a parameter that takes no plain members, such as the deprecated `attrs` (clause 5.7.1).
fn attrs(parameter: &str, list: &str, context: &Context) -> Result<Vec<Iri>> {
    if let Some(plain) = list.split(',').find(|n| matches!(*n, "id" | "type" | "scope")) {
        return Err(Error::bad(format!("`{plain}` is not an attribute (use pick)")).within(&format!("parameter {parameter}")));
    }
    names(parameter, list, context)
}

/// The members of a `pick` or `omit` list; `relationship{…}` names members of linked entities.
pub(crate) fn member_list<'a>(list: impl Iterator<Item = &'a str>, context: &Context) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for text in list {
        member(text, context, &mut members, 0)?;
    }
    if members.len() > NAMES_MAX {
        return Err(Error::bad(format!("{} names are more than the limit of {NAMES_MAX}", members.len())));
    }
    Ok(members)
}

fn member(text: &str, context: &Context, members: &mut Vec<Member>, depth: usize) -> Result<()> {
    members.push(match text {
        "id" => Member::Id,
        "type" => Member::Type,
        "scope" => Member::Scope,
        nested if nested.contains(['{', '}']) => {
            let wrong = || Error::bad(format!("`{}` is not a list of members (expected e.g. `a,relationship{{b,c}}`)", shown(nested)));
            let (relationship, inner) = nested.strip_suffix('}').and_then(|n| n.split_once('{')).ok_or_else(wrong)?;
            if depth >= JOIN_LEVEL_MAX {
                return Err(Error::bad(format!("members of linked entities are nested more than {JOIN_LEVEL_MAX} deep")));
            }
            let mut list = Vec::new();
            for text in split_members(inner).ok_or_else(wrong)? {
                member(text, context, &mut list, depth + 1)?;
            }
            Member::Linked(context.expand(relationship)?, list)
        }
        name => Member::Attribute(context.expand(name)?),
    });
    Ok(())
}

/// Splits at `,` and `|` outside of braces; none if the braces do not match.
fn split_members(list: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            ',' | '|' if depth == 0 => {
                parts.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    (depth == 0).then_some(parts)
}

fn members(parameter: &str, list: &str, context: &Context) -> Result<Vec<Member>> {
    let at = |e: Error| e.within(&format!("parameter {parameter}"));
    let parts = split_members(list).ok_or_else(|| at(Error::bad(format!("the braces of `{}` do not match", shown(list)))))?;
    member_list(parts.into_iter(), context).map_err(at)
}

/// `join`, `joinLevel` and `containedBy` (clause 4.5.23).
pub(super) struct JoinText {
    pub(super) join: Option<String>,
    pub(super) level: Option<String>,
    pub(super) contained_by: Option<Vec<String>>,
}

impl JoinText {
    pub(super) fn join(self) -> Result<Option<Join>> {
        let style = match self.join.as_deref() {
            None | Some("@none") => None,
            Some("flat") => Some(JoinStyle::Flat),
            Some("inline") => Some(JoinStyle::Inline),
            Some(other) => {
                return Err(Error::bad(format!("expected flat, inline or @none, found `{}`", shown(other))).within("join"));
            }
        };
        let levels = match self.level.as_deref().map(|l| (l, l.parse::<usize>())) {
            None => 1,
            Some((_, Ok(n))) if (1..=JOIN_LEVEL_MAX).contains(&n) => n,
            Some((found, _)) => {
                let what = format!("expected a number from 1 to {JOIN_LEVEL_MAX}, found `{}`", shown(found));
                return Err(Error::bad(what).within("joinLevel"));
            }
        };
        let contained_by = self.contained_by.unwrap_or_default();
        let ids = contained_by.iter().map(|id| id.parse().map_err(|e: entity::IriError| Error::bad(e.to_string())));
        let contained_by = ids.collect::<Result<Vec<Iri>>>().map_err(|e| e.within("containedBy"))?;
        if style.is_none() && self.level.is_some() {
            return Err(Error::bad("goes with `join` only").within("joinLevel"));
        }
        Ok(style.map(|style| Join { style, levels, contained_by }))
    }
}

/// `join` and `joinLevel` of a subscription.
pub(crate) fn join_of(join: Option<String>, level: Option<String>) -> Result<Option<Join>> {
    JoinText { join, level, contained_by: None }.join()
}

/// Members of linked entities need a join that reaches them (clauses 5.7.1.4 and 5.7.2.4).
pub(crate) fn check_reach(view: &View) -> Result<()> {
    let levels = view.join.as_ref().map_or(0, |j| j.levels);
    let deepest = |list: &[Member]| list.iter().map(Member::link_depth).max().unwrap_or_default();
    for (name, list) in [("pick", view.pick.as_deref().unwrap_or_default()), ("omit", view.omit.as_slice())] {
        if deepest(list) > levels {
            return Err(Error::bad(format!("goes along {} relationships, and joinLevel is {levels}", deepest(list))).within(name));
        }
    }
    Ok(())
}

/// Instances by `datasetId`; `@none` is the default one.
pub(crate) fn dataset_ids<'a>(list: impl Iterator<Item = &'a str>) -> Result<Vec<DatasetId>> {
    list.map(|id| match id {
        DEFAULT_INSTANCE => Ok(None),
        uri => uri.parse().map(Some).map_err(|e: entity::IriError| Error::bad(e.to_string())),
    })
    .collect()
}
