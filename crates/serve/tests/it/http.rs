//! The HTTP binding: clauses 6.2 and 6.3, and what HTTP itself asks (RFC 9110).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use serve::{HttpOptions, Origins, Tls};
use tokio::net::TcpListener;

use crate::city::{Answer, City, request};

const ID: &str = "urn:ngsi-ld:Lamp:1";

fn lamp() -> Value {
    json!({"id": ID, "type": "Lamp", "power": {"type": "Property", "value": 7}})
}

fn lit_city() -> City {
    let city = City::start();
    city.has(lamp());
    city
}

/// Sends these very bytes; the answer until the end of the connection.
fn raw(city: &City, bytes: &str) -> String {
    let mut stream = TcpStream::connect(&city.http).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn clause_6_3_2_lengths_and_types_of_bodies() {
    let city = City::start();
    let path = "POST /ngsi-ld/v1/entities HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    for head in [format!("{path}\r\n"), format!("{path}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")] {
        let answer = raw(&city, &head);
        assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("content-type"), "no body: {answer}");
    }
    for wrong in ["text/plain", "application/xml", "application/merge-patch+json", "application/geo+json"] {
        let answer = city.send("POST", "entities", &[("content-type", wrong)], Some("{}")).expect(415);
        assert_eq!((answer.body.as_str(), answer.header("content-type")), ("", Vec::new()), "{wrong}");
    }
    city.send("POST", "entities", &[], Some("{}")).expect(415);
    city.send("POST", "entities", &[("content-type", "application/json; charset=utf-8")], Some(&lamp().to_string())).expect(201);
    let patch = [("content-type", "application/merge-patch+json")];
    city.send("PATCH", &format!("entities/{ID}"), &patch, Some("{\"power\": 8}")).expect(204);
    assert_eq!(city.simplified(ID)["power"], 8);
    let large = format!("[{}]", " ".repeat(17 << 20));
    city.send("POST", "entities", &[("content-type", "application/json")], Some(&large)).problem(413, "TooManyResults");
}

#[test]
fn clause_6_3_4_what_the_answer_may_be() {
    let city = lit_city();
    let look = |path: &str, accept: &str| city.send("GET", path, &[("accept", accept)], None);
    let entity = format!("entities/{ID}");
    for (accept, want) in [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json, application/ld+json", "application/json"),
        ("application/json;q=0.5, application/ld+json", "application/ld+json"),
        ("application/geo+json", "application/geo+json"),
        ("text/html, application/ld+json;q=0.1", "application/ld+json"),
        ("application/json;q=0, */*", "application/ld+json"),
    ] {
        assert_eq!(look(&entity, accept).expect(200).header("content-type"), [want], "{accept}");
    }
    assert_eq!(city.get(&entity).header("content-type"), ["application/json"]);
    let refused = look(&entity, "text/html").problem(406, "InvalidRequest");
    for listed in ["application/json", "application/ld+json", "application/geo+json"] {
        assert!(refused.body.contains(listed), "{}", refused.body);
    }
    // GeoJSON is for entities only.
    for path in ["types", "subscriptions"] {
        let refused = look(path, "application/geo+json").problem(406, "InvalidRequest");
        assert!(!refused.body.contains("geo+json"), "{}", refused.body);
    }
    // What is written has no such answer; errors are always JSON.
    let headers = [("content-type", "application/json"), ("accept", "text/html")];
    city.send("POST", "entities", &headers, Some(&lamp().to_string())).problem(409, "AlreadyExists");
    look("entities/urn:x:none", "application/ld+json").problem(404, "ResourceNotFound");
}

#[test]
fn clause_6_3_6_contexts_of_answers() {
    let city = lit_city();
    let entity = format!("entities/{ID}");
    let look = |accept: &str, prefer: &str| city.send("GET", &entity, &[("accept", accept), ("prefer", prefer)], None).expect(200);
    let is_context_link = |a: &Answer| a.header("link").iter().any(|l| l.contains("rel=\"http://www.w3.org/ns/json-ld#context\""));
    assert!(is_context_link(&look("application/json", "")));
    assert!(look("application/json", "").json().get("@context").is_none());
    assert!(!is_context_link(&look("application/ld+json", "")));
    assert!(look("application/ld+json", "").json().get("@context").is_some());
    // GeoJSON has its context in the body, or in the header if that is preferred.
    assert!(look("application/geo+json", "").json().get("@context").is_some());
    assert!(look("application/geo+json", "body=ld+json").json().get("@context").is_some());
    let plain = look("application/geo+json", "respond-async, body=json");
    assert!(is_context_link(&plain) && plain.json().get("@context").is_none(), "{plain:?}");
    // Neither errors nor answers without a body have one.
    assert!(!is_context_link(&city.get("entities/urn:x:none").expect(404)));
    let empty = city.delete(&entity).expect(204);
    assert!(!is_context_link(&empty) && empty.header("content-length").is_empty() && empty.body.is_empty(), "{empty:?}");
}

#[test]
fn clause_6_3_6_errors_have_full_names() {
    let city = lit_city();
    let answer = city.with_body("PATCH", &format!("entities/{ID}/attrs"), json!({"power": 8, "gone": "urn:ngsi-ld:null"})).expect(207);
    assert_eq!(answer.header("content-type"), ["application/json"]);
    assert_eq!(answer.json()["notUpdated"][0]["attributeName"], "https://uri.etsi.org/ngsi-ld/default-context/gone");
    assert!(answer.header("link").is_empty());
}

#[test]
fn clause_6_3_2_methods_and_paths() {
    let city = lit_city();
    let allow = |method: &str, path: &str, status: u16| {
        let answer = city.send(method, path, &[("content-length", "0")], None).expect(status);
        let mut allowed: Vec<String> = answer.header("allow")[0].split(',').map(|m| m.trim().to_owned()).collect();
        allowed.sort();
        allowed
    };
    assert_eq!(allow("PUT", "entities", 405), ["DELETE", "GET", "HEAD", "POST"]);
    assert_eq!(allow("POST", &format!("entities/{ID}"), 405), ["DELETE", "GET", "HEAD", "PATCH", "PUT"]);
    assert_eq!(allow("OPTIONS", "entities", 204), ["DELETE", "GET", "HEAD", "POST"]);
    city.send("PUT", "types", &[("content-length", "0")], None).problem(405, "OperationNotSupported");
    // With and without a closing slash.
    for path in ["entities/?type=Lamp", "types/", "subscriptions/", &format!("entities/{ID}/")] {
        city.get(path).expect(200);
    }
    city.get("nowhere").problem(404, "ResourceNotFound");
    let got = city.get(&format!("entities/{ID}"));
    let head = city.send("HEAD", &format!("entities/{ID}"), &[], None).expect(200);
    assert_eq!((head.body.as_str(), head.header("content-length")), ("", got.header("content-length")));
    assert_eq!((head.header("etag"), head.header("content-type")), (got.header("etag"), got.header("content-type")));
    city.send("HEAD", "entities/urn:x:none", &[], None).expect(404);
}

#[test]
fn clause_6_3_20_unknown_parameters_and_options() {
    let city = lit_city();
    for path in [
        "entities?type=Lamp&page=2".to_owned(),
        "entities?type=Lamp&options=pretty".to_owned(),
        format!("entities/{ID}?unit=SI"),
        format!("entities/{ID}?options=noOverwrite"),
        "types?detail=true".to_owned(),
        "attributes?type=Lamp".to_owned(),
        "subscriptions?q=1".to_owned(),
    ] {
        let answer = city.get(&path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        answer.problem(400, "InvalidRequest");
    }
}

#[test]
fn clause_6_3_6_clients_of_older_versions() {
    let city = City::start();
    city.has(json!({"id": ID, "type": ["Lamp", "Post"], "scope": "/a",
        "power": {"type": "Property", "value": 7, "unitCode": "WTT", "valueType": "int"},
        "name": {"type": "LanguageProperty", "languageMap": {"en": "lamp"}},
        "parts": {"type": "ListProperty", "valueList": [1, 2]}, "in": {"type": "Relationship", "object": "urn:x:9", "objectType": "Road"}}));
    let look = |path: &str, version: &str| city.send("GET", path, &[("prefer", &format!("ngsi-ld={version}"))], None);
    let path = format!("entities/{ID}");
    let old = look(&path, "1.7").expect(203);
    assert_eq!(old.header("preference-applied"), ["ngsi-ld=1.7"]);
    let shown = old.json();
    assert_eq!(shown["parts"], json!({"type": "Property", "value": [1, 2]}));
    assert_eq!((shown["power"].get("valueType"), shown["in"].get("objectType")), (None, None));
    assert_eq!((&shown["name"]["type"], &shown["type"]), (&json!("LanguageProperty"), &json!(["Lamp", "Post"])));
    let older = look(&path, "1.2").expect(203).json();
    assert_eq!((older.get("scope"), older["power"].get("unitCode"), &older["name"]["type"]), (None, None, &json!("Property")));
    assert_eq!(older["type"], "Lamp");
    let list = look("entities?type=Lamp", "1.7").expect(203).json();
    assert_eq!(list[0]["parts"]["type"], "Property");
    // What is the same in both versions is only marked.
    let same = look(&path, "1.9").expect(200);
    assert_eq!((same.header("preference-applied"), same.json()), (vec!["ngsi-ld=1.9"], city.get(&path).json()));
    look(&path, "old").problem(400, "InvalidRequest");
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let city = lit_city();
    let path = format!("entities/{ID}");
    let look = |path: &str, tag: &str| city.send("GET", path, &[("if-none-match", tag)], None);
    let tag = city.get(&path).header("etag")[0].to_owned();
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let answer = look(&path, &known).expect(304);
        assert_eq!((answer.body.as_str(), answer.header("etag")), ("", vec![tag.as_str()]));
    }
    look(&path, "\"x\"").expect(200);
    // Linked entities are not in the tag.
    look(&format!("{path}?join=inline"), &tag).expect(200);
    city.with_body("PATCH", &path, json!({"power": 9})).expect(204);
    assert_eq!(look(&path, &tag).expect(200).json()["power"]["value"], 9);
    look("entities/urn:x:none", "*").problem(404, "ResourceNotFound");
}

#[test]
fn long_answers_are_compressed_for_who_asks() {
    let city = City::start();
    let lamps = (0..200).map(|i| json!({"id": format!("urn:ngsi-ld:Lamp:{i}"), "type": "Lamp", "power": {"type": "Property", "value": i}}));
    city.has(Value::Array(lamps.collect()));
    let path = "entities?type=Lamp&limit=200";
    let plain = city.get(path).expect(200);
    let packed = |accept: &str| {
        let bytes = bytes_of(&city, path, accept);
        assert!(bytes.1.len() * 5 < plain.body.len(), "{accept}: {} of {}", bytes.1.len(), plain.body.len());
        bytes
    };
    let (coding, gzip) = packed("gzip");
    assert_eq!(coding, "gzip");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(gzip.as_slice()).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let (coding, brotli) = packed("gzip, br");
    assert_eq!(coding, "br");
    unpacked.clear();
    brotli::Decompressor::new(brotli.as_slice(), 4096).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    // Short ones are not worth it.
    assert_eq!(bytes_of(&city, "entities/urn:ngsi-ld:Lamp:1", "gzip").0, "");
}

/// The coding and the bytes of an answer as they were sent.
fn bytes_of(city: &City, path: &str, accept: &str) -> (String, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = reqwest::Client::new().get(city.url(&format!("/ngsi-ld/v1/{path}"))).header("accept-encoding", accept);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let coding = response.headers().get("content-encoding").map(|c| c.to_str().unwrap().to_owned()).unwrap_or_default();
        (coding, response.bytes().await.unwrap().to_vec())
    })
}

#[test]
fn bodies_may_come_as_gzip() {
    let city = City::start();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let post = |coding: &str, body: Vec<u8>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let request = reqwest::Client::new().post(city.url("/ngsi-ld/v1/entities")).body(body);
            let request = request.header("content-type", "application/json").header("content-encoding", coding);
            request.send().await.unwrap().status().as_u16()
        })
    };
    assert_eq!(post("gzip", gzip(&lamp().to_string())), 201);
    assert_eq!(city.simplified(ID)["power"], 7);
    assert_eq!(post("gzip", lamp().to_string().into_bytes()), 400);
    assert_eq!(post("deflate", gzip("{}")), 415);
    // A small body that would be a large one.
    assert_eq!(post("gzip", gzip(&" ".repeat(20 << 20))), 413);
}

/// A second listener of the city's with these options; its address.
fn listen(city: &City, options: HttpOptions) -> String {
    let listener = city.runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    city.runtime().spawn(serve::serve_http_with(listener, Arc::clone(&city.app), options, city.app.stop.clone()));
    address
}

#[test]
fn pages_of_other_origins_are_let_in_only_where_configured() {
    let city = lit_city();
    let page = ("origin", "https://map.example");
    let ask = |base: &str, method: &str, origin: &'static str| {
        let more = ("access-control-request-method", "PATCH");
        request(method, &format!("http://{base}/ngsi-ld/v1/entities/{ID}"), &[("origin", origin), more], None)
    };
    // By default none.
    for method in ["GET", "OPTIONS"] {
        assert!(ask(&city.http, method, page.1).header("access-control-allow-origin").is_empty(), "{method}");
    }
    let origins = Origins::from_list(&["https://map.example".to_owned()]).unwrap();
    let some = listen(&city, HttpOptions { origins, tls: None });
    let preflight = ask(&some, "OPTIONS", page.1).expect(204);
    assert_eq!(preflight.header("access-control-allow-origin"), ["https://map.example"]);
    assert!(preflight.header("access-control-allow-methods")[0].contains("PATCH"));
    assert!(preflight.header("access-control-allow-headers")[0].contains("authorization"));
    let got = ask(&some, "GET", page.1).expect(200);
    assert_eq!(got.header("access-control-allow-origin"), ["https://map.example"]);
    assert!(got.header("access-control-expose-headers")[0].contains("ngsild-results-count"));
    assert!(got.header("vary").iter().any(|v| v.contains("origin")), "{got:?}");
    for method in ["GET", "OPTIONS"] {
        assert!(ask(&some, method, "https://evil.example").header("access-control-allow-origin").is_empty(), "{method}");
    }
    let every = listen(&city, HttpOptions { origins: Origins::Every, tls: None });
    assert_eq!(ask(&every, "GET", "https://any.example").expect(200).header("access-control-allow-origin"), ["*"]);
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

/// A client that trusts this certificate and nothing else.
async fn get_trusting(name: &str, url: &str) -> Result<u16, String> {
    let root = reqwest::Certificate::from_pem(&std::fs::read(fixture(name)).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    client.get(url).send().await.map(|r| r.status().as_u16()).map_err(|e| host::chain(&e))
}

#[test]
fn clause_6_2_https_and_a_certificate_that_is_exchanged() {
    let city = lit_city();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let put = |name: &str| {
        std::fs::copy(fixture(&format!("{name}.cert.pem")), &cert).unwrap();
        std::fs::copy(fixture(&format!("{name}.key.pem")), &key).unwrap();
    };
    put("a");
    let tls = Arc::new(Tls::load(&cert, &key).unwrap());
    let address = listen(&city, HttpOptions { origins: Origins::None, tls: Some(Arc::clone(&tls)) });
    let url = format!("https://{address}/ngsi-ld/v1/entities/{ID}");
    let get = |name: &str| city.runtime().block_on(get_trusting(name, &url));
    assert_eq!(get("a.cert.pem"), Ok(200));
    assert!(get("b.cert.pem").unwrap_err().contains("certificate"));
    put("b");
    tls.reload().unwrap();
    assert_eq!(get("b.cert.pem"), Ok(200));
    assert!(get("a.cert.pem").is_err());
    // What cannot be used changes nothing and says why.
    std::fs::copy(fixture("a.key.pem"), &key).unwrap();
    assert!(host::chain(&tls.reload().unwrap_err()).contains("cannot be used"));
    std::fs::write(&cert, "nothing").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("no certificate"));
    std::fs::remove_file(&cert).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("cannot read the certificate"));
    assert_eq!(get("b.cert.pem"), Ok(200));
    // Plain HTTP on that port is no answer, and harms nobody.
    assert!(city.runtime().block_on(async { reqwest::get(format!("http://{address}/healthz")).await }).is_err());
    assert_eq!(get("b.cert.pem"), Ok(200));
}

#[test]
fn http_2_by_prior_knowledge_and_by_alpn() {
    let city = lit_city();
    let tls = Arc::new(Tls::load(&fixture("a.cert.pem"), &fixture("a.key.pem")).unwrap());
    let secure = listen(&city, HttpOptions { origins: Origins::None, tls: Some(tls) });
    city.runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(&city.http).await.unwrap();
        speak_http_2(stream, &format!("http://{}", city.http)).await;

        let mut roots = rustls::RootCertStore::empty();
        let root = <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_file(fixture("a.cert.pem")).unwrap();
        roots.add(root).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = tokio::net::TcpStream::connect(&secure).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        speak_http_2(stream, &format!("https://{secure}")).await;
    });
}

/// Many requests at once on one connection; a body without a length; the links in answers.
async fn speak_http_2(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static, base: &str) {
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let send = |method: &str, path: String, body: Body| {
        let mut sender = sender.clone();
        let request = hyper::Request::builder().method(method).uri(format!("{base}/ngsi-ld/v1/{path}"));
        let request = request.header("content-type", "application/json").body(body).unwrap();
        async move { sender.send_request(request).await.unwrap() }
    };
    let all = futures::future::join_all((0..20).map(|_| send("GET", format!("entities/{ID}"), Body::empty()))).await;
    for answer in all {
        assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
    }
    let pieces = futures::stream::iter(["{\"pow", "er\": 8}"].map(Ok::<_, std::io::Error>));
    let patched = send("PATCH", format!("entities/{ID}"), Body::from_stream(pieces)).await;
    assert_eq!(patched.status().as_u16(), 204);
    let location = send("POST", "jsonldContexts".to_owned(), Body::from("{\"@context\": {\"a\": \"https://example.org/a\"}}")).await;
    assert_eq!(location.status().as_u16(), 201);
    let list = send("GET", "jsonldContexts?kind=Hosted".to_owned(), Body::empty()).await;
    let text = axum::body::to_bytes(Body::new(list.into_body()), 10_000).await.unwrap();
    let urls: Vec<String> = serde_json::from_slice(&text).unwrap();
    assert!(urls.iter().all(|u| u.starts_with(base)), "{urls:?}");
}
