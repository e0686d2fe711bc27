//! Listeners and routes: HTTP, MQTT, peers, the live feed and the console; status codes live here.
