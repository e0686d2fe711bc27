//! The parameters of statements.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::QueryError;

/// Parameters of one statement.
const PARAMETERS_MAX: usize = 1_000;
/// Rows of parameters that a statement is answered for, one after the other.
pub(super) const PARAMETER_ROWS_MAX: usize = 1_024;
/// Size of the values bound to a statement.
const PARAMETER_BYTES_MAX: usize = 1 << 20;

/// The text with `$1`, `$2`, ... for each `?`, as ADBC and ODBC write parameters.
///
/// Errors: [`QueryError::Syntax`] if there are both.
pub(super) fn numbered(text: &str) -> Result<String, QueryError> {
    if !text.contains('?') {
        return Ok(text.to_owned());
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().map_err(|e| QueryError::Syntax { reason: e.to_string() })?;
    if !tokens.contains(&Token::Question) {
        return Ok(text.to_owned());
    }
    if tokens.iter().any(|t| matches!(t, Token::Placeholder(_))) {
        return Err(QueryError::Syntax { reason: "parameters are written either `?` or `$1`, not both in one statement".to_owned() });
    }
    let mut n = 0;
    let numbered = tokens.iter().map(|token| match token {
        Token::Question => {
            n += 1;
            format!("${n}")
        }
        other => other.to_string(),
    });
    Ok(numbered.collect())
}

/// The parameters of a plan in order, with the types that the engine gathered from their use; `Null` where it could not.
///
/// Errors: [`QueryError::Syntax`] if one has no number, [`QueryError::TooLarge`].
pub(super) fn schema(plan: &LogicalPlan) -> Result<Schema, QueryError> {
    let types = plan.get_parameter_types()?;
    let mut numbered = Vec::with_capacity(types.len());
    for (name, data_type) in types {
        let number = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|&n| n > 0);
        let number =
            number.ok_or_else(|| QueryError::Syntax { reason: format!("parameter `{name}` has no number (expected `$1`, `$2`, ...)") })?;
        numbered.push((number, data_type));
    }
    let n_parameters = numbered.iter().map(|(n, _)| *n).max().unwrap_or(0);
    if n_parameters > PARAMETERS_MAX {
        return Err(QueryError::TooLarge { found: n_parameters, unit: "parameters", max: PARAMETERS_MAX });
    }
    let mut fields: Vec<Field> = (1..=n_parameters).map(|n| Field::new(format!("${n}"), DataType::Null, true)).collect();
    for (number, data_type) in numbered {
        if let Some(data_type) = data_type {
            fields[number - 1] = Field::new(format!("${number}"), data_type, true);
        }
    }
    Ok(Schema::new(fields))
}

/// Parameters as a client sends them, a row of values at a time, made one batch.
#[derive(Default)]
pub(super) struct Bound {
    batches: Vec<RecordBatch>,
    n_rows: usize,
    n_bytes: usize,
}

impl Bound {
    /// Takes some more rows.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<(), QueryError> {
        self.n_rows += batch.num_rows();
        self.n_bytes += batch.columns().iter().map(|c| c.get_array_memory_size()).sum::<usize>();
        if self.n_rows > PARAMETER_ROWS_MAX {
            return Err(QueryError::TooLarge { found: self.n_rows, unit: "rows of parameters", max: PARAMETER_ROWS_MAX });
        }
        if self.n_bytes > PARAMETER_BYTES_MAX {
            return Err(QueryError::TooLarge { found: self.n_bytes, unit: "bytes of parameters", max: PARAMETER_BYTES_MAX });
        }
        self.batches.push(batch);
        Ok(())
    }

    /// The batch; none if nothing was sent. Texts of other widths become plain ones, as the engine writes them.
    pub(super) fn finish(self, n_parameters: usize) -> Result<Option<Arc<RecordBatch>>, QueryError> {
        let Some(first) = self.batches.first() else { return Ok(None) };
        let all = concat_batches(&first.schema(), &self.batches).map_err(DataFusionError::from)?;
        if all.num_columns() != n_parameters {
            return Err(QueryError::Syntax {
                reason: format!("the statement has {n_parameters} parameters, {} were bound", all.num_columns()),
            });
        }
        let plain = |column: &Arc<dyn Array>| match column.data_type() {
            DataType::LargeUtf8 | DataType::Utf8View => cast(column, &DataType::Utf8),
            _ => Ok(column.clone()),
        };
        let columns = all.columns().iter().map(plain).collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
        let fields = (1..).zip(&columns).map(|(n, c)| Field::new(format!("${n}"), c.data_type().clone(), true));
        let options = RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns, &options);
        Ok(Some(Arc::new(batch.map_err(DataFusionError::from)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_become_numbers_outside_of_texts_names_and_comments() {
        check("select ?, ? + 1", "select $1, $2 + 1");
        check("select '?' || ? -- really?", "select '?' || $1 -- really?");
        check(r#"select "a?" from t where b = ?"#, r#"select "a?" from t where b = $1"#);
        check("select $1", "select $1");
        check("select 'a\nb', ?\n  , 1.50", "select 'a\nb', $1\n  , 1.50");

        #[track_caller]
        fn check(text: &str, want: &str) {
            assert_eq!(numbered(text).unwrap(), want);
        }
    }

    #[test]
    fn both_kinds_of_parameters_in_one_statement_are_refused() {
        let error = numbered("select ?, $1").unwrap_err().to_string();
        assert!(error.contains("either `?` or `$1`"), "{error}");
    }
}
