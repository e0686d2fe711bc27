//! Tables of the catalogs, put together column by column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::Int16Builder;
use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, ListBuilder, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::Result;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::oid_field::{OID_ALIAS_KEY, kind};

/// A table in the making. Every column has as many rows as the table.
pub(super) struct Columns {
    n_rows: usize,
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    pub(super) fn new(n_rows: usize) -> Self {
        Self { n_rows, fields: Vec::new(), arrays: Vec::new() }
    }

    pub(super) fn finish(self) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.n_rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(self.fields)), self.arrays, &options)?)
    }

    fn push(mut self, field: Field, array: ArrayRef) -> Self {
        self.fields.push(field);
        self.arrays.push(array);
        self
    }

    /// Numbers of objects.
    pub(super) fn oid(self, name: &str, values: impl IntoIterator<Item = i32>) -> Self {
        let field = Field::new(name, DataType::Int32, true);
        let field = field.with_metadata(HashMap::from([(OID_ALIAS_KEY.to_owned(), kind::OID.to_owned())]));
        self.push(field, Arc::new(Int32Array::from_iter_values(values)))
    }

    pub(super) fn int(self, name: &str, values: impl IntoIterator<Item = i32>) -> Self {
        self.push(Field::new(name, DataType::Int32, true), Arc::new(Int32Array::from_iter_values(values)))
    }

    pub(super) fn maybe_int(self, name: &str, values: impl IntoIterator<Item = Option<i32>>) -> Self {
        self.push(Field::new(name, DataType::Int32, true), Arc::new(values.into_iter().collect::<Int32Array>()))
    }

    pub(super) fn long(self, name: &str, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        self.push(Field::new(name, DataType::Int64, true), Arc::new(values.into_iter().collect::<Int64Array>()))
    }

    /// Microseconds since 1970, UTC.
    pub(super) fn time(self, name: &str, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        let times = values.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("+00:00");
        self.push(Field::new(name, arrow::array::Array::data_type(&times).clone(), true), Arc::new(times))
    }

    pub(super) fn small(self, name: &str, values: impl IntoIterator<Item = i16>) -> Self {
        self.push(Field::new(name, DataType::Int16, true), Arc::new(Int16Array::from_iter_values(values)))
    }

    pub(super) fn real(self, name: &str, values: impl IntoIterator<Item = f32>) -> Self {
        self.push(Field::new(name, DataType::Float32, true), Arc::new(Float32Array::from_iter_values(values)))
    }

    pub(super) fn flag(self, name: &str, values: impl IntoIterator<Item = bool>) -> Self {
        let values: Vec<bool> = values.into_iter().collect();
        self.push(Field::new(name, DataType::Boolean, true), Arc::new(BooleanArray::from(values)))
    }

    pub(super) fn text<S: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = S>) -> Self {
        self.push(Field::new(name, DataType::Utf8, true), Arc::new(StringArray::from_iter_values(values)))
    }

    pub(super) fn maybe_text<S: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = Option<S>>) -> Self {
        self.push(Field::new(name, DataType::Utf8, true), Arc::new(values.into_iter().collect::<StringArray>()))
    }

    /// Numbers of columns.
    pub(super) fn smalls<V: AsRef<[i16]>>(self, name: &str, values: impl IntoIterator<Item = Option<V>>) -> Self {
        let mut lists = ListBuilder::new(Int16Builder::new());
        for value in values {
            match value {
                Some(numbers) => lists.append_value(numbers.as_ref().iter().map(|&n| Some(n))),
                None => lists.append_null(),
            }
        }
        let lists = lists.finish();
        self.push(Field::new(name, arrow::array::Array::data_type(&lists).clone(), true), Arc::new(lists))
    }

    /// No value in any row: lists of texts.
    pub(super) fn no_texts(self, name: &str) -> Self {
        let mut lists = ListBuilder::new(StringBuilder::new());
        (0..self.n_rows).for_each(|_| lists.append_null());
        let lists = lists.finish();
        self.push(Field::new(name, arrow::array::Array::data_type(&lists).clone(), true), Arc::new(lists))
    }

    /// The same in every row.
    pub(super) fn all_oid(self, name: &str, value: i32) -> Self {
        let n = self.n_rows;
        self.oid(name, std::iter::repeat_n(value, n))
    }

    pub(super) fn all_int(self, name: &str, value: i32) -> Self {
        let n = self.n_rows;
        self.int(name, std::iter::repeat_n(value, n))
    }

    pub(super) fn all_small(self, name: &str, value: i16) -> Self {
        let n = self.n_rows;
        self.small(name, std::iter::repeat_n(value, n))
    }

    pub(super) fn all_flag(self, name: &str, value: bool) -> Self {
        let n = self.n_rows;
        self.flag(name, std::iter::repeat_n(value, n))
    }

    pub(super) fn all_text(self, name: &str, value: &str) -> Self {
        let n = self.n_rows;
        self.text(name, std::iter::repeat_n(value, n))
    }

    /// No value in any row: texts.
    pub(super) fn no_text(self, name: &str) -> Self {
        let n = self.n_rows;
        self.maybe_text::<&str>(name, std::iter::repeat_n(None, n))
    }

    /// No value in any row: whole numbers.
    pub(super) fn no_int(self, name: &str) -> Self {
        let n = self.n_rows;
        self.maybe_int(name, std::iter::repeat_n(None, n))
    }
}
