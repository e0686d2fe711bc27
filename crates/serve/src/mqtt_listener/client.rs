//! One MQTT client.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use entity::{Entity, Iri};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use mqtt::connection::{
    Cause, ConnectRequest, Event, Limits, Publish, ServerConnection, SubscribeRequest, UnsubscribeRequest, Version, Will,
};
use mqtt::topic::Qos;
use mqtt::{Reason, Refusal};
use node::{Kind, NodeError, Sort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::hub::{Note, WAITING_MAX};
use super::{MqttContext, RefusedMessage, device_principal};

/// Topics below this one are devices' and feed the database.
const DEVICES: &str = "devices/";
/// Subscriptions of one client.
const FILTERS_MAX: usize = 1_000;
/// How long a message waits before it is handed in again when too many writes are waiting.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// How long a client may take to read the last bytes.
const GOODBYE_WAIT: Duration = Duration::from_secs(2);

/// Messages of one read from the socket that are handed in together, at most.
const TOGETHER_MAX: usize = 256;

/// What came of a message.
type Outcome = (Publish, Result<(), Refusal>);
type Outcomes = Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>;

/// Messages of devices that arrived together and are to be made durable together, each about another entity: they are recorded at one time.
#[derive(Default)]
struct Together {
    publishes: Vec<Publish>,
    observations: Vec<Entity>,
    /// Those that they are about.
    ids: HashSet<Iri, foldhash::fast::RandomState>,
}

struct Client<'a> {
    context: &'a Arc<MqttContext>,
    connection: ServerConnection,
    /// Key in the hub, once accepted.
    key: Option<u64>,
    id: String,
    version: Option<Version>,
    notes: mpsc::Sender<Note>,
    /// Messages on their way to the disk, in the order of arrival.
    commits: FuturesOrdered<Outcomes>,
    timer: Option<Duration>,
    ended: bool,
    /// Filters of subscriptions that must not bring the client's own messages.
    no_local: bool,
}

/// Serves a client until it is gone.
pub(super) async fn run(mut socket: TcpStream, context: &Arc<MqttContext>, mut stop: watch::Receiver<bool>) {
    let _ = socket.set_nodelay(true);
    let (notes, mut inbox) = mpsc::channel(WAITING_MAX);
    let connection = ServerConnection::new(Limits::default(), format!("conurb-{}", host::random_hex::<8>()));
    let timer = connection.timeout();
    let mut client = Client {
        context,
        connection,
        key: None,
        id: String::new(),
        version: None,
        notes,
        commits: FuturesOrdered::new(),
        timer,
        ended: false,
        no_local: false,
    };
    let metrics = context.node.metrics();
    metrics.mqtt_connections.inc();
    let mut buffer = vec![0; 16 << 10];
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    rearm(&mut sleep, client.timer);
    while !client.ended {
        let events = tokio::select! {
            read = socket.read(&mut buffer) => match read {
                Ok(0) | Err(_) => client.connection.lost(),
                Ok(n_bytes) => client.connection.receive(&buffer[..n_bytes]),
            },
            Some(mut outcomes) = client.commits.next(), if !client.commits.is_empty() => {
                // What was made durable together is acknowledged together: with one write.
                while let Some(Some(more)) = client.commits.next().now_or_never() {
                    outcomes.extend(more);
                }
                outcomes.into_iter().flat_map(|(publish, outcome)| client.committed(&publish, outcome)).collect()
            }
            Some(note) = inbox.recv() => match note {
                Note::Deliver(d) => client.connection.deliver(&d.topic, &d.payload, d.qos, false),
                Note::TakenOver => client.connection.disconnect(Refusal::new(Reason::SessionTakenOver, "another connection uses the same client identifier")),
            },
            () = &mut sleep, if client.timer.is_some() => client.connection.timed_out(),
            _ = stop.wait_for(|s| *s) => client.connection.disconnect(Refusal::new(Reason::ServerShuttingDown, "the node is shutting down")),
        };
        if client.handle(events).await {
            rearm(&mut sleep, client.timer);
        }
        if client.key.is_some_and(|k| client.context.hub.is_too_slow(k)) && !client.ended {
            metrics.mqtt_dropped.get_or_create(&Sort::of("slow_client_ended")).inc();
            let events =
                client.connection.disconnect(Refusal::new(Reason::QuotaExceeded, "the client reads too slowly for its subscriptions"));
            client.handle(events).await;
        }
        if write_out(&mut socket, &mut client.connection, client.ended).await.is_err() && !client.ended {
            let events = client.connection.lost();
            client.handle(events).await;
        }
    }
    // What was handed in is made durable whether the client hears of it or not, and subscribers are told.
    while let Some(outcomes) = client.commits.next().await {
        for (publish, outcome) in outcomes {
            client.pass_on(&publish, &outcome);
        }
    }
    if let Some(key) = client.key {
        context.hub.leave(key);
    }
    let dropped = client.connection.counters().dropped_slow;
    metrics.mqtt_dropped.get_or_create(&Sort::of("qos0_slow")).inc_by(dropped);
    metrics.mqtt_connections.dec();
    let _ = tokio::time::timeout(GOODBYE_WAIT, socket.shutdown()).await;
}

fn rearm(sleep: &mut Pin<&mut tokio::time::Sleep>, timer: Option<Duration>) {
    if let Some(after) = timer {
        sleep.as_mut().reset(tokio::time::Instant::now() + after);
    }
}

async fn write_out(socket: &mut TcpStream, connection: &mut ServerConnection, last: bool) -> std::io::Result<()> {
    loop {
        let output = connection.take_output();
        if output.is_empty() {
            return Ok(());
        }
        if last {
            let _ = tokio::time::timeout(GOODBYE_WAIT, socket.write_all(&output)).await;
        } else {
            socket.write_all(&output).await?;
        }
    }
}

impl Together {
    fn push(&mut self, publish: Publish, observation: Entity) {
        self.ids.insert(observation.id.clone());
        self.publishes.push(publish);
        self.observations.push(observation);
    }
}

impl Client<'_> {
    /// Does what the events say; true if the timer must be set again.
    async fn handle(&mut self, events: Vec<Event>) -> bool {
        let mut rearm = false;
        let mut waiting = std::collections::VecDeque::from(events);
        let mut together = Together::default();
        while let Some(event) = waiting.pop_front() {
            let more = match event {
                Event::Connect(request) => self.connect(&request),
                Event::Publish(publish) => {
                    self.publish(publish, &mut together).await;
                    Vec::new()
                }
                Event::Subscribe(request) => self.subscribe(&request),
                Event::Unsubscribe(request) => self.unsubscribe(&request),
                Event::SetTimer(timer) => {
                    self.timer = timer;
                    rearm = true;
                    Vec::new()
                }
                Event::Ended(ended) => {
                    self.ended = true;
                    if let Cause::Refused(refusal) = &ended.cause {
                        tracing::info!(client = %self.id, reason = %refusal.text, "MQTT connection ended");
                    }
                    if let Some(will) = ended.will {
                        self.publish(of_will(will), &mut together).await;
                    }
                    Vec::new()
                }
            };
            waiting.extend(more);
        }
        self.hand_in(&mut together).await;
        rearm
    }

    fn connect(&mut self, request: &ConnectRequest) -> Vec<Event> {
        let password = request.password.as_deref().map(String::from_utf8_lossy);
        if let Err(reason) = self.context.auth.device(request.user_name.as_deref(), password.as_deref()) {
            tracing::warn!(client = %request.client_id, user = ?request.user_name, reason, "MQTT login refused");
            return self.connection.refuse(Refusal::new(Reason::BadUserNameOrPassword, reason));
        }
        self.id.clone_from(&request.client_id);
        self.version = Some(request.version);
        self.key = Some(self.context.hub.enter(&self.id, self.notes.clone()));
        self.connection.accept()
    }

    /// Puts a message in line; its outcome arrives through `commits`, in the order of arrival.
    async fn publish(&mut self, publish: Publish, together: &mut Together) {
        let outcome = match self.observation(&publish) {
            Ok(Some(observation)) => {
                // Two states of one entity are two changes, recorded one after the other.
                if together.publishes.len() == TOGETHER_MAX || together.ids.contains(&observation.id) {
                    self.hand_in(together).await;
                }
                return together.push(publish, observation);
            }
            Ok(None) => (publish, Ok(())),
            Err(refusal) => (publish, Err(refusal)),
        };
        self.hand_in(together).await;
        self.commits.push_back(Box::pin(std::future::ready(vec![outcome])));
    }

    /// What a message says; none: no profile has this topic, so the message is only passed on.
    fn observation(&self, publish: &Publish) -> Result<Option<Entity>, Refusal> {
        let Some(profile) = self.context.profiles.find(&publish.topic) else {
            // Whoever sends to a device's topic wants it kept: a mistyped profile must not be acknowledged and lost.
            if publish.topic.as_str().starts_with(DEVICES) {
                let text = format!("no device profile has the topic `{}`", publish.topic.as_str());
                return Err(Refusal::new(Reason::TopicNameInvalid, text));
            }
            return Ok(None);
        };
        let node = &self.context.node;
        let observation = profile.decode(&publish.topic, &publish.payload, node.now()).map_err(|e| Refusal::from(&e))?;
        node.check_observation(&observation).map_err(|e| refusal_of(&e))?;
        Ok(Some(observation))
    }

    /// Hands in what was gathered; while too many writes are waiting nothing more is read from this client: that is the back-pressure.
    async fn hand_in(&mut self, together: &mut Together) {
        let who = device_principal(&self.id);
        loop {
            let Together { publishes, observations, .. } = std::mem::take(together);
            if publishes.is_empty() {
                return;
            }
            let outcomes: Outcomes = match self.context.node.observe(&who, observations) {
                Ok(commit) => Box::pin(async move {
                    match commit.await {
                        Ok(results) => {
                            let results = results.into_iter().map(|r| r.map(|_| ()).map_err(|e| refusal_of(&NodeError::from(e))));
                            publishes.into_iter().zip(results).collect()
                        }
                        Err(e) => all_refused(publishes, &e),
                    }
                }),
                Err(e) if e.is_busy() => {
                    tokio::time::sleep(BUSY_WAIT).await;
                    // What was handed in is gone: it is read again.
                    for publish in publishes {
                        match self.observation(&publish) {
                            Ok(Some(observation)) => together.push(publish, observation),
                            // Profiles were changed meanwhile.
                            other => self.commits.push_back(Box::pin(std::future::ready(vec![(publish, other.map(|_| ()))]))),
                        }
                    }
                    continue;
                }
                Err(e) => Box::pin(std::future::ready(all_refused(publishes, &e))),
            };
            self.commits.push_back(outcomes);
            return;
        }
    }

    fn committed(&mut self, publish: &Publish, outcome: Result<(), Refusal>) -> Vec<Event> {
        self.pass_on(publish, &outcome);
        let Some(packet_id) = publish.packet_id else { return Vec::new() };
        let answer = match outcome {
            // MQTT 3.1.1 has no word for "this message is wrong": closing the connection would make the device send it for ever. It is
            // recorded among the refused messages and acknowledged.
            Err(refusal)
                if self.version == Some(Version::V3)
                    && matches!(refusal.reason, Reason::PayloadFormatInvalid | Reason::TopicNameInvalid) =>
            {
                Ok(())
            }
            other => other,
        };
        self.connection.acknowledge(packet_id, answer)
    }

    /// Notes what came of a message and tells the subscribers if it was taken in.
    fn pass_on(&self, publish: &Publish, outcome: &Result<(), Refusal>) {
        let metrics = self.context.node.metrics();
        match outcome {
            Ok(()) => {
                metrics.mqtt_publications.get_or_create(&Sort::of("accepted")).inc();
                let not_to = self.key.filter(|_| self.no_local);
                let (_, n_dropped) = self.context.hub.publish(&publish.topic, &publish.payload, publish.qos, not_to);
                if n_dropped > 0 {
                    metrics.mqtt_dropped.get_or_create(&Sort::of("qos0_slow")).inc_by(n_dropped as u64);
                }
            }
            Err(refusal) => {
                metrics.mqtt_publications.get_or_create(&Sort::of("refused")).inc();
                tracing::warn!(client = %self.id, topic = %publish.topic.as_str(), reason = %refusal.text, "MQTT message refused");
                self.context.refused.push(RefusedMessage {
                    at: self.context.node.now(),
                    client: self.id.clone(),
                    topic: publish.topic.as_str().to_owned(),
                    reason: refusal.text.clone(),
                });
            }
        }
    }

    fn subscribe(&mut self, request: &SubscribeRequest) -> Vec<Event> {
        let Some(key) = self.key else { return Vec::new() };
        let mut answers = Vec::new();
        for wanted in &request.filters {
            if self.context.hub.n_filters(key) >= FILTERS_MAX {
                answers.push(Err(Reason::QuotaExceeded));
                continue;
            }
            self.no_local |= wanted.no_local;
            self.context.hub.subscribe(key, &wanted.filter, wanted.qos);
            answers.push(Ok(wanted.qos));
        }
        self.connection.answer_subscribe(request.packet_id, &answers)
    }

    fn unsubscribe(&mut self, request: &UnsubscribeRequest) -> Vec<Event> {
        let Some(key) = self.key else { return Vec::new() };
        let answers: Vec<_> = request.filters.iter().map(|f| Ok(self.context.hub.unsubscribe(key, f))).collect();
        self.connection.answer_unsubscribe(request.packet_id, &answers)
    }
}

fn of_will(will: Will) -> Publish {
    Publish { topic: will.topic, payload: will.payload, qos: Qos::AtMostOnce, retain: false, dup: false, packet_id: None }
}

fn all_refused(publishes: Vec<Publish>, error: &NodeError) -> Vec<Outcome> {
    publishes.into_iter().map(|publish| (publish, Err(refusal_of(error)))).collect()
}

fn refusal_of(error: &NodeError) -> Refusal {
    let reason = match error.kind() {
        Kind::Denied => Reason::NotAuthorized,
        Kind::Limit | Kind::Unavailable => Reason::QuotaExceeded,
        Kind::Invalid | Kind::Conflict | Kind::NotFound => Reason::PayloadFormatInvalid,
        Kind::Bug => Reason::UnspecifiedError,
    };
    Refusal::new(reason, crate::chain(error))
}
