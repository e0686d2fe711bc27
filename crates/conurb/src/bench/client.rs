//! A lean HTTP/1.1 client for loading a node: on two cores a comfortable client would be the bottleneck.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use host::Stopwatch;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(super) struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    pub(super) async fn connect(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream), host: host.to_owned() })
    }

    /// Sends a request with a JSON body (or none) and reads the whole answer.
    pub(super) async fn request(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        self.send(method, path, "application/json", body.as_bytes()).await
    }

    /// Sends a request and reads the whole answer, counted or in chunks.
    pub(super) async fn send(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> anyhow::Result<(u16, String)> {
        let content = if body.is_empty() && method == "GET" {
            String::new()
        } else {
            format!("content-type: {content_type}\r\ncontent-length: {}\r\n", body.len())
        };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{content}\r\n", self.host);
        // One write for a small request: two would wait for each other's acknowledgement.
        if body.len() <= 16 << 10 {
            self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        } else {
            self.stream.write_all(head.as_bytes()).await?;
            self.stream.write_all(body).await?;
        }
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let status: u16 = line.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("no status in `{}`", line.trim()))?;
        let mut n_bytes = 0;
        let mut chunked = false;
        loop {
            line.clear();
            self.stream.read_line(&mut line).await?;
            if line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                n_bytes = value.trim().parse()?;
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked");
        }
        let answer = if chunked { self.chunks().await? } else { self.exactly(n_bytes).await? };
        Ok((status, String::from_utf8_lossy(&answer).into_owned()))
    }

    async fn exactly(&mut self, n_bytes: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; n_bytes];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut answer = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let n_bytes =
                usize::from_str_radix(line.trim(), 16).with_context(|| format!("`{}` is not the size of a chunk", line.trim()))?;
            answer.extend(self.exactly(n_bytes).await?);
            self.exactly(2).await?;
            if n_bytes == 0 {
                return Ok(answer);
            }
        }
    }
}

/// What a load came to.
pub(super) struct Load {
    pub(super) n_done: u64,
    time: Duration,
    latency_us: Histogram<u64>,
}

impl Load {
    pub(super) fn per_second(&self) -> f64 {
        self.n_done as f64 / self.time.as_secs_f64()
    }

    pub(super) fn quantile_ms(&self, q: f64) -> f64 {
        self.latency_us.value_at_quantile(q) as f64 / 1e3
    }
}

/// What a client asks for: method, path, body; from its number and the number of its request.
type Ask<'a> = &'a (dyn Fn(usize, usize) -> (&'static str, String, String) + Sync);

/// Has `n_clients` ask one request after the other, each on its own connection, for `time`.
pub(super) async fn drive(host: &str, n_clients: usize, time: Duration, ask: Ask<'_>) -> anyhow::Result<Load> {
    let mut clients = Vec::new();
    for _ in 0..n_clients {
        clients.push(Client::connect(host).await?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let stopwatch = Stopwatch::start();
    let clients = clients.into_iter().enumerate().map(|(number, client)| one_client(number, client, Arc::clone(&over), ask));
    let timer = async {
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
    };
    let (done, ()) = tokio::join!(futures::future::try_join_all(clients), timer);
    let mut load = Load { n_done: 0, time: stopwatch.elapsed(), latency_us: Histogram::new(3).context("a histogram")? };
    for histogram in done? {
        load.n_done += histogram.len();
        load.latency_us.add(histogram).context("histograms of one kind")?;
    }
    Ok(load)
}

async fn one_client(number: usize, mut client: Client, over: Arc<AtomicBool>, ask: Ask<'_>) -> anyhow::Result<Histogram<u64>> {
    let mut latency_us = Histogram::new(3).context("a histogram")?;
    let mut i = 0;
    while !over.load(Ordering::Relaxed) {
        let (method, path, body) = ask(number, i);
        let stopwatch = Stopwatch::start();
        let (status, answer) = client.request(method, &path, &body).await?;
        if !(200..300).contains(&status) {
            bail!("{method} {path} was answered {status}: {answer}");
        }
        latency_us.record(u64::try_from(stopwatch.elapsed().as_micros()).unwrap_or(u64::MAX)).context("a latency")?;
        i += 1;
    }
    Ok(latency_us)
}
