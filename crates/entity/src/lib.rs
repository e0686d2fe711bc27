//! The words of the city: entities, attributes, instants, geometries, changes and the filter tree.
