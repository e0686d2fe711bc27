//! One MQTT connection as a client: bytes in and out, timers, packet ids.

use std::io;
use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{Packet, Property, Qos as WireQos, v5_0};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, DisconnectReasonCode, MqttError, PubackReasonCode};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::{PlayOptions, Qos};
use crate::Message;

/// Time a broker has for CONNACK, for PINGRESP, and for taking the last bytes.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// No more messages are encoded while so many bytes wait to be written.
const OUTBOX_MAX_BYTES: usize = 256 * 1024;

const INBOX_BYTES: usize = 16 * 1024;

/// A broker talks to a publisher in short packets.
const UNSENT_TIMER: Duration = Duration::from_secs(86_400);

/// Why a connection ended or did not come about.
#[derive(Debug)]
pub(super) enum LinkEnd {
    /// May be tried again.
    Lost(String),
    /// The broker does not want this client.
    Refused { reason: String, reason_code: u8 },
    /// The broker caps the quality of service below what was asked for.
    QosNotSupported,
}

/// The broker's answer to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) packet_id: u16,
    pub(super) refusal: Option<Refusal>,
}

/// A reason code of 0x80 or above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason_code: u8,
    pub(super) reason: String,
}

/// An open connection.
pub(super) struct Link<S> {
    mqtt: Connection<role::Client>,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    n_written: usize,
    pingreq_at: Option<Instant>,
    pingresp_by: Option<Instant>,
    acks: Vec<Ack>,
    connack: Option<v5_0::Connack>,
    end: Option<LinkEnd>,
    receive_max: u16,
}

impl<S: AsyncRead + AsyncWrite> Link<S> {
    /// Performs the MQTT handshake.
    pub(super) async fn open(stream: S, options: &PlayOptions) -> Result<Self, LinkEnd> {
        let (reader, writer) = tokio::io::split(stream);
        let mut mqtt = Connection::<role::Client>::new(Version::V5_0);
        mqtt.set_pingresp_recv_timeout(u64::try_from(ANSWER_MAX.as_millis()).expect("ten seconds fit"));
        let mut link = Self {
            mqtt,
            reader,
            writer,
            inbox: vec![0; INBOX_BYTES],
            outbox: Vec::new(),
            n_written: 0,
            pingreq_at: None,
            pingresp_by: None,
            acks: Vec::new(),
            connack: None,
            end: None,
            receive_max: u16::MAX,
        };
        let connect = connect_packet(options).map_err(|error| LinkEnd::Refused {
            reason: format!("the CONNECT packet cannot be built: {error}"),
            reason_code: MqttError::ClientIdentifierNotValid as u8,
        })?;
        let events = link.mqtt.checked_send(connect);
        link.take(events);
        let deadline = Instant::now() + ANSWER_MAX;
        while link.connack.is_none() {
            if Instant::now() >= deadline {
                return Err(LinkEnd::Lost(format!("no CONNACK within {} s", ANSWER_MAX.as_secs())));
            }
            link.turn(deadline).await?;
        }
        let connack = link.connack.take().expect("the loop above waits for it");
        link.check_connack(&connack, options.qos)?;
        Ok(link)
    }

    fn check_connack(&mut self, connack: &v5_0::Connack, qos: Qos) -> Result<(), LinkEnd> {
        let code = connack.reason_code();
        match code {
            ConnectReasonCode::Success => {}
            ConnectReasonCode::ServerUnavailable
            | ConnectReasonCode::ServerBusy
            | ConnectReasonCode::QuotaExceeded
            | ConnectReasonCode::ConnectionRateExceeded
            | ConnectReasonCode::UnspecifiedError
            | ConnectReasonCode::ImplementationSpecificError => {
                return Err(LinkEnd::Lost(format!("the broker answered {code}")));
            }
            _ => return Err(LinkEnd::Refused { reason: code.to_string(), reason_code: code as u8 }),
        }
        for property in connack.props() {
            match property {
                Property::ReceiveMaximum(max) => self.receive_max = max.val(),
                Property::MaximumQos(max) if max.val() == 0 && qos == Qos::AtLeastOnce => {
                    return Err(LinkEnd::QosNotSupported);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The broker's Receive Maximum: most unacknowledged QoS 1 messages at a time.
    pub(super) fn receive_max(&self) -> u16 {
        self.receive_max
    }

    /// Whether the outbox takes another message.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() - self.n_written < OUTBOX_MAX_BYTES
    }

    /// Whether everything was handed to the connection.
    pub(super) fn is_flushed(&self) -> bool {
        self.n_written == self.outbox.len()
    }

    /// Puts a message into the outbox; returns its packet id (QoS 1), or `None` for QoS 0.
    ///
    /// Errors: the message does not fit the protocol or the broker's limits.
    pub(super) fn publish(&mut self, message: &Message, qos: Qos) -> Result<Option<u16>, Refusal> {
        // The codec's own errors lie above the protocol's codes; they go as "implementation specific error".
        let refusal = |error: MqttError| Refusal {
            reason_code: u8::try_from(error as u16).unwrap_or(PubackReasonCode::ImplementationSpecificError as u8),
            reason: error.to_string(),
        };
        // An empty topic or a wildcard would be a protocol error that costs the connection.
        if message.topic.is_empty() || message.topic.contains(['+', '#', '\0']) {
            return Err(refusal(MqttError::TopicNameInvalid));
        }
        let mut builder = v5_0::Publish::builder()
            .topic_name(message.topic.as_str())
            .map_err(|_| refusal(MqttError::TopicNameInvalid))?
            .payload(message.payload.as_slice());
        let packet_id = match qos {
            Qos::AtMostOnce => {
                builder = builder.qos(WireQos::AtMostOnce);
                None
            }
            Qos::AtLeastOnce => {
                let packet_id = self.mqtt.acquire_packet_id().map_err(refusal)?;
                builder = builder.qos(WireQos::AtLeastOnce).packet_id(packet_id);
                Some(packet_id)
            }
        };
        let sent = builder.build().and_then(|publish| {
            let events = self.mqtt.checked_send(publish);
            let error = events.iter().find_map(|event| match event {
                Event::NotifyError(error) => Some(*error),
                _ => None,
            });
            error.map_or(Ok(events), Err)
        });
        match sent {
            Ok(events) => {
                self.take(events);
                Ok(packet_id)
            }
            Err(error) => {
                if let Some(packet_id) = packet_id {
                    let events = self.mqtt.release_packet_id(packet_id);
                    self.take(events);
                }
                Err(refusal(error))
            }
        }
    }

    /// Answers that came in since the last call.
    pub(super) fn take_acks(&mut self) -> Vec<Ack> {
        std::mem::take(&mut self.acks)
    }

    /// Reads or writes once, or waits until `wake` or a timer. Cancel safe.
    pub(super) async fn turn(&mut self, wake: Instant) -> Result<(), LinkEnd> {
        let timer = [self.pingreq_at, self.pingresp_by].into_iter().flatten().min();
        let wake = timer.map_or(wake, |timer| timer.min(wake));
        let unwritten = &self.outbox[self.n_written..];
        tokio::select! {
            biased;
            read = self.reader.read(&mut self.inbox) => {
                let n_read = read.map_err(|error| lost(&error))?;
                if n_read == 0 {
                    return Err(self.end.take().unwrap_or_else(|| LinkEnd::Lost("the broker closed the connection".to_owned())));
                }
                self.received(n_read);
            }
            written = self.writer.write(unwritten), if !unwritten.is_empty() => {
                let n_written = written.map_err(|error| lost(&error))?;
                if n_written == 0 {
                    return Err(LinkEnd::Lost("the connection takes no more bytes".to_owned()));
                }
                self.n_written += n_written;
                if self.is_flushed() {
                    self.outbox.clear();
                    self.n_written = 0;
                }
            }
            () = tokio::time::sleep_until(wake) => self.fire_timers(),
        }
        // A refusal is told by CONNACK before the connection closes; the caller reads that first.
        match self.end.take() {
            Some(end) if self.connack.is_none() => Err(end),
            _ => Ok(()),
        }
    }

    /// Says goodbye: the last bytes, DISCONNECT, and the end of the stream.
    pub(super) async fn close(mut self) -> Result<(), LinkEnd> {
        let disconnect = v5_0::Disconnect::builder().reason_code(DisconnectReasonCode::NormalDisconnection).build();
        if let Ok(disconnect) = disconnect {
            let events = self.mqtt.checked_send(disconnect);
            self.take(events);
        }
        let goodbye = async {
            self.writer.write_all(&self.outbox[self.n_written..]).await?;
            self.writer.shutdown().await
        };
        match tokio::time::timeout(ANSWER_MAX, goodbye).await {
            Ok(written) => written.map_err(|error| lost(&error)),
            Err(_) => Err(LinkEnd::Lost("the broker does not read".to_owned())),
        }
    }

    fn received(&mut self, n_read: usize) {
        let inbox = std::mem::take(&mut self.inbox);
        let mut cursor = Cursor::new(&inbox[..n_read]);
        let n_read = u64::try_from(n_read).expect("a buffer's length fits 64 bits");
        while cursor.position() < n_read {
            let events = self.mqtt.recv(&mut cursor);
            self.take(events);
        }
        self.inbox = inbox;
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        if self.pingresp_by.is_some_and(|by| by <= now) {
            self.pingresp_by = None;
            let events = self.mqtt.notify_timer_fired(TimerKind::PingrespRecv);
            self.take(events);
            self.end = Some(LinkEnd::Lost(format!("no PINGRESP within {} s", ANSWER_MAX.as_secs())));
        }
        if self.pingreq_at.is_some_and(|at| at <= now) {
            self.pingreq_at = None;
            let events = self.mqtt.notify_timer_fired(TimerKind::PingreqSend);
            self.take(events);
        }
    }

    /// Carries out what the protocol machine asks for.
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    self.outbox.extend_from_slice(&packet.to_continuous_buffer());
                }
                Event::NotifyPacketReceived(packet) => self.take_packet(packet),
                Event::RequestTimerReset { kind, duration_ms } => {
                    let at = Instant::now() + Duration::from_millis(duration_ms).min(UNSENT_TIMER);
                    self.set_timer(kind, Some(at));
                }
                Event::RequestTimerCancel(kind) => self.set_timer(kind, None),
                Event::NotifyError(error) => {
                    self.end.get_or_insert(LinkEnd::Lost(format!("protocol error {error}")));
                }
                Event::RequestClose => {
                    self.end.get_or_insert(LinkEnd::Lost("the connection was closed".to_owned()));
                }
                Event::NotifyPacketIdReleased(_) => {}
            }
        }
    }

    fn take_packet(&mut self, packet: Packet) {
        match packet {
            Packet::V5_0Connack(connack) => self.connack = Some(connack),
            Packet::V5_0Puback(puback) => {
                let code = puback.reason_code().unwrap_or(PubackReasonCode::Success);
                let refusal = code.is_failure().then(|| Refusal { reason_code: code as u8, reason: code.to_string() });
                self.acks.push(Ack { packet_id: puback.packet_id(), refusal });
            }
            Packet::V5_0Disconnect(disconnect) => {
                let code = disconnect.reason_code().unwrap_or(DisconnectReasonCode::NormalDisconnection);
                let reason = code.to_string();
                self.end = Some(match code {
                    // Coming back would throw out whoever took the client id, who would come back …
                    DisconnectReasonCode::SessionTakenOver
                    | DisconnectReasonCode::NotAuthorized
                    | DisconnectReasonCode::AdministrativeAction => LinkEnd::Refused { reason, reason_code: code as u8 },
                    _ => LinkEnd::Lost(format!("the broker disconnected: {reason}")),
                });
            }
            _ => {}
        }
    }

    fn set_timer(&mut self, kind: TimerKind, at: Option<Instant>) {
        match kind {
            TimerKind::PingreqSend => self.pingreq_at = at,
            TimerKind::PingrespRecv => self.pingresp_by = at,
            // A server's timer.
            TimerKind::PingreqRecv => {}
        }
    }
}

fn connect_packet(options: &PlayOptions) -> Result<v5_0::Connect, MqttError> {
    let mut builder = v5_0::Connect::builder().client_id(options.client_id.as_str())?.clean_start(true).keep_alive(options.keep_alive_s);
    if let Some(login) = &options.login {
        builder = builder.user_name(login.username.as_str())?.password(login.password.as_str())?;
    }
    builder.build()
}

fn lost(error: &io::Error) -> LinkEnd {
    LinkEnd::Lost(error.to_string())
}
