//! Why something was refused.

use std::fmt;

/// Why something was refused: the reason codes of MQTT 5 that are failures (OASIS MQTT 5.0, section 2.4).
///
/// Not each packet may carry each code; where one does not fit, [`Reason::UnspecifiedError`] is sent in its place.
/// MQTT 3.1.1 has hardly any codes: there a refused message closes the connection (section 3.3.5 of MQTT 3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// None of the others.
    UnspecifiedError = 0x80,
    /// Bytes that are no packet.
    MalformedPacket = 0x81,
    /// A packet that is not allowed here and now.
    ProtocolError = 0x82,
    /// Allowed by MQTT, not taken by this server.
    ImplementationSpecificError = 0x83,
    /// Neither 3.1.1 nor 5.
    UnsupportedProtocolVersion = 0x84,
    /// A client identifier that is not taken.
    ClientIdentifierNotValid = 0x85,
    /// Wrong credentials.
    BadUserNameOrPassword = 0x86,
    /// Known, but not allowed to do this.
    NotAuthorized = 0x87,
    /// The server cannot serve now.
    ServerUnavailable = 0x88,
    /// The server has too much to do now; try later.
    ServerBusy = 0x89,
    /// Locked out.
    Banned = 0x8a,
    /// The server is stopping.
    ServerShuttingDown = 0x8b,
    /// A way of authentication that is not offered.
    BadAuthenticationMethod = 0x8c,
    /// Nothing was heard for one and a half keep-alive times.
    KeepAliveTimeout = 0x8d,
    /// Another connection has the same client identifier.
    SessionTakenOver = 0x8e,
    /// A topic filter that is not taken.
    TopicFilterInvalid = 0x8f,
    /// A topic name that is not taken.
    TopicNameInvalid = 0x90,
    /// A packet identifier that is in use.
    PacketIdentifierInUse = 0x91,
    /// A packet identifier that is not in use.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged messages than the Receive Maximum.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias that is out of range or unknown.
    TopicAliasInvalid = 0x94,
    /// A packet larger than the Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// Messages come too fast.
    MessageRateTooHigh = 0x96,
    /// A limit of the server is reached.
    QuotaExceeded = 0x97,
    /// An operator closed the connection.
    AdministrativeAction = 0x98,
    /// The payload is not what its topic promises.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not kept.
    RetainNotSupported = 0x9a,
    /// The quality of service is not offered.
    QosNotSupported = 0x9b,
    /// Shared subscriptions are not offered.
    SharedSubscriptionsNotSupported = 0x9e,
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9f,
    /// The connection is open for too long.
    MaximumConnectTime = 0xa0,
    /// Subscription identifiers are not offered.
    SubscriptionIdentifiersNotSupported = 0xa1,
    /// Wildcards are not offered.
    WildcardSubscriptionsNotSupported = 0xa2,
}

impl Reason {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name as the standard writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnspecifiedError => "Unspecified error",
            Self::MalformedPacket => "Malformed Packet",
            Self::ProtocolError => "Protocol Error",
            Self::ImplementationSpecificError => "Implementation specific error",
            Self::UnsupportedProtocolVersion => "Unsupported Protocol Version",
            Self::ClientIdentifierNotValid => "Client Identifier not valid",
            Self::BadUserNameOrPassword => "Bad User Name or Password",
            Self::NotAuthorized => "Not authorized",
            Self::ServerUnavailable => "Server unavailable",
            Self::ServerBusy => "Server busy",
            Self::Banned => "Banned",
            Self::ServerShuttingDown => "Server shutting down",
            Self::BadAuthenticationMethod => "Bad authentication method",
            Self::KeepAliveTimeout => "Keep Alive timeout",
            Self::SessionTakenOver => "Session taken over",
            Self::TopicFilterInvalid => "Topic Filter invalid",
            Self::TopicNameInvalid => "Topic Name invalid",
            Self::PacketIdentifierInUse => "Packet Identifier in use",
            Self::PacketIdentifierNotFound => "Packet Identifier not found",
            Self::ReceiveMaximumExceeded => "Receive Maximum exceeded",
            Self::TopicAliasInvalid => "Topic Alias invalid",
            Self::PacketTooLarge => "Packet too large",
            Self::MessageRateTooHigh => "Message rate too high",
            Self::QuotaExceeded => "Quota exceeded",
            Self::AdministrativeAction => "Administrative action",
            Self::PayloadFormatInvalid => "Payload format invalid",
            Self::RetainNotSupported => "Retain not supported",
            Self::QosNotSupported => "QoS not supported",
            Self::SharedSubscriptionsNotSupported => "Shared Subscriptions not supported",
            Self::ConnectionRateExceeded => "Connection rate exceeded",
            Self::MaximumConnectTime => "Maximum connect time",
            Self::SubscriptionIdentifiersNotSupported => "Subscription Identifiers not supported",
            Self::WildcardSubscriptionsNotSupported => "Wildcard Subscriptions not supported",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.code())
    }
}

/// A [`Reason`] with the sentence that a person reads; on MQTT 5 it travels as the Reason String.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of refusal.
    pub reason: Reason,
    /// What exactly: what, where, expected beside found.
    pub text: String,
}

impl Refusal {
    /// A refusal with its sentence.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, text: reason.name().to_owned() }
    }
}
