//! The operations of a node: authorize, validate, commit, answer. The only way in.
