//! MQTT without sockets: topics, sessions, and device profiles from payload to entity.
