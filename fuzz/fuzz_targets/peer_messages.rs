//! What another city sends: questions, answers, signature headers.
#![no_main]

use federation::signature::{MessageParts, NonceCache, Receiver, verify_request};
use federation::{Answer, Question};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Question::decode(data);
    let _ = Answer::decode(data);
    if let Some((head, body)) = std::str::from_utf8(data).ok().and_then(|t| t.split_once("\n\n")) {
        let headers = head.lines().filter_map(|l| l.split_once(": ")).collect();
        let request = MessageParts { method: "POST", target: "/peer/v1/ask", authority: None, headers, body: body.as_bytes() };
        let city = "shanghai".parse().expect("a name");
        let receiver = Receiver { city: &city, members: &|_| None, now: entity::Instant::from_secs(1_700_000_000) };
        assert!(verify_request(&request, &receiver, &mut NonceCache::new()).is_err(), "nobody is a member here");
    }
});
