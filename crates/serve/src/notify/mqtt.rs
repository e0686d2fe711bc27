//! Notifications over MQTT and MQTTS (clause 7.2).
//!
//! Subscriptions with the same broker, version and login share one connection. It is opened when there is something to publish and closed
//! when there has been nothing for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::mqtt::client::{Client, ClientEvent, ClientOptions};
use ::mqtt::connection::Version;
use ::mqtt::topic::{Qos, TopicName};
use ngsi::decode::Endpoint;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use url::Url;

use super::{Failure, FailureSort};
use crate::App;
use crate::outbound::Outbound;

/// What a broker may take to accept the client, and to take bytes.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// A broker must hear something in this time; half of it without an answer to a sign of life is the end.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A connection over which nothing was published for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// Messages that wait for the connection; further ones wait with their subscribers.
const WAITING_MAX: usize = 256;

/// A broker, and as whom it is spoken to.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Broker {
    host: String,
    port: u16,
    is_tls: bool,
    is_v3: bool,
    login: Option<(String, String)>,
}

/// Where notifications are published, and how.
pub(super) struct MqttTarget {
    broker: Broker,
    topic: TopicName,
    qos: Qos,
    /// `{"metadata":{...},"body":`
    head: Vec<u8>,
}

/// A message on its way.
struct Job {
    topic: TopicName,
    payload: Vec<u8>,
    qos: Qos,
    reply: oneshot::Sender<Result<(), Failure>>,
}

/// The open connections.
#[derive(Default)]
pub(super) struct Brokers(Mutex<HashMap<Broker, mpsc::Sender<Job>>>);

/// Is this the address of a topic?
pub(crate) fn check(url: &Url, endpoint: &Endpoint) -> Result<(), String> {
    MqttTarget::new(url, endpoint, &[]).map(|_| ())
}

impl MqttTarget {
    /// Errors: the path is no topic, or the login is no text.
    pub(super) fn new(url: &Url, endpoint: &Endpoint, own: &[(&str, &str)]) -> Result<Self, String> {
        let text = |part: &str| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| format!("`{part}` is not UTF-8"));
        let is_tls = url.scheme() == "mqtts";
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let login = match url.username() {
            "" => None,
            user => Some((text(user)?, text(url.password().unwrap_or_default())?)),
        };
        let topic = text(url.path().trim_start_matches('/'))?;
        let topic: TopicName = topic.parse().map_err(|e: ::mqtt::topic::TopicError| e.to_string())?;
        let mut metadata = Map::new();
        metadata.insert("Content-Type".to_owned(), endpoint.accept.media_type().into());
        for pair in &endpoint.receiver_info {
            metadata.insert(pair.key.clone(), pair.value.clone().into());
        }
        metadata.extend(own.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
        let head = format!("{{\"metadata\":{},\"body\":", Value::Object(metadata)).into_bytes();
        let broker = Broker {
            host,
            port: url.port().unwrap_or(if is_tls { 8_883 } else { 1_883 }),
            is_tls,
            is_v3: endpoint.setting("MQTT-Version") == Some("mqtt3.1.1"),
            login,
        };
        let qos = match endpoint.setting("MQTT-QoS") {
            Some("1") => Qos::AtLeastOnce,
            Some("2") => Qos::ExactlyOnce,
            _ => Qos::AtMostOnce,
        };
        Ok(Self { broker, topic, qos, head })
    }

    pub(super) async fn send(&self, app: &App, brokers: &Brokers, body: &[u8]) -> Result<(), Failure> {
        let payload = [&self.head, body, b"}"].concat();
        // A connection that is just being closed for want of work does not take it any more: then there is another one.
        for _ in 0..2 {
            let (reply, answer) = oneshot::channel();
            let job = Job { topic: self.topic.clone(), payload: payload.clone(), qos: self.qos, reply };
            if brokers.to(&self.broker, &app.outbound).send(job).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
        }
        Err(Failure::new(FailureSort::Failed, "the connection to the broker was closed"))
    }
}

impl Brokers {
    fn to(&self, broker: &Broker, outbound: &Outbound) -> mpsc::Sender<Job> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(broker).filter(|s| !s.is_closed()) {
            return known.clone();
        }
        all.retain(|_, s| !s.is_closed());
        let (sender, jobs) = mpsc::channel(WAITING_MAX);
        tokio::spawn(publish(broker.clone(), outbound.clone(), jobs));
        all.insert(broker.clone(), sender.clone());
        sender
    }
}

/// Publishes what comes until nothing does, or the connection is lost: then everything that has no answer failed.
async fn publish(broker: Broker, outbound: Outbound, mut jobs: mpsc::Receiver<Job>) {
    let reason = match Link::open(&broker, &outbound).await {
        Err(reason) => reason,
        Ok(mut link) => match link.run(&mut jobs).await {
            Ok(()) => {
                link.client.disconnect();
                // It is over in any case.
                drop(link.flush().await);
                "the connection to the broker was closed".to_owned()
            }
            Err(reason) => {
                for (_, reply) in link.in_flight.drain() {
                    // Who gave up waiting does not listen.
                    drop(reply.send(Err(Failure::new(FailureSort::Down, reason.clone()))));
                }
                reason
            }
        },
    };
    jobs.close();
    while let Some(job) = jobs.recv().await {
        drop(job.reply.send(Err(Failure::new(FailureSort::Down, reason.clone()))));
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
struct Link {
    stream: Box<dyn Stream>,
    client: Client,
    in_flight: HashMap<u16, oneshot::Sender<Result<(), Failure>>>,
    /// Of QoS 0: done once the bytes are written.
    unwritten: Vec<oneshot::Sender<Result<(), Failure>>>,
}

impl Link {
    async fn open(broker: &Broker, outbound: &Outbound) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("cannot connect to the broker `{}:{}`: {e}", broker.host, broker.port);
        let tcp = outbound.connect(&broker.host, broker.port).await.map_err(failed)?;
        let late = || format!("the broker `{}:{}` does not answer within {} s", broker.host, broker.port, ANSWER_WAIT.as_secs());
        let stream: Box<dyn Stream> = if broker.is_tls {
            let name = rustls::pki_types::ServerName::try_from(broker.host.clone()).map_err(|e| e.to_string())?;
            let connecting = tokio_rustls::TlsConnector::from(outbound.tls()).connect(name, tcp);
            Box::new(tokio::time::timeout(ANSWER_WAIT, connecting).await.map_err(|_| late())?.map_err(failed)?)
        } else {
            Box::new(tcp)
        };
        let options = ClientOptions {
            version: if broker.is_v3 { Version::V3 } else { Version::V5 },
            client_id: format!("conurb-{}", host::random_hex::<8>()),
            login: broker.login.clone(),
            keep_alive_s: KEEP_ALIVE.as_secs() as u16,
        };
        let client = Client::new(&options).map_err(|e| e.to_string())?;
        let mut link = Self { stream, client, in_flight: HashMap::new(), unwritten: Vec::new() };
        tokio::time::timeout(ANSWER_WAIT, link.introduce()).await.map_err(|_| late())??;
        Ok(link)
    }

    async fn introduce(&mut self) -> Result<(), String> {
        loop {
            self.flush().await?;
            let mut inbox = [0; 4_096];
            let n = self.stream.read(&mut inbox).await.map_err(|e| e.to_string())?;
            if n == 0 {
                return Err("the broker closed the connection before it accepted the client".to_owned());
            }
            for event in self.client.receive(&inbox[..n]) {
                match event {
                    ClientEvent::Connected => return Ok(()),
                    ClientEvent::Ended { reason } => return Err(reason),
                    ClientEvent::Acknowledged { .. } | ClientEvent::Refused { .. } => {}
                }
            }
        }
    }

    /// Publishes until there has been nothing for [`IDLE`].
    async fn run(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Result<(), String> {
        let mut inbox = vec![0; 16 * 1_024];
        let (mut published_at, mut heard_at) = (Instant::now(), Instant::now());
        let mut sign_of_life = tokio::time::interval(KEEP_ALIVE / 2);
        sign_of_life.reset();
        loop {
            self.flush().await?;
            let has_room = self.in_flight.len() < usize::from(self.client.in_flight_max());
            tokio::select! {
                job = jobs.recv(), if has_room => match job {
                    None => return Ok(()),
                    Some(job) => {
                        published_at = Instant::now();
                        self.begin(job);
                    }
                },
                read = self.stream.read(&mut inbox) => {
                    let n = read.map_err(|e| e.to_string())?;
                    if n == 0 {
                        return Err("the broker closed the connection".to_owned());
                    }
                    heard_at = Instant::now();
                    for event in self.client.receive(&inbox[..n]) {
                        self.take(event)?;
                    }
                }
                _ = sign_of_life.tick() => {
                    if heard_at.elapsed() > KEEP_ALIVE {
                        return Err("the broker gives no sign of life".to_owned());
                    }
                    if self.in_flight.is_empty() && published_at.elapsed() > IDLE {
                        return Ok(());
                    }
                    self.client.ping();
                }
            }
        }
    }

    fn begin(&mut self, job: Job) {
        match self.client.publish(&job.topic, &job.payload, job.qos) {
            Ok(Some(packet_id)) => drop(self.in_flight.insert(packet_id, job.reply)),
            Ok(None) => self.unwritten.push(job.reply),
            Err(e) => drop(job.reply.send(Err(Failure::new(FailureSort::Refused, e.to_string())))),
        }
    }

    fn take(&mut self, event: ClientEvent) -> Result<(), String> {
        let (packet_id, answer) = match event {
            ClientEvent::Connected => return Ok(()),
            ClientEvent::Ended { reason } => return Err(reason),
            ClientEvent::Acknowledged { packet_id } => (packet_id, Ok(())),
            ClientEvent::Refused { packet_id, reason } => {
                (packet_id, Err(Failure::new(FailureSort::Refused, format!("the broker refused it: {reason}"))))
            }
        };
        if let Some(reply) = self.in_flight.remove(&packet_id) {
            drop(reply.send(answer));
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), String> {
        let output = self.client.take_output();
        if !output.is_empty() {
            let write = async {
                self.stream.write_all(&output).await?;
                self.stream.flush().await
            };
            let late = || format!("the broker has taken no bytes for {} s", ANSWER_WAIT.as_secs());
            tokio::time::timeout(ANSWER_WAIT, write).await.map_err(|_| late())?.map_err(|e| e.to_string())?;
        }
        for reply in self.unwritten.drain(..) {
            drop(reply.send(Ok(())));
        }
        Ok(())
    }
}
