//! `AT TIME ZONE`: an instant as the clocks in a zone show it, and what clocks in a zone show as an instant.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::latest::timestamp;

/// `__timezone(zone, time)`, which `time AT TIME ZONE zone` is rewritten to; also called `timezone`, as in PostgreSQL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct AtTimeZone {
    signature: Signature,
    aliases: Vec<String>,
}

impl AtTimeZone {
    pub(crate) fn udf() -> ScalarUDF {
        ScalarUDF::from(Self { signature: Signature::any(2, Volatility::Stable), aliases: vec!["timezone".to_owned()] })
    }
}

/// What clocks show: without a zone.
fn shown() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn is_instant(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &'static str {
        "__timezone"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(if types.get(1).is_some_and(is_instant) { shown() } else { timestamp() })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [zone, time] = args.args.as_slice() else { return exec_err!("AT TIME ZONE takes a zone and a time") };
        let ColumnarValue::Scalar(zone) = zone else { return exec_err!("AT TIME ZONE takes a constant zone, such as 'Asia/Shanghai'") };
        let Some(zone) = zone.try_as_str().flatten() else {
            return exec_err!("AT TIME ZONE takes the name of a zone, such as 'Asia/Shanghai'");
        };
        // PostgreSQL knows it by this name as well.
        let zone = if zone.eq_ignore_ascii_case("utc") || zone.eq_ignore_ascii_case("gmt") { "+00:00" } else { zone };
        let in_zone = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let time = time.clone().into_array(args.number_rows)?;
        if is_instant(time.data_type()) {
            return Ok(ColumnarValue::Array(local(&cast(&time, &in_zone)?, &args.config_options)?));
        }
        // Read as the clocks' time, then as the instant.
        let read = cast(&cast(&time, &shown())?, &in_zone)?;
        Ok(ColumnarValue::Array(cast(&read, &timestamp())?))
    }
}

/// What the clocks of a column's zone show.
fn local(instants: &ArrayRef, options: &Arc<ConfigOptions>) -> Result<ArrayRef> {
    let field = Arc::new(Field::new("time", instants.data_type().clone(), true));
    let n_rows = instants.len();
    let answer = to_local_time().invoke_with_args(ScalarFunctionArgs {
        args: vec![ColumnarValue::Array(instants.clone())],
        arg_fields: vec![field],
        number_rows: n_rows,
        return_field: Arc::new(Field::new("time", shown(), true)),
        config_options: options.clone(),
    })?;
    Ok(cast(&answer.into_array(n_rows)?, &shown())?)
}
