//! A source that says what a test wants, over HTTP: for what no node would do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// What arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// `GET`, ...
    pub(crate) method: String,
    /// Path and query as they were sent.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The parameters, decoded, in order.
    pub(crate) fn parameters(&self) -> Vec<(String, String)> {
        let url = reqwest::Url::parse(&format!("http://x{}", self.target)).unwrap();
        url.query_pairs().into_owned().collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) struct Says {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) after: Duration,
    pub(crate) content_type: &'static str,
}

impl Says {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, body: body.to_string(), after: Duration::ZERO, content_type: "application/json" }
    }

    pub(crate) fn nothing(status: u16) -> Self {
        Self { status, body: String::new(), after: Duration::ZERO, content_type: "application/json" }
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// The source; it ends with the test's process.
pub(crate) struct Source {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Source {
    /// One that answers every request by a rule.
    pub(crate) fn that(rule: impl Fn(&Received) -> Says + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (log, rule) = (Arc::clone(&received), Arc::new(rule));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (log, rule) = (Arc::clone(&log), Arc::clone(&rule));
                std::thread::spawn(move || serve(connection, &log, rule.as_ref()));
            }
        });
        Self { url, received }
    }

    /// One that always says the same.
    pub(crate) fn saying(says: Says) -> Self {
        Self::that(move |_| says.clone())
    }

    /// What has arrived so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// Answers until the other side hangs up.
fn serve(connection: TcpStream, log: &Mutex<Vec<Received>>, rule: &dyn Fn(&Received) -> Says) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut connection = connection;
    while let Some(request) = read(&mut reader) {
        log.lock().unwrap().push(request.clone());
        let says = rule(&request);
        std::thread::sleep(says.after);
        let head = format!(
            "HTTP/1.1 {} x\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n{}",
            says.status,
            says.content_type,
            says.body.len(),
            says.body
        );
        if connection.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Received { method, target, headers, body: String::from_utf8(body).ok()? })
}
