//! SQL over state and history: the only crate that links the SQL engine.
