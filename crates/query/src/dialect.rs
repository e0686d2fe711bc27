//! What PostgreSQL users write and the engine does not know by itself, as something that it knows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Statement, Value,
    ValueWithSpan, visit_expressions_mut,
};

/// Rewrites casts to PostGIS's types: `x::geometry` becomes `st_geometry(x)`, `x::geography` becomes `st_geography(x)`.
pub(crate) fn rewrite(statement: &mut Statement) {
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
        if let Expr::Cast { expr: inner, data_type: DataType::Custom(name, modifiers), .. } = expr
            && let Some(function) = name.0.last().and_then(|part| part.as_ident()).and_then(|ident| function_of(&ident.value))
        {
            let mut arguments = vec![(**inner).clone()];
            // As in geometry(Point, 4326): the reference system.
            if function == "st_geometry"
                && let Some(srid) = modifiers.get(1).filter(|m| m.parse::<u32>().is_ok())
            {
                arguments.push(Expr::Value(ValueWithSpan::from(Value::Number(srid.clone(), false))));
            }
            *expr = call(function, arguments);
        }
        ControlFlow::Continue(())
    });
}

fn function_of(type_name: &str) -> Option<&'static str> {
    match type_name.to_ascii_lowercase().as_str() {
        "geometry" => Some("st_geometry"),
        "geography" => Some("st_geography"),
        _ => None,
    }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn casts_to_the_types_of_postgis_become_functions() {
        check("select 'POINT(1 2)'::geometry", "SELECT st_geometry('POINT(1 2)')");
        check(
            "select cast(a as geography) from t where b::geometry(Point,4326) = c",
            "SELECT st_geography(a) FROM t WHERE st_geometry(b, 4326) = c",
        );
        check("select st_x(a::geometry::geography)", "SELECT st_x(st_geography(st_geometry(a)))");
        check("select 1::text", "SELECT 1::TEXT");

        #[track_caller]
        fn check(sql: &str, want: &str) {
            let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
            rewrite(&mut statements[0]);
            assert_eq!(statements[0].to_string(), want);
        }
    }
}
