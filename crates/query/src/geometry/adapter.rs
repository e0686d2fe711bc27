//! The functions of the crate `geodatafusion` over our columns.
//!
//! They know GeoArrow's native layouts; here a geometry goes in as WKB and comes out as WKB.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;

use super::Reference;

/// Their functions, and the ones among them that convert.
#[derive(Debug)]
pub(crate) struct Adapter {
    functions: Vec<Arc<ScalarUDF>>,
    convert: Arc<Convert>,
}

#[derive(Debug)]
struct Convert {
    from_wkb: Arc<ScalarUDF>,
    to_wkb: Arc<ScalarUDF>,
    from_text: Arc<ScalarUDF>,
    to_text: Arc<ScalarUDF>,
    options: Arc<ConfigOptions>,
}

impl Adapter {
    /// Asks the crate what it has.
    pub(crate) fn new() -> Result<Self> {
        let context = SessionContext::new();
        let before: Vec<String> = context.state().scalar_functions().keys().cloned().collect();
        geodatafusion::register(&context);
        let state = context.state();
        let named = |name: &str| {
            state.scalar_functions().get(name).cloned().ok_or_else(|| internal_datafusion_err!("geodatafusion has no function {name}"))
        };
        let convert = Convert {
            from_wkb: named("st_geomfromwkb")?,
            to_wkb: named("st_asbinary")?,
            from_text: named("st_geomfromtext")?,
            to_text: named("st_astext")?,
            options: Arc::new(ConfigOptions::new()),
        };
        let functions =
            state.scalar_functions().iter().filter(|(name, f)| !before.contains(name) && f.name() == *name).map(|(_, f)| f.clone());
        Ok(Self { functions: functions.collect(), convert: Arc::new(convert) })
    }

    /// Each of their functions, as one over our columns.
    pub(crate) fn functions(&self) -> Vec<ScalarUDF> {
        let adapted = |f: &Arc<ScalarUDF>| {
            let aliases = f.aliases().to_vec();
            let signature = Signature::user_defined(Volatility::Immutable);
            ScalarUDF::from(Adapted { inner: f.clone(), convert: self.convert.clone(), aliases, signature })
        };
        self.functions.iter().map(adapted).collect()
    }

    /// Reads well-known text.
    pub(crate) fn wkb_of_text(&self, texts: &StringArray) -> Result<BinaryArray> {
        let field = Arc::new(Field::new("text", DataType::Utf8, true));
        let (native, native_field) = self.convert.call(&self.convert.from_text, Arc::new(texts.clone()), &field)?;
        let (wkb, _) = self.convert.call(&self.convert.to_wkb, native, &native_field)?;
        Ok(wkb.as_binary::<i32>().clone())
    }

    /// Writes well-known text.
    pub(crate) fn text_of_wkb(&self, geometries: &BinaryArray) -> Result<StringArray> {
        let field = Arc::new(Reference::default().field("geometry"));
        let (text, _) = self.convert.call(&self.convert.to_text, Arc::new(geometries.clone()), &field)?;
        Ok(text.as_string::<i32>().clone())
    }
}

impl Convert {
    /// One function of one column.
    fn call(&self, function: &ScalarUDF, column: ArrayRef, field: &FieldRef) -> Result<(ArrayRef, FieldRef)> {
        let return_field =
            function.return_field_from_args(ReturnFieldArgs { arg_fields: std::slice::from_ref(field), scalar_arguments: &[None] })?;
        let number_rows = column.len();
        let answer = function.invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(column)],
            arg_fields: vec![field.clone()],
            number_rows,
            return_field: return_field.clone(),
            config_options: self.options.clone(),
        })?;
        Ok((answer.into_array(number_rows)?, return_field))
    }

    /// The field of a geometry in their layout.
    fn native_field(&self, field: &FieldRef) -> Result<FieldRef> {
        let wkb = Arc::new(Reference::of(field).unwrap_or_default().field(field.name()));
        self.from_wkb.return_field_from_args(ReturnFieldArgs { arg_fields: &[wkb], scalar_arguments: &[None] })
    }

    fn native_fields(&self, fields: &[FieldRef]) -> Result<Vec<FieldRef>> {
        fields.iter().map(|f| if f.data_type() == &DataType::Binary { self.native_field(f) } else { Ok(f.clone()) }).collect()
    }
}

/// A geometry in one of their layouts: those are the extensions of GeoArrow, but for boxes, which have a type of their own, and text.
fn is_native(field: &Field) -> bool {
    let extension = field.metadata().get("ARROW:extension:name").map_or("", String::as_str);
    extension.starts_with("geoarrow.") && !matches!(extension, "geoarrow.box" | "geoarrow.wkb" | "geoarrow.wkt")
}

/// One of their functions over our columns.
#[derive(Debug)]
struct Adapted {
    inner: Arc<ScalarUDF>,
    convert: Arc<Convert>,
    aliases: Vec<String>,
    signature: Signature,
}

impl PartialEq for Adapted {
    fn eq(&self, other: &Self) -> bool {
        self.inner.name() == other.inner.name()
    }
}

impl Eq for Adapted {}

impl Hash for Adapted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.name().hash(state);
    }
}

impl ScalarUDFImpl for Adapted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // A text where a geometry could be is not one: it is turned into one by ST_GeomFromText, or by a cast.
        let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("argument", t.clone(), true))).collect();
        let coerced = fields_with_udf(&self.convert.native_fields(&fields)?, &*self.inner)?;
        let wanted = |(given, wanted): (&DataType, FieldRef)| match given {
            DataType::Binary => DataType::Binary,
            _ => wanted.data_type().clone(),
        };
        Ok(types.iter().zip(coerced).map(wanted).collect())
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Err(internal_datafusion_err!("the type depends on the fields"))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let reference = args.arg_fields.iter().find_map(|f| Reference::of(f)).unwrap_or_default();
        let native = self.convert.native_fields(args.arg_fields)?;
        let field = self.inner.return_field_from_args(ReturnFieldArgs { arg_fields: &native, scalar_arguments: args.scalar_arguments })?;
        Ok(if is_native(&field) { Arc::new(reference.field(self.name())) } else { field })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arg_fields = self.convert.native_fields(&args.arg_fields)?;
        let scalars: Vec<_> = args.args.iter().map(|a| if let ColumnarValue::Scalar(s) = a { Some(s.clone()) } else { None }).collect();
        let scalar_arguments: Vec<_> = scalars.iter().map(Option::as_ref).collect();
        let return_field =
            self.inner.return_field_from_args(ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &scalar_arguments })?;
        let mut inner_args = Vec::with_capacity(args.args.len());
        for (value, field) in args.args.into_iter().zip(&args.arg_fields) {
            inner_args.push(if field.data_type() == &DataType::Binary {
                let wkb = Arc::new(Reference::of(field).unwrap_or_default().field(field.name()));
                ColumnarValue::Array(self.convert.call(&self.convert.from_wkb, value.into_array(args.number_rows)?, &wkb)?.0)
            } else {
                value
            });
        }
        let answer = self.inner.invoke_with_args(ScalarFunctionArgs {
            args: inner_args,
            arg_fields,
            number_rows: args.number_rows,
            return_field: return_field.clone(),
            config_options: args.config_options,
        })?;
        if !is_native(&return_field) {
            return Ok(answer);
        }
        Ok(ColumnarValue::Array(self.convert.call(&self.convert.to_wkb, answer.into_array(args.number_rows)?, &return_field)?.0))
    }
}
