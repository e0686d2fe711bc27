//! NGSI-LD codec: contexts, entities, queries and notifications as bytes and as domain types.
