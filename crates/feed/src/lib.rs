//! Devices for trying and testing: recorded files and simulated cities, played as MQTT messages.
