//! Numbers with a fraction as texts, the way PostgreSQL writes them: `1` and not `1.0`, `1e+20`, `1e-05`, `Infinity`.
//!
//! Source: `float8out` and `float4out` of PostgreSQL 12 and later. The fewest digits are written from which the same number is read again, and of
//! several such texts the nearest one; a text that lies exactly in the middle between two numbers does not count.

use std::fmt::{LowerExp, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;

use crate::catalog::functions::function;

/// As many digits as are needed: the default of PostgreSQL's `extra_float_digits`.
pub(crate) const SHORTEST: i8 = 1;

/// A number that is written: finite and not negative.
struct Magnitude<T> {
    value: T,
    /// It is `mantissa` times two to the power of `exponent`.
    mantissa: u64,
    exponent: i32,
    /// The next smaller number is half as far away as the next greater one.
    is_power: bool,
    /// Decimal digits that always survive (`DBL_DIG`, `FLT_DIG`); from that exponent on, powers of ten are written.
    n_digits: i8,
}

/// Writes a `double precision`; `extra_digits` is PostgreSQL's `extra_float_digits`.
pub(crate) fn write_double(number: f64, extra_digits: i8, out: &mut String) {
    if !number.is_finite() {
        return out.push_str(unusual(number.is_nan(), number < 0.0));
    }
    let (fraction, field) = (number.to_bits() & ((1 << 52) - 1), (number.to_bits() >> 52 & 0x7ff) as i32);
    let (mantissa, exponent) = if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
    let magnitude = Magnitude { value: number.abs(), mantissa, exponent, is_power: fraction == 0 && field > 1, n_digits: 15 };
    magnitude.write(number.is_sign_negative(), extra_digits, out);
}

/// The same of a `real`.
pub(crate) fn write_single(number: f32, extra_digits: i8, out: &mut String) {
    if !number.is_finite() {
        return out.push_str(unusual(number.is_nan(), number < 0.0));
    }
    let (fraction, field) = (u64::from(number.to_bits() & ((1 << 23) - 1)), (number.to_bits() >> 23 & 0xff) as i32);
    let (mantissa, exponent) = if field == 0 { (fraction, -149) } else { (fraction | 1 << 23, field - 150) };
    let magnitude = Magnitude { value: number.abs(), mantissa, exponent, is_power: fraction == 0 && field > 1, n_digits: 6 };
    magnitude.write(number.is_sign_negative(), extra_digits, out);
}

fn unusual(is_nan: bool, is_negative: bool) -> &'static str {
    match (is_nan, is_negative) {
        (true, _) => "NaN",
        (false, false) => "Infinity",
        (false, true) => "-Infinity",
    }
}

impl<T: LowerExp + PartialEq + std::str::FromStr> Magnitude<T> {
    fn write(&self, is_negative: bool, extra_digits: i8, out: &mut String) {
        if is_negative {
            out.push('-');
        }
        let (text, exponent_max) = if extra_digits > 0 {
            (self.shortest(), i32::from(self.n_digits))
        } else {
            let n_digits = self.n_digits.saturating_add(extra_digits).max(1);
            (format!("{:.*e}", usize::from(n_digits.unsigned_abs()) - 1, self.value), i32::from(n_digits))
        };
        let (digits, exponent) = parts(&text);
        lay_out(&digits, exponent, exponent_max, out);
    }

    /// The fewest digits, with an exponent.
    fn shortest(&self) -> String {
        let shortest = format!("{:e}", self.value);
        let (digits, exponent) = parts(&shortest);
        let (is_half, is_between) = (self.is_half(digits.len(), exponent), self.is_between(&shortest));
        if !is_half && !is_between {
            return shortest;
        }
        // Rounded to the even digit.
        let rounded = |n: usize| format!("{:.*e}", n - 1, self.value);
        let serves = |text: &String| text.parse::<T>().is_ok_and(|read| read == self.value) && !self.is_between(text);
        let even = Some(rounded(digits.len())).filter(serves);
        even.or_else(|| {
            if !is_between {
                return Some(shortest.clone());
            }
            // 17 digits tell any two numbers apart.
            (digits.len() + 1..=17).map(rounded).find(serves)
        })
        .unwrap_or(shortest)
    }

    /// May the number lie exactly in the middle between two texts of so many digits?
    fn is_half(&self, n_digits: usize, exponent: i32) -> bool {
        // With one digit more the text would be exact: as many decimal digits behind the point as there are binary ones.
        let n_behind = i32::try_from(n_digits).unwrap_or(i32::MAX) - exponent;
        let n_binary = -(self.exponent + i32::try_from(self.mantissa.trailing_zeros()).unwrap_or(0));
        n_behind <= 0 || n_behind == n_binary
    }

    /// Does a text lie exactly in the middle between this number and a neighbour? It is read as this one if that is even, which PostgreSQL
    /// does not rely on.
    fn is_between(&self, text: &str) -> bool {
        if !self.mantissa.is_multiple_of(2) {
            return false;
        }
        let (digits, exponent) = parts(text);
        let Ok(whole) = digits.parse::<u64>() else { return false };
        // The text is `whole` times ten to the power of `tens`, and should be an odd number times a power of two.
        let tens = exponent - i32::try_from(digits.len()).unwrap_or(0) + 1;
        let Some(fives) = 5_u128.checked_pow(tens.unsigned_abs()).filter(|_| tens.unsigned_abs() <= 27) else { return false };
        let odd = match tens {
            0.. => u128::from(whole) * fives,
            _ if u128::from(whole).is_multiple_of(fives) => u128::from(whole) / fives,
            _ => return false,
        };
        if odd == 0 {
            return false;
        }
        let (odd, twos) = (odd >> odd.trailing_zeros(), tens + i32::try_from(odd.trailing_zeros()).unwrap_or(0));
        let mantissa = u128::from(self.mantissa);
        let below = if self.is_power { (4 * mantissa - 1, self.exponent - 2) } else { ((2 * mantissa).wrapping_sub(1), self.exponent - 1) };
        (odd, twos) == (2 * mantissa + 1, self.exponent - 1) || (odd, twos) == below
    }
}

/// The digits of `1.25e-7` without zeros at the end, and its exponent.
fn parts(text: &str) -> (String, i32) {
    let (number, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let digits: String = number.chars().filter(|c| *c != '.').collect();
    let trimmed = digits.trim_end_matches('0');
    (if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }, exponent.parse().unwrap_or(0))
}

/// As C's `%g` does, but for the zeros at the end.
fn lay_out(digits: &str, exponent: i32, exponent_max: i32, out: &mut String) {
    let n_digits = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if exponent < -4 || exponent >= exponent_max {
        let (first, rest) = digits.split_at(1);
        let (point, sign) = (if rest.is_empty() { "" } else { "." }, if exponent < 0 { '-' } else { '+' });
        // Writing to a text cannot fail.
        let _ = write!(out, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs());
    } else if exponent < 0 {
        out.push_str("0.");
        out.push_str(&zeros(-exponent - 1));
        out.push_str(digits);
    } else if n_digits <= exponent + 1 {
        out.push_str(digits);
        out.push_str(&zeros(exponent + 1 - n_digits));
    } else {
        let (whole, fraction) = digits.split_at(usize::try_from(exponent + 1).unwrap_or(0));
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    }
}

/// Is this a type of numbers with a fraction, or of lists of them?
pub(crate) fn is_written(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => item.data_type().is_floating(),
        other => other.is_floating(),
    }
}

/// The type of their texts.
pub(crate) fn type_of_texts(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::List(Arc::new(Field::new(item.name(), DataType::Utf8, true))),
        _ => DataType::Utf8,
    }
}

/// Numbers, or lists of numbers, as texts.
///
/// Errors: if the column is neither.
pub(crate) fn texts(column: &ArrayRef, extra_digits: i8) -> Result<ArrayRef> {
    if let Some(lists) = column.as_list_opt::<i32>() {
        let DataType::List(item) = type_of_texts(column.data_type()) else { return Ok(column.clone()) };
        let items = texts(lists.values(), extra_digits)?;
        return Ok(Arc::new(ListArray::try_new(item, lists.offsets().clone(), items, lists.nulls().cloned())?));
    }
    let mut builder = StringBuilder::with_capacity(column.len(), column.len() * 8);
    let mut text = String::new();
    macro_rules! write_all {
        ($numbers:expr, $write:ident) => {
            for number in $numbers {
                match number {
                    Some(number) => {
                        text.clear();
                        $write(number, extra_digits, &mut text);
                        builder.append_value(&text);
                    }
                    None => builder.append_null(),
                }
            }
        };
    }
    match column.data_type() {
        DataType::Float64 => write_all!(column.as_primitive::<Float64Type>(), write_double),
        _ => write_all!(cast(column, &DataType::Float32)?.as_primitive::<Float32Type>(), write_single),
    }
    Ok(Arc::new(builder.finish()))
}

/// Casts of numbers to texts write them as PostgreSQL does, also where the engine casts by itself: `pm25::text`, `'x' || pm25`.
#[derive(Debug)]
pub(crate) struct Rewrite {
    text: Arc<ScalarUDF>,
}

impl Default for Rewrite {
    fn default() -> Self {
        let text = function("__float_text", DataType::Utf8, |args, n_rows| match args.first() {
            Some(column) if column.data_type().is_floating() => texts(column, SHORTEST),
            _ => Ok(arrow::array::new_null_array(&DataType::Utf8, n_rows)),
        });
        Self { text: Arc::new(text) }
    }
}

/// What is cast to a text, and the type of the text.
fn cast_to_text(expr: &Expr) -> Option<(&Expr, &DataType)> {
    let (inner, data_type) = match expr {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => (expr, field.data_type()),
        _ => return None,
    };
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View).then_some((inner, data_type))
}

impl AnalyzerRule for Rewrite {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    found |= cast_to_text(e).is_some();
                    Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
                })
            })
        })?;
        if !found {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|e| {
                    let Some((inner, data_type)) = cast_to_text(&e) else { return Ok(Transformed::no(e)) };
                    // A column of an outer query has a type of its own.
                    if !inner.get_type(&schema).is_ok_and(|t| t.is_floating()) {
                        return Ok(Transformed::no(e));
                    }
                    let text = Expr::ScalarFunction(ScalarFunction::new_udf(self.text.clone(), vec![inner.clone()]));
                    Ok(Transformed::yes(if data_type == &DataType::Utf8 { text } else { text.cast_to(data_type, &schema)? }))
                })?;
                Ok(if rewritten.transformed { rewritten.update_data(|expr| name.restore(expr)) } else { rewritten })
            })
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &str {
        "floats_as_texts"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(number: f64, extra_digits: i8) -> String {
        let mut out = String::new();
        write_double(number, extra_digits, &mut out);
        out
    }

    fn single(number: f32, extra_digits: i8) -> String {
        let mut out = String::new();
        write_single(number, extra_digits, &mut out);
        out
    }

    /// Texts that PostgreSQL 15 has written, from what was given to it.
    #[test]
    fn doubles_are_written_as_postgresql_writes_them() {
        for (given, want) in [
            ("0", "0"),
            ("-0", "-0"),
            ("1.0", "1"),
            ("-1.5", "-1.5"),
            ("0.1", "0.1"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("100", "100"),
            ("123456789012345", "123456789012345"),
            ("123456789012345.6", "123456789012345.6"),
            ("1e14", "100000000000000"),
            ("1e15", "1e+15"),
            ("1234567890123456", "1.234567890123456e+15"),
            ("9007199254740993", "9.007199254740992e+15"),
            ("4503599627370496.5", "4.503599627370496e+15"),
            ("1152921504606846976", "1.152921504606847e+18"),
            // In the middle between two texts: the even digit.
            ("562949953421312.25", "562949953421312.2"),
            ("2.9802322387695312e-08", "2.9802322387695312e-08"),
            // The even one would be another number: below a power of two they are closer together.
            ("5.9604644775390625e-08", "5.960464477539063e-08"),
            ("6.1897001964269014e+26", "6.189700196426902e+26"),
            ("1e20", "1e+20"),
            ("1e22", "1e+22"),
            // The shorter text lies in the middle between two numbers.
            ("1e23", "9.999999999999999e+22"),
            ("8.5e22", "8.5e+22"),
            ("1e100", "1e+100"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("5e-324", "5e-324"),
            ("2.2250738585072014e-308", "2.2250738585072014e-308"),
            ("0.0001", "0.0001"),
            ("0.00012345", "0.00012345"),
            ("0.00001", "1e-05"),
            ("9.99e-5", "9.99e-05"),
            ("1.5e-7", "1.5e-07"),
            ("9.5367431640625e-07", "9.5367431640625e-07"),
            ("3.141592653589793", "3.141592653589793"),
            ("1.0000000000000002", "1.0000000000000002"),
            ("NaN", "NaN"),
            ("inf", "Infinity"),
            ("-inf", "-Infinity"),
        ] {
            assert_eq!(double(given.parse().unwrap(), 1), want, "{given}");
        }
    }

    #[test]
    fn singles_are_written_as_postgresql_writes_them() {
        for (given, want) in [
            ("1", "1"),
            ("0.1", "0.1"),
            ("123456", "123456"),
            ("999999", "999999"),
            ("1000000", "1e+06"),
            ("1234567", "1.234567e+06"),
            ("67108864", "6.7108864e+07"),
            ("8589934592", "8.589935e+09"),
            ("9e9", "8.999999e+09"),
            ("0.00024414062", "0.00024414062"),
            ("1.54742505e+26", "1.5474251e+26"),
            ("3.4028235e38", "3.4028235e+38"),
            ("1e-45", "1e-45"),
            ("1.1754944e-38", "1.1754944e-38"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("3.1415927", "3.1415927"),
            ("NaN", "NaN"),
            ("-inf", "-Infinity"),
        ] {
            assert_eq!(single(given.parse().unwrap(), 1), want, "{given}");
        }
    }

    #[test]
    fn a_client_may_ask_for_fewer_digits() {
        for (extra_digits, want) in [
            (
                3,
                [
                    "0.3333333333333333",
                    "123456789.125",
                    "1e+15",
                    "100000000000000",
                    "0.30000000000000004",
                    "100",
                    "0.33333334",
                    "1.234567e+06",
                ],
            ),
            (0, ["0.333333333333333", "123456789.125", "1e+15", "100000000000000", "0.3", "100", "0.333333", "1.23457e+06"]),
            (-3, ["0.333333333333", "123456789.125", "1e+15", "1e+14", "0.3", "100", "0.333", "1.23e+06"]),
            (-15, ["0.3", "1e+08", "1e+15", "1e+14", "0.3", "1e+02", "0.3", "1e+06"]),
        ] {
            let doubles = [1.0 / 3.0, 123_456_789.125, 1e15, 1e14, 0.300_000_000_000_000_04, 100.0].map(|n| double(n, extra_digits));
            let singles = [1.0 / 3.0, 1_234_567.0].map(|n| single(n, extra_digits));
            assert_eq!([&doubles[..], &singles].concat(), want, "{extra_digits}");
        }
    }

    #[test]
    fn every_text_is_read_as_the_same_number() {
        // A sequence that visits all exponents; deterministic.
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = f64::from_bits(bits);
            if number.is_finite() {
                assert_eq!(double(number, 1).parse::<f64>().unwrap().to_bits(), bits, "{number:e}");
            }
            let number = f32::from_bits((bits >> 32) as u32);
            if number.is_finite() {
                assert_eq!(single(number, 1).parse::<f32>().unwrap(), number, "{number:e}");
            }
        }
    }
}
