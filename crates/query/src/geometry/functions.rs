//! The functions that are usual in PostGIS, with its names and meanings.
//!
//! All are strict: a null argument makes the answer null. A geometry may also be given as text (WKT, or EWKB in hexadecimal digits), as PostGIS
//! reads a literal. Two geometries with different known reference systems are an error, not a wrong number.

use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Float64Array, Float64Builder, Int64Builder, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, exec_err, internal_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use geo::relate::IntersectionMatrix;
use geo::{BoundingRect, Contains, ConvexHull, CoordsIter, Geometry, HasDimensions, Intersects, Point, Rect, Relate};
use serde_json::{Value as Json, json};

use super::adapter::Adapter;
use super::measure::{self, Earth};
use super::written::{box_of, is_hex, split_srid};
use super::{Reference, WGS84, geohash, wkb, wrong};
use crate::catalog::{GEOGRAPHY_OID, GEOMETRY_OID};
use crate::floats;

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Shape,
    Number,
    Text,
    Flag,
}

/// What an answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// A geometry with this way to find its reference system.
    Shape(Srid),
    Number,
    Whole,
    Flag,
    Text,
    Bytes,
}

/// Where the reference system of an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Srid {
    /// The first geometry among the arguments.
    Same,
    /// The argument at this position if it is given, else the first geometry, else none.
    Given(usize),
    /// Always WGS 84.
    Wgs84,
    /// WGS 84 unless the geometry has another, measured on the Earth.
    Earth,
    /// That of the geometry, measured in the plane; or the argument at position 1.
    Plane,
}

/// One value.
enum Value {
    Null,
    Shape(Geometry<f64>),
    Number(f64),
    Whole(i64),
    Flag(bool),
    Text(String),
    Bytes(Vec<u8>),
}

/// A geometry with its box, which answers most questions at once.
#[derive(Clone, Debug)]
struct Shape {
    geometry: Geometry<f64>,
    /// None if it is empty.
    rect: Option<Rect<f64>>,
}

impl Shape {
    fn new(geometry: Geometry<f64>) -> Self {
        let rect = geometry.bounding_rect();
        Self { geometry, rect }
    }
}

/// The values of one argument; a constant is read once.
enum Argument {
    Shapes { values: Vec<Option<Shape>>, constant: bool },
    Numbers { values: Float64Array, constant: bool },
    Texts { values: StringArray, constant: bool },
}

/// A call over some rows.
struct Call {
    arguments: Vec<Argument>,
    /// The reference systems of the geometries among the arguments, in their order.
    references: Vec<Reference>,
    /// The reference system of the answer.
    to: Reference,
}

impl Call {
    /// Measured on the Earth?
    fn on_earth(&self) -> bool {
        self.references.iter().any(|r| r.on_earth)
    }

    fn is_null(&self, row: usize) -> bool {
        self.arguments.iter().any(|a| match a {
            Argument::Shapes { values, constant } => values[if *constant { 0 } else { row }].is_none(),
            Argument::Numbers { values, constant } => values.is_null(if *constant { 0 } else { row }),
            Argument::Texts { values, constant } => values.is_null(if *constant { 0 } else { row }),
        })
    }

    /// The shape at a position that is one, in a row without nulls.
    fn shape(&self, i: usize, row: usize) -> Result<&Shape> {
        match self.arguments.get(i) {
            Some(Argument::Shapes { values, constant }) => {
                values[if *constant { 0 } else { row }].as_ref().ok_or_else(|| internal_datafusion_err!("a null was not left out"))
            }
            _ => Err(internal_datafusion_err!("argument {i} is no geometry")),
        }
    }

    fn geometry(&self, i: usize, row: usize) -> Result<&Geometry<f64>> {
        Ok(&self.shape(i, row)?.geometry)
    }

    fn number(&self, i: usize, row: usize) -> Result<f64> {
        match self.arguments.get(i) {
            Some(Argument::Numbers { values, constant }) => Ok(values.value(if *constant { 0 } else { row })),
            _ => Err(internal_datafusion_err!("argument {i} is no number")),
        }
    }

    fn text(&self, i: usize, row: usize) -> Result<&str> {
        match self.arguments.get(i) {
            Some(Argument::Texts { values, constant }) => Ok(values.value(if *constant { 0 } else { row })),
            _ => Err(internal_datafusion_err!("argument {i} is no text")),
        }
    }

    fn has(&self, i: usize) -> bool {
        i < self.arguments.len()
    }
}

type Compute = fn(&Call, usize) -> Result<Value>;

/// A row of the table of functions.
struct Described {
    name: &'static str,
    aliases: &'static [&'static str],
    kinds: &'static [Kind],
    /// How many of the arguments have to be given.
    n_needed: usize,
    answer: Answer,
    compute: Compute,
}

/// All functions; those over well-known text ask the adapter to read and write it.
pub(super) fn all(text: &Arc<Adapter>) -> Vec<ScalarUDF> {
    TABLE.iter().map(|described| ScalarUDF::from(Function::new(described, text.clone()))).collect()
}

/// The arguments and the answer of one of them, as numbers of types in `pg_type`; none if the function is not one of these.
pub(super) fn signature_of(name: &str) -> Option<(Vec<i32>, i32)> {
    let (number, whole, text, flag, bytes) = (701, 20, 25, 16, 17);
    let described = find(name)?;
    let argument = |kind: &Kind| match kind {
        Kind::Shape => GEOMETRY_OID,
        Kind::Number => number,
        Kind::Text => text,
        Kind::Flag => flag,
    };
    let answer = match described.answer {
        Answer::Shape(Srid::Earth) => GEOGRAPHY_OID,
        Answer::Shape(_) => GEOMETRY_OID,
        Answer::Number => number,
        Answer::Whole => whole,
        Answer::Flag => flag,
        Answer::Text => text,
        Answer::Bytes => bytes,
    };
    Some((described.kinds.iter().map(argument).collect(), answer))
}

/// What the arguments of one of our functions are; none if it is not one of these.
pub(super) fn argument_kinds(name: &str) -> Option<&'static [Kind]> {
    find(name).map(|d| d.kinds)
}

/// Which argument of one of our functions is the number of a reference system, if one is.
pub(super) fn reference_argument(name: &str) -> Option<usize> {
    match find(name)?.answer {
        Answer::Shape(Srid::Given(i)) => Some(i),
        Answer::Shape(Srid::Plane) => Some(1),
        _ => None,
    }
}

fn find(name: &str) -> Option<&'static Described> {
    TABLE.iter().find(|d| d.name == name || d.aliases.contains(&name))
}

struct Function {
    described: &'static Described,
    aliases: Vec<String>,
    signature: Signature,
    text: Arc<Adapter>,
}

impl Function {
    fn new(described: &'static Described, text: Arc<Adapter>) -> Self {
        let n_arguments: RangeInclusive<usize> = described.n_needed..=described.kinds.len();
        let signature = Signature::one_of(n_arguments.map(TypeSignature::Any).collect(), Volatility::Immutable);
        Self { described, aliases: described.aliases.iter().map(|&a| a.to_owned()).collect(), signature, text }
    }

    /// The geometries of an argument.
    fn shapes(&self, column: &ArrayRef) -> Result<(Vec<Option<Shape>>, Option<i32>)> {
        let mut srid = None;
        let column = match column.data_type() {
            DataType::Binary => column.clone(),
            DataType::LargeBinary | DataType::BinaryView => cast(column, &DataType::Binary)?,
            DataType::Null => return Ok((vec![None; column.len()], None)),
            _ => {
                let texts = cast(column, &DataType::Utf8)?;
                let texts = texts.as_string::<i32>();
                let (bytes, found) = self.bytes_of_texts(texts)?;
                srid = found;
                bytes
            }
        };
        let mut shapes = Vec::with_capacity(column.len());
        for bytes in column.as_binary::<i32>() {
            shapes.push(match bytes {
                None => None,
                Some(bytes) => {
                    let (geometry, own) = wkb::read(bytes).map_err(wrong)?;
                    srid = srid.or(own);
                    Some(Shape::new(geometry))
                }
            });
        }
        Ok((shapes, srid))
    }

    /// Geometries written as people and PostGIS write them: WKT, EWKT (`SRID=4326;POINT(1 2)`), or EWKB in hexadecimal digits.
    fn bytes_of_texts(&self, texts: &StringArray) -> Result<(ArrayRef, Option<i32>)> {
        let mut srid = None;
        let mut plain = Vec::with_capacity(texts.len());
        for text in texts {
            plain.push(match text {
                Some(text) if !is_hex(text.trim()) && box_of(text).is_none() => {
                    let (own, rest) = split_srid(text)?;
                    srid = srid.or(own);
                    Some(rest)
                }
                _ => None,
            });
        }
        let read = self.text.wkb_of_text(&StringArray::from(plain)).map_err(|e| wrong(e.find_root().message()))?;
        let mut builder = BinaryBuilder::new();
        for (i, text) in texts.iter().enumerate() {
            match text {
                None => builder.append_null(),
                Some(text) if let Some(corners) = box_of(text) => {
                    builder.append_value(wkb::write(&Geometry::Polygon(corners.to_polygon())));
                }
                Some(text) if is_hex(text.trim()) => builder.append_value(wkb::from_hex(text.trim()).map_err(wrong)?),
                Some(_) => builder.append_value(read.value(i)),
            }
        }
        Ok((Arc::new(builder.finish()), srid))
    }

    fn argument(&self, kind: Kind, value: &ColumnarValue) -> Result<(Argument, Option<i32>)> {
        let (column, constant) = match value {
            ColumnarValue::Scalar(scalar) => (scalar.to_array_of_size(1)?, true),
            ColumnarValue::Array(column) => (column.clone(), false),
        };
        Ok(match kind {
            Kind::Shape => {
                let (values, srid) = self.shapes(&column)?;
                (Argument::Shapes { values, constant }, srid)
            }
            Kind::Number | Kind::Flag => {
                let flags = column.data_type() == &DataType::Utf8 && kind == Kind::Flag;
                let column = if flags { cast(&column, &DataType::Boolean)? } else { column };
                let numbers = cast(&column, &DataType::Float64)?;
                (Argument::Numbers { values: numbers.as_primitive().clone(), constant }, None)
            }
            Kind::Text => {
                let texts = cast(&column, &DataType::Utf8)?;
                (Argument::Texts { values: texts.as_string::<i32>().clone(), constant }, None)
            }
        })
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.described.name).finish()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.described.name == other.described.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.described.name.hash(state);
    }
}

fn whole(value: &ScalarValue) -> Option<i32> {
    let ScalarValue::Int64(number) = value.cast_to(&DataType::Int64).ok()? else { return None };
    number?.try_into().ok()
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.described.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.described.answer {
            Answer::Shape(_) | Answer::Bytes => DataType::Binary,
            Answer::Number => DataType::Float64,
            Answer::Whole => DataType::Int64,
            Answer::Flag => DataType::Boolean,
            Answer::Text => DataType::Utf8,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        for (field, kind) in args.arg_fields.iter().zip(self.described.kinds) {
            use DataType as T;
            let fits = match (kind, field.data_type()) {
                (_, T::Null | T::Utf8 | T::LargeUtf8 | T::Utf8View) => true,
                (Kind::Shape, t) => matches!(t, T::Binary | T::LargeBinary | T::BinaryView),
                (Kind::Number, t) => t.is_numeric(),
                (Kind::Flag, t) => matches!(t, T::Boolean),
                (Kind::Text, _) => false,
            };
            if !fits {
                let expected = match kind {
                    Kind::Shape => "a geometry",
                    Kind::Number => "a number",
                    Kind::Flag => "a truth value",
                    Kind::Text => "a text",
                };
                return plan_err!("{}: `{}` is {} (expected {expected})", self.name(), field.name(), field.data_type());
            }
        }
        let Answer::Shape(from) = self.described.answer else {
            return Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, true)));
        };
        let first = args.arg_fields.iter().find_map(|f| Reference::of(f)).unwrap_or_default();
        // What is no constant yet may be a parameter: see `settle`, which refuses everything else.
        let given = |i: usize| match args.scalar_arguments.get(i) {
            Some(Some(scalar)) => match whole(scalar) {
                Some(srid) => Ok(Some(srid)),
                None if scalar.is_null() => Ok(Some(0)),
                None => {
                    plan_err!("{}: `{scalar}` is not the number of a reference system (expected a whole number, such as 4326)", self.name())
                }
            },
            Some(None) => Ok(Some(0)),
            None => Ok(None),
        };
        // Of a text, or of bytes, that name their own.
        let written = || {
            let scalar = args.scalar_arguments.first().copied().flatten()?;
            match scalar {
                ScalarValue::Binary(Some(bytes)) => wkb::read(bytes).ok()?.1,
                _ => {
                    let text = scalar.try_as_str().flatten()?.trim();
                    if is_hex(text) { wkb::read(&wkb::from_hex(text).ok()?).ok()?.1 } else { split_srid(text).ok()?.0 }
                }
            }
        };
        let plain = if first.srid == 0 { written().unwrap_or(0) } else { first.srid };
        let reference = match from {
            Srid::Same => Reference { srid: plain, ..first },
            Srid::Given(i) => Reference { srid: given(i)?.unwrap_or(plain), ..first },
            Srid::Wgs84 => Reference { srid: WGS84, on_earth: false },
            Srid::Earth => Reference { srid: if plain == 0 { WGS84 } else { plain }, on_earth: true },
            Srid::Plane => Reference { srid: given(1)?.unwrap_or(plain), on_earth: false },
        };
        Ok(Arc::new(reference.field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut call = Call { arguments: Vec::new(), references: Vec::new(), to: Reference::of(&args.return_field).unwrap_or_default() };
        for ((value, field), kind) in args.args.iter().zip(&args.arg_fields).zip(self.described.kinds) {
            let (argument, own_srid) = self.argument(*kind, value)?;
            if *kind == Kind::Shape {
                let mut reference = Reference::of(field).unwrap_or_default();
                if reference.srid == 0 {
                    reference.srid = own_srid.unwrap_or(0);
                }
                call.references.push(reference);
            }
            call.arguments.push(argument);
        }
        let mut known = call.references.iter().map(|r| r.srid).filter(|&srid| srid != 0);
        if let Some(first) = known.next()
            && let Some(other) = known.find(|&srid| srid != first)
        {
            return exec_err!("{}: geometries in different reference systems, {first} and {other} (see ST_Transform)", self.name());
        }
        if let Some(i) = reference_argument(self.name())
            && let Some(given) = args.args.get(i)
            && !matches!(given, ColumnarValue::Scalar(scalar) if scalar.is_null() || whole(scalar) == Some(call.to.srid))
        {
            return exec_err!("{}: the number of the reference system has to be a constant, such as 4326", self.name());
        }
        // Constants only: one row is computed, and is the answer for all.
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let n_rows = if constant { 1 } else { args.number_rows };
        let values = (0..n_rows).map(|row| if call.is_null(row) { Ok(Value::Null) } else { (self.described.compute)(&call, row) });
        let column = match self.described.name {
            "st_astext" | "st_asewkt" => self.as_text(values, &call)?,
            _ => collect(self.described.answer, values)?,
        };
        Ok(if constant { ColumnarValue::Scalar(ScalarValue::try_from_array(&column, 0)?) } else { ColumnarValue::Array(column) })
    }
}

impl Function {
    /// Shapes as WKT, with the reference system in front if it is asked for.
    fn as_text(&self, values: impl Iterator<Item = Result<Value>>, call: &Call) -> Result<ArrayRef> {
        let bytes = collect(Answer::Shape(Srid::Same), values)?;
        let plain = self.text.text_of_wkb(bytes.as_binary::<i32>())?;
        let srid = call.references.first().map_or(0, |r| r.srid);
        if self.described.name == "st_astext" || srid == 0 {
            return Ok(Arc::new(StringArray::from_iter(plain.iter())));
        }
        Ok(Arc::new(StringArray::from_iter(plain.iter().map(|t| t.map(|t| format!("SRID={srid};{t}"))))))
    }
}

fn collect(answer: Answer, values: impl Iterator<Item = Result<Value>>) -> Result<ArrayRef> {
    macro_rules! build {
        ($builder:ty, $($form:pat => $value:expr),+) => {{
            let mut builder = <$builder>::new();
            for value in values {
                match value? {
                    $($form => builder.append_value($value),)+
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }};
    }
    Ok(match answer {
        Answer::Shape(_) | Answer::Bytes => build!(BinaryBuilder, Value::Shape(g) => wkb::write(&g), Value::Bytes(b) => b),
        Answer::Number => build!(Float64Builder, Value::Number(n) => n),
        Answer::Whole => build!(Int64Builder, Value::Whole(n) => n),
        Answer::Flag => build!(BooleanBuilder, Value::Flag(b) => b),
        Answer::Text => build!(StringBuilder, Value::Text(t) => t),
    })
}

/// A question about how two shapes lie to one another.
fn related(call: &Call, row: usize, apart: bool, holds: fn(&IntersectionMatrix) -> bool) -> Result<Value> {
    let (a, b) = (call.shape(0, row)?, call.shape(1, row)?);
    let touching = matches!((a.rect, b.rect), (Some(ra), Some(rb)) if ra.intersects(&rb));
    if !touching {
        return Ok(Value::Flag(apart));
    }
    // The library asserts while it builds the topology of some self-crossing polygons: that must not end the connection.
    match std::panic::catch_unwind(|| a.geometry.relate(&b.geometry)) {
        Ok(matrix) => Ok(Value::Flag(holds(&matrix))),
        Err(_) => exec_err!("these geometries cannot be compared; is one of them crossing itself? (see ST_IsValid)"),
    }
}

/// Is a point inside an area? The common case, without building a topology.
fn point_in_area(area: &Shape, point: &Shape) -> Option<bool> {
    match (&area.geometry, &point.geometry) {
        (Geometry::Polygon(area), Geometry::Point(p)) => Some(area.contains(p)),
        (Geometry::MultiPolygon(area), Geometry::Point(p)) => Some(area.contains(p)),
        _ => None,
    }
}

fn within(call: &Call, row: usize) -> Result<Value> {
    match point_in_area(call.shape(1, row)?, call.shape(0, row)?) {
        Some(inside) => Ok(Value::Flag(inside)),
        None => related(call, row, false, IntersectionMatrix::is_within),
    }
}

fn contains(call: &Call, row: usize) -> Result<Value> {
    match point_in_area(call.shape(0, row)?, call.shape(1, row)?) {
        Some(inside) => Ok(Value::Flag(inside)),
        None => related(call, row, false, IntersectionMatrix::is_contains),
    }
}

fn intersects(call: &Call, row: usize) -> Result<Value> {
    let (a, b) = (call.shape(0, row)?, call.shape(1, row)?);
    let touching = matches!((a.rect, b.rect), (Some(ra), Some(rb)) if ra.intersects(&rb));
    Ok(Value::Flag(touching && a.geometry.intersects(&b.geometry)))
}

fn distance(call: &Call, row: usize) -> Result<Option<f64>> {
    let (a, b) = (call.geometry(0, row)?, call.geometry(1, row)?);
    if call.on_earth() {
        return Ok(measure::metres(a, b, Earth::Ellipsoid));
    }
    Ok(if a.is_empty() || b.is_empty() { None } else { Some(measure::planar(a, b)) })
}

fn number(value: Option<f64>) -> Value {
    value.map_or(Value::Null, Value::Number)
}

fn on_sphere(call: &Call, row: usize, earth: Earth) -> Result<Value> {
    Ok(number(measure::metres(call.geometry(0, row)?, call.geometry(1, row)?, earth)))
}

fn coordinate(call: &Call, row: usize, of: fn(Point<f64>) -> f64) -> Result<Value> {
    match call.geometry(0, row)? {
        Geometry::Point(p) => Ok(Value::Number(of(*p))),
        g if g.is_empty() => Ok(Value::Null),
        g => exec_err!("ST_X and ST_Y are for points; this is {} (see ST_Centroid)", kind_name(g)),
    }
}

fn edge(call: &Call, row: usize, of: fn(Rect<f64>) -> f64) -> Result<Value> {
    Ok(number(call.shape(0, row)?.rect.map(of)))
}

/// The name that ST_GeometryType gives, without `ST_`.
fn kind_name(geometry: &Geometry<f64>) -> &'static str {
    match geometry {
        Geometry::Point(_) => "Point",
        Geometry::Line(_) | Geometry::LineString(_) => "LineString",
        Geometry::Polygon(_) | Geometry::Rect(_) | Geometry::Triangle(_) => "Polygon",
        Geometry::MultiPoint(_) => "MultiPoint",
        Geometry::MultiLineString(_) => "MultiLineString",
        Geometry::MultiPolygon(_) => "MultiPolygon",
        Geometry::GeometryCollection(_) => "GeometryCollection",
    }
}

/// GeoJSON with at most so many decimals.
fn geojson(geometry: &Geometry<f64>, decimals: i32) -> Json {
    let k = 10_f64.powi(decimals);
    let rounded = |v: f64| {
        let r = (v * k).round() / k;
        if r.is_finite() { r } else { v }
    };
    let at = |c: geo::Coord<f64>| json!([rounded(c.x), rounded(c.y)]);
    let line = |l: &geo::LineString<f64>| l.0.iter().map(|&c| at(c)).collect::<Json>();
    let area = |p: &geo::Polygon<f64>| std::iter::once(p.exterior()).chain(p.interiors()).map(line).collect::<Json>();
    let coordinates = match geometry {
        Geometry::Point(p) => at(p.0),
        Geometry::Line(l) => json!([at(l.start), at(l.end)]),
        Geometry::LineString(l) => line(l),
        Geometry::Polygon(p) => area(p),
        Geometry::Rect(r) => area(&r.to_polygon()),
        Geometry::Triangle(t) => area(&t.to_polygon()),
        Geometry::MultiPoint(m) => m.0.iter().map(|p| at(p.0)).collect(),
        Geometry::MultiLineString(m) => m.0.iter().map(line).collect(),
        Geometry::MultiPolygon(m) => m.0.iter().map(area).collect(),
        Geometry::GeometryCollection(c) => {
            let parts: Vec<Json> = c.iter().map(|g| geojson(g, decimals)).collect();
            return json!({"type": "GeometryCollection", "geometries": parts});
        }
    };
    json!({"type": kind_name(geometry), "coordinates": coordinates})
}

fn as_geojson(call: &Call, row: usize) -> Result<Value> {
    // PostGIS writes nine decimals unless told otherwise.
    let decimals = if call.has(1) { call.number(1, row)?.clamp(0.0, 15.0) as i32 } else { 9 };
    Ok(Value::Text(geojson(call.geometry(0, row)?, decimals).to_string()))
}

fn from_geojson(call: &Call, row: usize) -> Result<Value> {
    let json = serde_json::from_str(call.text(0, row)?).map_err(|e| wrong(format_args!("ST_GeomFromGeoJSON: {e}")))?;
    let geometry = entity::Geometry::from_json(json).map_err(|e| wrong(format_args!("ST_GeomFromGeoJSON: {e}")))?;
    Ok(Value::Shape(geometry.shape().clone()))
}

fn envelope(call: &Call, row: usize) -> Result<Value> {
    Ok(match call.shape(0, row)?.rect {
        None => Value::Shape(call.geometry(0, row)?.clone()),
        Some(r) if r.width() == 0.0 && r.height() == 0.0 => Value::Shape(Geometry::Point(Point(r.min()))),
        Some(r) if r.width() == 0.0 || r.height() == 0.0 => Value::Shape(Geometry::LineString(geo::LineString(vec![r.min(), r.max()]))),
        Some(r) => Value::Shape(Geometry::Polygon(r.to_polygon())),
    })
}

fn transform(call: &Call, row: usize) -> Result<Value> {
    let from = call.references.first().map_or(0, |r| r.srid);
    match measure::transform(call.geometry(0, row)?, from, call.to.srid) {
        Some(moved) => Ok(Value::Shape(moved)),
        None if from == 0 => exec_err!("ST_Transform: the geometry's reference system is not known (see ST_SetSRID)"),
        None => exec_err!("ST_Transform: from {from} to {} is not supported (expected 4326, 4490 or 3857)", call.to.srid),
    }
}

fn parts(geometry: &Geometry<f64>) -> usize {
    match geometry {
        Geometry::MultiPoint(m) => m.0.len(),
        Geometry::MultiLineString(m) => m.0.len(),
        Geometry::MultiPolygon(m) => m.0.len(),
        Geometry::GeometryCollection(c) => c.len(),
        g => usize::from(!g.is_empty()),
    }
}

/// Positions on a circle that a buffer on the Earth is drawn with.
const CIRCLE_POSITIONS: u32 = 64;

/// Everything within a distance: in the plane exactly; on the Earth for points only.
fn buffer(call: &Call, row: usize) -> Result<Value> {
    use geo::{Buffer, Destination, Geodesic};
    let (geometry, distance) = (call.geometry(0, row)?, call.number(1, row)?);
    if !distance.is_finite() {
        return exec_err!("ST_Buffer: the distance {distance} is not a number");
    }
    if !call.on_earth() {
        return Ok(Value::Shape(Geometry::MultiPolygon(geometry.buffer(distance))));
    }
    let Geometry::Point(centre) = geometry else {
        return exec_err!("ST_Buffer of geography is for points; this is {}", kind_name(geometry));
    };
    let at = |i: u32| Geodesic.destination(*centre, -360.0 * f64::from(i) / f64::from(CIRCLE_POSITIONS), distance).0;
    let circle = (0..=CIRCLE_POSITIONS).map(|i| at(i % CIRCLE_POSITIONS)).collect();
    Ok(Value::Shape(Geometry::Polygon(geo::Polygon::new(geo::LineString(circle), Vec::new()))))
}

fn same(call: &Call, row: usize) -> Result<Value> {
    Ok(Value::Shape(call.geometry(0, row)?.clone()))
}

fn point(call: &Call, row: usize) -> Result<Value> {
    Ok(Value::Shape(Geometry::Point(Point::new(call.number(0, row)?, call.number(1, row)?))))
}

fn make_envelope(call: &Call, row: usize) -> Result<Value> {
    let corner = |i| Ok::<_, datafusion::error::DataFusionError>(geo::Coord { x: call.number(i, row)?, y: call.number(i + 1, row)? });
    Ok(Value::Shape(Geometry::Polygon(Rect::new(corner(0)?, corner(2)?).to_polygon())))
}

fn make_line(call: &Call, row: usize) -> Result<Value> {
    let positions = call.geometry(0, row)?.coords_iter().chain(call.geometry(1, row)?.coords_iter());
    Ok(Value::Shape(Geometry::LineString(positions.collect())))
}

macro_rules! described {
    ($(($name:literal, [$($alias:literal),*], [$($kind:ident),*], $needed:literal, $answer:expr, $compute:expr)),* $(,)?) => {
        &[$(Described {
            name: $name,
            aliases: &[$($alias),*],
            kinds: &[$(Kind::$kind),*],
            n_needed: $needed,
            answer: $answer,
            compute: $compute,
        }),*]
    };
}

/// Name, other names, arguments, how many of them are needed, answer, and how it is computed.
static TABLE: &[Described] = described![
    // Made from something else.
    ("st_geomfromtext", ["st_geometryfromtext", "st_wkttosql", "st_geomfromewkt"], [Shape, Number], 1, Answer::Shape(Srid::Given(1)), same),
    ("st_geomfromwkb", ["st_wkbtosql", "st_geomfromewkb"], [Shape, Number], 1, Answer::Shape(Srid::Given(1)), same),
    ("st_geogfromtext", ["st_geographyfromtext", "st_geogfromwkb"], [Shape], 1, Answer::Shape(Srid::Earth), same),
    ("st_geomfromgeojson", [], [Text], 1, Answer::Shape(Srid::Wgs84), from_geojson),
    ("st_point", [], [Number, Number, Number], 2, Answer::Shape(Srid::Given(2)), point),
    ("st_makepoint", [], [Number, Number], 2, Answer::Shape(Srid::Same), point),
    ("st_makeenvelope", [], [Number, Number, Number, Number, Number], 4, Answer::Shape(Srid::Given(4)), make_envelope),
    ("st_makeline", [], [Shape, Shape], 2, Answer::Shape(Srid::Same), make_line),
    ("st_setsrid", [], [Shape, Number], 2, Answer::Shape(Srid::Given(1)), same),
    ("st_transform", [], [Shape, Number], 2, Answer::Shape(Srid::Given(1)), transform),
    // What the casts ::geometry and ::geography become.
    ("st_geometry", [], [Shape, Number], 1, Answer::Shape(Srid::Plane), same),
    ("st_geography", [], [Shape], 1, Answer::Shape(Srid::Earth), same),
    // Written as something else.
    ("st_astext", [], [Shape], 1, Answer::Text, same),
    ("st_asewkt", [], [Shape], 1, Answer::Text, same),
    ("st_asgeojson", [], [Shape, Number], 1, Answer::Text, as_geojson),
    ("st_geohash", [], [Shape, Number], 1, Answer::Text, |c, row| {
        let n_characters = if c.arguments.len() > 1 { Some(c.number(1, row)?) } else { None };
        Ok(geohash::of(c.geometry(0, row)?, n_characters)?.map_or(Value::Null, Value::Text))
    }),
    ("st_asbinary", ["st_aswkb"], [Shape], 1, Answer::Bytes, |c, row| Ok(Value::Bytes(wkb::write(c.geometry(0, row)?)))),
    ("st_asewkb", [], [Shape], 1, Answer::Bytes, |c, row| {
        Ok(Value::Bytes(wkb::with_srid(&wkb::write(c.geometry(0, row)?), c.references[0].srid)))
    }),
    ("st_ashexewkb", [], [Shape], 1, Answer::Text, |c, row| {
        Ok(Value::Text(wkb::to_hex(&wkb::with_srid(&wkb::write(c.geometry(0, row)?), c.references[0].srid))))
    }),
    // Looked at.
    ("st_srid", [], [Shape], 1, Answer::Whole, |c, _| Ok(Value::Whole(c.references[0].srid.into()))),
    ("st_x", [], [Shape], 1, Answer::Number, |c, row| coordinate(c, row, Point::x)),
    ("st_y", [], [Shape], 1, Answer::Number, |c, row| coordinate(c, row, Point::y)),
    ("st_xmin", [], [Shape], 1, Answer::Number, |c, row| edge(c, row, |r| r.min().x)),
    ("st_ymin", [], [Shape], 1, Answer::Number, |c, row| edge(c, row, |r| r.min().y)),
    ("st_xmax", [], [Shape], 1, Answer::Number, |c, row| edge(c, row, |r| r.max().x)),
    ("st_ymax", [], [Shape], 1, Answer::Number, |c, row| edge(c, row, |r| r.max().y)),
    ("st_geometrytype", [], [Shape], 1, Answer::Text, |c, row| Ok(Value::Text(format!("ST_{}", kind_name(c.geometry(0, row)?))))),
    ("geometrytype", [], [Shape], 1, Answer::Text, |c, row| Ok(Value::Text(kind_name(c.geometry(0, row)?).to_uppercase()))),
    ("st_isempty", [], [Shape], 1, Answer::Flag, |c, row| Ok(Value::Flag(c.geometry(0, row)?.is_empty()))),
    ("st_npoints", [], [Shape], 1, Answer::Whole, |c, row| Ok(Value::Whole(c.geometry(0, row)?.coords_count() as i64))),
    ("st_numgeometries", [], [Shape], 1, Answer::Whole, |c, row| Ok(Value::Whole(parts(c.geometry(0, row)?) as i64))),
    ("st_isvalid", [], [Shape], 1, Answer::Flag, |c, row| {
        use geo::Validation;
        Ok(Value::Flag(c.geometry(0, row)?.is_valid()))
    }),
    // Compared.
    ("st_intersects", [], [Shape, Shape], 2, Answer::Flag, intersects),
    ("__overlap", [], [Shape, Shape], 2, Answer::Flag, |c, row| {
        Ok(Value::Flag(matches!((c.shape(0, row)?.rect, c.shape(1, row)?.rect), (Some(a), Some(b)) if a.intersects(&b))))
    }),
    // What st_extent becomes: see `dialect`.
    ("__box", [], [Number, Number, Number, Number], 4, Answer::Text, |c, row| {
        let mut text = String::from("BOX(");
        for (i, after) in [" ", ",", " ", ")"].into_iter().enumerate() {
            floats::write_double(c.number(i, row)?, floats::SHORTEST, &mut text);
            text.push_str(after);
        }
        Ok(Value::Text(text))
    }),
    ("st_disjoint", [], [Shape, Shape], 2, Answer::Flag, |c, row| match intersects(c, row)? {
        Value::Flag(together) => Ok(Value::Flag(!together)),
        other => Ok(other),
    }),
    ("st_within", [], [Shape, Shape], 2, Answer::Flag, within),
    ("st_contains", [], [Shape, Shape], 2, Answer::Flag, contains),
    ("st_covers", [], [Shape, Shape], 2, Answer::Flag, |c, row| related(c, row, false, IntersectionMatrix::is_covers)),
    ("st_coveredby", [], [Shape, Shape], 2, Answer::Flag, |c, row| related(c, row, false, IntersectionMatrix::is_coveredby)),
    ("st_touches", [], [Shape, Shape], 2, Answer::Flag, |c, row| related(c, row, false, IntersectionMatrix::is_touches)),
    ("st_crosses", [], [Shape, Shape], 2, Answer::Flag, |c, row| related(c, row, false, IntersectionMatrix::is_crosses)),
    ("st_overlaps", [], [Shape, Shape], 2, Answer::Flag, |c, row| related(c, row, false, IntersectionMatrix::is_overlaps)),
    ("st_equals", [], [Shape, Shape], 2, Answer::Flag, |c, row| related(c, row, false, IntersectionMatrix::is_equal_topo)),
    // Measured.
    ("st_distance", [], [Shape, Shape, Flag], 2, Answer::Number, |c, row| Ok(number(distance(c, row)?))),
    ("st_dwithin", [], [Shape, Shape, Number, Flag], 3, Answer::Flag, |c, row| {
        let most = c.number(2, row)?;
        Ok(distance(c, row)?.map_or(Value::Flag(false), |d| Value::Flag(d <= most)))
    }),
    ("st_distancesphere", ["st_distance_sphere"], [Shape, Shape], 2, Answer::Number, |c, row| on_sphere(c, row, Earth::Sphere)),
    ("st_distancespheroid", ["st_distance_spheroid"], [Shape, Shape], 2, Answer::Number, |c, row| on_sphere(c, row, Earth::Ellipsoid)),
    ("st_length", ["st_length2d"], [Shape], 1, Answer::Number, |c, row| {
        Ok(Value::Number(measure::length(c.geometry(0, row)?, c.on_earth())))
    }),
    ("st_perimeter", [], [Shape], 1, Answer::Number, |c, row| Ok(Value::Number(measure::perimeter(c.geometry(0, row)?, c.on_earth())))),
    ("st_area", [], [Shape], 1, Answer::Number, |c, row| Ok(Value::Number(measure::area(c.geometry(0, row)?, c.on_earth())))),
    // Made from a geometry.
    ("st_centroid", [], [Shape], 1, Answer::Shape(Srid::Same), |c, row| {
        Ok(measure::centroid(c.geometry(0, row)?).map_or(Value::Null, |p| Value::Shape(Geometry::Point(p))))
    }),
    ("st_envelope", [], [Shape], 1, Answer::Shape(Srid::Same), envelope),
    ("st_convexhull", [], [Shape], 1, Answer::Shape(Srid::Same), |c, row| {
        Ok(Value::Shape(Geometry::Polygon(c.geometry(0, row)?.convex_hull())))
    }),
    ("st_buffer", [], [Shape, Number], 2, Answer::Shape(Srid::Same), buffer),
];
