//! Log, state and history of a node; engines behind one trait per kind of data.
