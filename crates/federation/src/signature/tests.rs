use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

/// RFC 9421, section B.1.4: `test-key-ed25519`.
const RFC_KEY_FILE: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
const RFC_PUBLIC_KEY: &str = "ed25519:JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";
/// RFC 9421, section B.2.6.
const RFC_INPUT: &str =
    r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
const RFC_BASE: &str = r#""date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
const RFC_SIGNATURE: &str = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";

/// RFC 9421, section B.2: the request that its examples sign.
fn rfc_request() -> MessageParts<'static> {
    MessageParts {
        method: "POST",
        target: "/foo?param=Value&Pet=dog",
        authority: Some("example.com"),
        headers: vec![
            ("Host", "example.com"),
            ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("Content-Type", "application/json"),
            ("Content-Digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"),
            ("Content-Length", "18"),
        ],
        body: br#"{"hello": "world"}"#,
    }
}

#[test]
fn the_signature_of_rfc_9421_b_2_6_is_reproduced() {
    let key = CityKey::from_key_file(RFC_KEY_FILE.as_bytes()).unwrap();
    assert_eq!(key.public().to_string(), RFC_PUBLIC_KEY);
    let input = Input::labelled(RFC_INPUT, "sig-b26").unwrap().unwrap();
    assert_eq!(format!("sig-b26={}", input.text_of_parameters()), RFC_INPUT);
    let base = input.base(|c| request_value(&rfc_request(), c)).unwrap();
    assert_eq!(base, RFC_BASE);
    assert_eq!(STANDARD.encode(key.sign(base.as_bytes())), RFC_SIGNATURE);
    assert!(key::verify(key.public(), base.as_bytes(), &STANDARD.decode(RFC_SIGNATURE).unwrap()));
    assert!(!key::verify(key.public(), base.replace("18", "19").as_bytes(), &STANDARD.decode(RFC_SIGNATURE).unwrap()));
}

#[test]
fn derived_components_follow_rfc_9421_section_2_2() {
    check("/foo?param=Value&Pet=dog", "@query", "?param=Value&Pet=dog");
    check("/foo", "@query", "?");
    check("/foo?", "@query", "?");
    check("/foo?a", "@path", "/foo");
    check("", "@path", "/");
    check("/foo?a", "@request-target", "/foo?a");
    check("/foo", "@authority", "example.com");
    check("/foo", "x-twice", "a, b");

    #[track_caller]
    fn check(target: &str, component: &str, want: &str) {
        let headers = vec![("X-Twice", " a "), ("x-twice", "b")];
        let request = MessageParts { method: "GET", target, authority: Some("EXAMPLE.com"), headers, body: b"" };
        assert_eq!(request_value(&request, &Component::plain(component)).as_deref(), Ok(want));
    }
}

/// RFC 9530, appendix B.
#[test]
fn digests_follow_rfc_9530() {
    assert_eq!(content_digest(b"{\"hello\": \"world\"}\n"), "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    assert_eq!(content_digest(b""), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
}

const NOW_S: i64 = 1_767_225_600;

fn now() -> Instant {
    Instant::from_secs(NOW_S)
}

fn beijing() -> CityName {
    "beijing".parse().unwrap()
}

fn key(n: u8) -> CityKey {
    CityKey::from_seed(&[n; 32])
}

fn question() -> MessageParts<'static> {
    MessageParts {
        method: "POST",
        target: "/peer/v1/ask?x=1",
        authority: None,
        headers: vec![("Content-Type", "application/json")],
        body: b"{\"a\":1}",
    }
}

type Owned = Vec<(String, String)>;

fn signed(at: Instant, nonce: u8) -> Owned {
    owned(&question(), sign_request(&question(), &key(1), &beijing(), at, &[nonce; 16]))
}

fn owned(message: &MessageParts<'_>, added: Headers) -> Owned {
    let mut all: Owned = message.headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    all.extend(added.into_iter().map(|(n, v)| (n.to_owned(), v)));
    all
}

fn borrowed(headers: &Owned) -> Vec<(&str, &str)> {
    headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
}

fn receive(message: &MessageParts<'_>, nonces: &mut NonceCache) -> Result<Verified, SignatureError> {
    let members = |k: &PublicKey| (k == key(1).public()).then(|| "guangzhou".parse().unwrap());
    verify_request(message, &Receiver { city: &beijing(), members: &members, now: now() }, nonces)
}

fn with<'a>(headers: &'a Owned, change: impl FnOnce(&mut MessageParts<'a>)) -> MessageParts<'a> {
    let mut message = MessageParts { headers: borrowed(headers), ..question() };
    change(&mut message);
    message
}

#[test]
fn a_signed_request_is_accepted_once() {
    let headers = signed(now(), 7);
    let mut nonces = NonceCache::new();
    let message = with(&headers, |_| ());
    let verified = receive(&message, &mut nonces).unwrap();
    assert_eq!(verified, Verified { city: "guangzhou".parse().unwrap(), key: *key(1).public(), created: now() });
    assert_eq!(receive(&message, &mut nonces), Err(SignatureError::Replayed));
    let other = signed(now(), 8);
    assert!(receive(&with(&other, |_| ()), &mut nonces).is_ok());
}

#[test]
fn the_headers_look_as_documented() {
    let headers = signed(now(), 0xab);
    let key = key(1).public().to_string();
    let want = format!(
        "conurb=(\"@method\" \"@path\" \"@query\" \"content-digest\" \"conurb-to\");created={NOW_S};keyid=\"{key}\";nonce=\"{}\";tag=\"conurb-peer\"",
        "ab".repeat(16)
    );
    assert_eq!(headers.iter().find(|(n, _)| n == "signature-input").unwrap().1, want);
    assert_eq!(headers.iter().find(|(n, _)| n == "conurb-to").unwrap().1, "beijing");
}

#[test]
fn every_change_of_a_request_is_noticed() {
    let headers = signed(now(), 1);
    check(&with(&headers, |m| m.method = "PUT"), "does not fit the message");
    check(&with(&headers, |m| m.target = "/peer/v1/other?x=1"), "does not fit the message");
    check(&with(&headers, |m| m.target = "/peer/v1/ask?x=2"), "does not fit the message");
    check(&with(&headers, |m| m.target = "/peer/v1/ask"), "does not fit the message");
    check(&with(&headers, |m| m.body = b"{\"a\":2}"), "the content is not the one that was signed");
    let with_digest: Owned =
        headers.iter().map(|(n, v)| (n.clone(), if n == "content-digest" { content_digest(b"{\"a\":2}") } else { v.clone() })).collect();
    check(&with(&with_digest, |m| m.body = b"{\"a\":2}"), "does not fit the message");
    let with_to: Owned = headers.iter().map(|(n, v)| (n.clone(), if n == TO_HEADER { "shanghai".into() } else { v.clone() })).collect();
    check(&with(&with_to, |_| ()), "the request is meant for `shanghai`, this is `beijing`");
    for name in ["signature", "signature-input", "content-digest"] {
        let without: Owned = headers.iter().filter(|(n, _)| n != name).cloned().collect();
        check(&with(&without, |_| ()), &format!("header `{name}` is missing"));
    }
    let twice: Owned = headers.iter().cloned().chain([(TO_HEADER.to_owned(), "beijing".to_owned())]).collect();
    check(&with(&twice, |_| ()), "the request is meant for `beijing, beijing`");

    #[track_caller]
    fn check(message: &MessageParts<'_>, want: &str) {
        let mut nonces = NonceCache::new();
        let error = receive(message, &mut nonces).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
        assert_eq!(nonces.n_remembered(), 0, "what is refused takes no memory");
    }
}

#[test]
fn a_request_for_another_city_cannot_be_passed_on() {
    let shanghai = sign_request(&question(), &key(1), &"shanghai".parse().unwrap(), now(), &[1; 16]);
    let headers = owned(&question(), shanghai);
    let error = receive(&with(&headers, |_| ()), &mut NonceCache::new()).unwrap_err();
    assert_eq!(error, SignatureError::OtherCity { found: "shanghai".into(), expected: beijing() });
}

#[test]
fn strangers_and_wrong_clocks_are_refused_in_plain_words() {
    let stranger = owned(&question(), sign_request(&question(), &key(2), &beijing(), now(), &[1; 16]));
    let error = receive(&with(&stranger, |_| ()), &mut NonceCache::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("no member of this cluster has the key `{}`", key(2).public()));
    clock(-3600, "the peer's clock is 3,600 s behind ours; at most 300 s are allowed (or the message was held up)");
    clock(301, "the peer's clock is 301 s ahead of ours; at most 300 s are allowed (or the message was held up)");
    for ok in [-300, 300] {
        assert!(receive(&with(&signed(now().plus_micros(ok * 1_000_000), 1), |_| ()), &mut NonceCache::new()).is_ok());
    }

    #[track_caller]
    fn clock(ahead_s: i64, want: &str) {
        let headers = signed(now().plus_micros(ahead_s * 1_000_000), 1);
        assert_eq!(receive(&with(&headers, |_| ()), &mut NonceCache::new()).unwrap_err().to_string(), want);
    }
}

/// A signature that is made by the right key but says something else.
fn signed_with(components: &[&str], parameters: Parameters) -> Owned {
    let mut all = question();
    let digest = content_digest(all.body);
    all.headers.extend([("content-digest", digest.as_str()), (TO_HEADER, "beijing")]);
    let input = Input { components: components.iter().map(|c| Component::plain(c)).collect(), parameters };
    let base = input.base(|c| request_value(&all, c)).unwrap();
    let added = signature_headers(&input, &key(1), &base);
    owned(&all, added)
}

#[test]
fn a_good_signature_over_too_little_is_refused() {
    const ALL: [&str; 5] = ["@method", "@path", "@query", "content-digest", TO_HEADER];
    let text = |k: &str, v: &str| (k.to_owned(), Bare::Text(v.to_owned()));
    let good = parameters_of(&key(1), now(), Some("n".into()));
    let without = |name: &str| good.iter().filter(|(k, _)| k != name).cloned().collect::<Parameters>();
    assert!(receive(&with(&signed_with(&ALL, good.clone()), |_| ()), &mut NonceCache::new()).is_ok());
    for missing in ALL {
        let some: Vec<_> = ALL.into_iter().filter(|c| *c != missing).collect();
        check(&signed_with(&some, good.clone()), &format!("the signature does not cover `{missing}`"));
    }
    check(&signed_with(&ALL, without("created")), "the signature's `created` is missing");
    check(&signed_with(&ALL, without("keyid")), "the signature's `keyid` is missing");
    check(&signed_with(&ALL, without("nonce")), "the signature's `nonce` is missing");
    check(&signed_with(&ALL, without("tag")), "the tag of the signature `conurb` is not \"conurb-peer\"");
    let plus = |k: &str, v: Bare| good.iter().cloned().chain([(k.to_owned(), v)]).collect::<Parameters>();
    check(&signed_with(&ALL, plus("alg", Bare::Text("hmac-sha256".into()))), "the algorithm is not \"ed25519\"");
    assert!(receive(&with(&signed_with(&ALL, plus("alg", Bare::Text("ed25519".into()))), |_| ()), &mut NonceCache::new()).is_ok());
    check(&signed_with(&ALL, plus("expires", Bare::Integer(NOW_S - 5))), "the signature expired 5 s ago");
    let bad_key = [without("keyid"), vec![text("keyid", "ed25519:AAAA")]].concat();
    check(&signed_with(&ALL, bad_key), "keyid is not a city's key");
    let long = [without("nonce"), vec![text("nonce", &"x".repeat(129))]].concat();
    check(&signed_with(&ALL, long), "a nonce of 129 characters");

    #[track_caller]
    fn check(headers: &Owned, want: &str) {
        let error = receive(&with(headers, |_| ()), &mut NonceCache::new()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn parts_that_cannot_be_rebuilt_are_named() {
    let mut headers = signed(now(), 1);
    let input = headers.iter_mut().find(|(n, _)| n == "signature-input").unwrap();
    input.1 = input.1.replace("\"conurb-to\"", "\"conurb-to\" \"@authority\"");
    let error = receive(&with(&headers, |_| ()), &mut NonceCache::new()).unwrap_err().to_string();
    assert_eq!(error, "the signature covers `\"@authority\"`, which this end does not know");
    let line_break = vec![("x", "a\nb")];
    let message = MessageParts { headers: line_break, ..question() };
    let input = Input { components: vec![Component::plain("x")], parameters: Vec::new() };
    assert!(input.base(|c| request_value(&message, c)).unwrap_err().to_string().contains("line break"));
}

fn answer_to<'a>(request: &MessageParts<'_>, body: &'a [u8], by: u8) -> (ResponseParts<'a>, Owned) {
    let response = ResponseParts { status: 200, headers: vec![("content-type", "application/json")], body };
    let added = sign_response(request, &response, &key(by), now()).unwrap();
    let headers: Owned = added.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    (response, headers)
}

#[test]
fn a_response_fits_only_its_request() {
    let headers = signed(now(), 1);
    let request = with(&headers, |_| ());
    let (response, added) = answer_to(&request, b"{}", 2);
    let response = ResponseParts { headers: response.headers.iter().copied().chain(borrowed(&added)).collect(), ..response };
    let from = *key(2).public();
    let check = |request: &MessageParts<'_>, response: &ResponseParts<'_>, from: &PublicKey, at: Instant| {
        verify_response(request, response, from, at).map_err(|e| e.to_string())
    };
    assert_eq!(check(&request, &response, &from, now()), Ok(()));
    let other_headers = signed(now(), 2);
    let other = with(&other_headers, |_| ());
    assert!(check(&other, &response, &from, now()).unwrap_err().contains("does not fit the message"));
    let status = ResponseParts { status: 403, ..response.clone() };
    assert!(check(&request, &status, &from, now()).unwrap_err().contains("does not fit the message"));
    let body = ResponseParts { body: b"[]", ..response.clone() };
    assert!(check(&request, &body, &from, now()).unwrap_err().contains("the content is not the one"));
    assert!(check(&request, &response, key(1).public(), now()).unwrap_err().contains("is signed with the key"));
    let late = now().plus_micros(301_000_000);
    assert!(check(&request, &response, &from, late).unwrap_err().contains("301 s behind ours"));
    // A request's signature does not pass for a response's.
    let fake = ResponseParts { headers: borrowed(&headers), ..response };
    assert!(check(&request, &fake, key(1).public(), now()).unwrap_err().contains("does not cover `@status`"));
}

#[test]
fn an_unsigned_request_gets_no_signed_response() {
    let response = ResponseParts { status: 200, headers: Vec::new(), body: b"" };
    let error = sign_response(&question(), &response, &key(2), now()).unwrap_err();
    assert_eq!(error, SignatureError::Missing { what: "header `signature`" });
}

proptest! {
    #[test]
    fn any_headers_give_an_answer_not_a_panic(
        input in prop_oneof!["\\PC{0,80}", r#"conurb=\("[a-z@]{1,8}"( "[a-z@-]{1,8}")?\);created=[0-9]{1,16};keyid="[a-z0-9:]{0,20}";tag="conurb-peer""#],
        signature in prop_oneof!["\\PC{0,40}", "conurb=:[A-Za-z0-9+/=]{0,20}:"],
        digest in "\\PC{0,40}",
        body: Vec<u8>,
    ) {
        let headers = vec![("signature-input", input.as_str()), ("signature", &signature), ("content-digest", &digest), (TO_HEADER, "beijing")];
        let message = MessageParts { headers: headers.clone(), body: &body, ..question() };
        prop_assert!(receive(&message, &mut NonceCache::new()).is_err());
        let response = ResponseParts { status: 200, headers, body: &body };
        prop_assert!(verify_response(&message, &response, key(1).public(), now()).is_err());
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else(
        body: Vec<u8>,
        path in "/[a-z/]{0,12}",
        query in proptest::option::of("[a-z=&%0-9]{0,12}"),
        authority in proptest::option::of("[a-zA-Z.]{1,10}"),
        nonce: [u8; 16],
        flip in any::<proptest::sample::Index>(),
    ) {
        let target = query.map_or(path.clone(), |q| format!("{path}?{q}"));
        let message = MessageParts { method: "POST", target: &target, authority: authority.as_deref(), headers: Vec::new(), body: &body };
        let headers = owned(&message, sign_request(&message, &key(1), &beijing(), now(), &nonce));
        let complete = MessageParts { headers: borrowed(&headers), ..message };
        prop_assert!(receive(&complete, &mut NonceCache::new()).is_ok());
        if !body.is_empty() {
            let mut changed = body.clone();
            changed[flip.index(body.len())] ^= 1;
            let changed = MessageParts { body: &changed, ..complete };
            prop_assert_eq!(receive(&changed, &mut NonceCache::new()), Err(SignatureError::Digest));
        }
    }
}
