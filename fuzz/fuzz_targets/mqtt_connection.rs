//! Bytes of an MQTT client, whatever they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt::connection::{Event, Limits, ServerConnection};

fuzz_target!(|data: &[u8]| {
    let mut connection = ServerConnection::new(Limits::default(), "spare".into());
    let mut events = connection.receive(data);
    while !events.is_empty() {
        let mut more = Vec::new();
        for event in events {
            more.extend(match event {
                Event::Connect(_) => connection.accept(),
                Event::Publish(p) => p.packet_id.map(|id| connection.acknowledge(id, Ok(()))).unwrap_or_default(),
                Event::Subscribe(s) => connection.answer_subscribe(s.packet_id, &s.filters.iter().map(|f| Ok(f.qos)).collect::<Vec<_>>()),
                Event::Unsubscribe(u) => connection.answer_unsubscribe(u.packet_id, &vec![Ok(true); u.filters.len()]),
                Event::SetTimer(_) | Event::Ended(_) => Vec::new(),
            });
        }
        events = more;
        connection.take_output();
    }
});
