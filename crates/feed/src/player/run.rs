//! The play itself: source → window → link, across cuts.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::link::{Ack, Link, LinkEnd, Refusal};
use super::pace::Pacer;
use super::position::{First, Position};
use super::window::Window;
use super::{PlayError, PlayOptions, PositionError, Progress, Qos, REJECTIONS_KEPT_MAX, Rejection, Summary};
use crate::Message;

/// Pause before the first attempt to connect again; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);

/// Longest pause between attempts.
const BACK_OFF_MAX: Duration = Duration::from_secs(15);

/// Time an attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// After a stop or a failed source, how long acknowledgements are awaited.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A message whose acknowledgement is missing holds the window's start; so many times `in_flight_max` may pass it.
const WINDOW_PER_IN_FLIGHT: usize = 4;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How the time on one connection ended.
enum Turn {
    Done,
    Lost(String),
}

struct Player<'a, I, P> {
    messages: I,
    /// The next message of the source, not yet released.
    peeked: Option<Message>,
    /// Whether the source has no more, or failed.
    ended: bool,
    source_error: Option<BoxError>,
    first: Option<First>,
    n_settled_written: Option<u64>,
    window: Window,
    pacer: Pacer,
    options: &'a PlayOptions,
    progress: Progress,
    on_progress: P,
    reported_at: Instant,
    reported_settled: u64,
    /// Set by a stop or a failed source: nothing more is released, and the wait ends then.
    drain_by: Option<Instant>,
    stopped: bool,
}

pub(super) async fn run<C, F, S, I, E>(
    mut connect: C,
    messages: I,
    options: PlayOptions,
    stop: impl Future<Output = ()>,
    on_progress: impl FnMut(&Progress),
) -> Result<Summary, PlayError>
where
    C: FnMut() -> F,
    F: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite,
    I: Iterator<Item = Result<Message, E>>,
    E: Into<BoxError>,
{
    let mut stop = pin!(stop);
    let mut player = Player::new(messages.map(|item| item.map_err(Into::into)), &options, on_progress)?;
    let played = player.play(&mut connect, stop.as_mut()).await;
    player.progress.connected = false;
    let kept = player.write_position();
    player.report();
    played?;
    kept?;
    if let Some(error) = player.source_error {
        return Err(PlayError::Source(error));
    }
    let unacknowledged = player.window.n_unsettled();
    Ok(Summary { progress: player.progress, finished: !player.stopped, unacknowledged })
}

impl<'a, I, P> Player<'a, I, P>
where
    I: Iterator<Item = Result<Message, BoxError>>,
    P: FnMut(&Progress),
{
    /// Reads the position and skips what is settled.
    fn new(messages: I, options: &'a PlayOptions, on_progress: P) -> Result<Self, PlayError> {
        let mut player = Self {
            messages,
            peeked: None,
            ended: false,
            source_error: None,
            first: None,
            n_settled_written: None,
            window: Window::default(),
            pacer: Pacer::new(options.speed),
            options,
            progress: Progress::default(),
            on_progress,
            reported_at: Instant::now(),
            reported_settled: 0,
            drain_by: None,
            stopped: false,
        };
        player.peek();
        player.first = player.peeked.as_ref().map(First::of);
        if let Some(path) = &options.resume
            && let Some(position) = Position::read(path)?
        {
            position.check_source(path, player.first.as_ref())?;
            player.skip(path, position.n_settled)?;
        }
        Ok(player)
    }

    fn skip(&mut self, path: &std::path::Path, n_settled: u64) -> Result<(), PlayError> {
        for n_found in 0..n_settled {
            if self.peek().is_none() {
                return match self.source_error.take() {
                    Some(error) => Err(PlayError::Source(error)),
                    None => Err(PositionError::ShortSource { path: path.to_owned(), n_settled, n_found }.into()),
                };
            }
            self.peeked = None;
        }
        self.window = Window::starting_at(n_settled);
        self.progress.resumed = n_settled;
        self.n_settled_written = Some(n_settled);
        Ok(())
    }

    /// The next message of the source, left in place.
    fn peek(&mut self) -> Option<&Message> {
        if self.peeked.is_none() && !self.ended {
            match self.messages.next() {
                Some(Ok(message)) => self.peeked = Some(message),
                Some(Err(error)) => {
                    self.source_error = Some(error);
                    self.ended = true;
                }
                None => self.ended = true,
            }
        }
        self.peeked.as_ref()
    }

    async fn play<C, F, S>(&mut self, connect: &mut C, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<(), PlayError>
    where
        C: FnMut() -> F,
        F: Future<Output = io::Result<S>>,
        S: AsyncRead + AsyncWrite,
    {
        let mut offline_since = Instant::now();
        let mut back_off = BACK_OFF_FIRST;
        loop {
            if self.is_finished() {
                return Ok(());
            }
            let opened = tokio::select! {
                biased;
                () = stop.as_mut(), if !self.stopped => {
                    self.stopped = true;
                    return Ok(());
                }
                opened = open(connect, self.options) => opened,
            };
            let reason = match opened {
                Ok(mut link) => {
                    let (opened_at, settled_before) = (Instant::now(), self.n_settled());
                    self.progress.connected = true;
                    self.report();
                    let turn = self.play_on(&mut link, stop.as_mut()).await;
                    self.progress.connected = false;
                    match turn? {
                        Turn::Done => {
                            if let Err(end) = link.close().await {
                                tracing::debug!(?end, "the connection did not close in order");
                            }
                            return Ok(());
                        }
                        Turn::Lost(reason) => {
                            self.window.connection_lost();
                            self.progress.connections_lost += 1;
                            // A broker that takes the connection and nothing else counts as unreachable.
                            if self.n_settled() > settled_before || opened_at.elapsed() > BACK_OFF_MAX {
                                offline_since = Instant::now();
                                back_off = BACK_OFF_FIRST;
                            }
                            self.write_position()?;
                            self.report();
                            reason
                        }
                    }
                }
                Err(end) => self.give_up_unless_lost(end)?,
            };
            let offline = offline_since.elapsed();
            if offline >= self.options.offline_max {
                return Err(PlayError::Unreachable { address: self.options.address.clone(), offline, reason });
            }
            if self.stopped || self.drain_by.is_some_and(|by| by <= Instant::now()) {
                return Ok(());
            }
            tracing::warn!(broker = %self.options.address, %reason, retry_ms = back_off.as_millis(), "no connection");
            tokio::select! {
                biased;
                () = stop.as_mut() => {
                    self.stopped = true;
                    return Ok(());
                }
                () = tokio::time::sleep(back_off) => {}
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// The reason of a loss; anything else ends the play.
    fn give_up_unless_lost(&self, end: LinkEnd) -> Result<String, PlayError> {
        let address = self.options.address.clone();
        match end {
            LinkEnd::Lost(reason) => Ok(reason),
            LinkEnd::Refused { reason, reason_code } => {
                Err(PlayError::Refused { address, client_id: self.options.client_id.clone(), reason, reason_code })
            }
            LinkEnd::QosNotSupported => Err(PlayError::QosNotSupported { address }),
        }
    }

    /// Plays on one connection until all is settled, a stop has drained, or the connection is lost.
    async fn play_on<S: AsyncRead + AsyncWrite>(
        &mut self,
        link: &mut Link<S>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Turn, PlayError> {
        loop {
            let due = self.fill(link);
            let now = Instant::now();
            if link.is_flushed() && self.is_finished() {
                return Ok(Turn::Done);
            }
            if self.ended && self.source_error.is_some() {
                self.drain_by.get_or_insert(now + DRAIN_MAX);
            }
            if self.drain_by.is_some_and(|by| by <= now) {
                return Ok(Turn::Done);
            }
            let next_report = self.reported_at + self.options.progress_every;
            if next_report <= now {
                self.write_position()?;
                self.report();
                continue;
            }
            let wake = [due, self.drain_by].into_iter().flatten().fold(next_report, Instant::min);
            let turned = tokio::select! {
                biased;
                () = stop.as_mut(), if !self.stopped => {
                    self.stopped = true;
                    self.drain_by = Some(Instant::now() + DRAIN_MAX);
                    continue;
                }
                turned = link.turn(wake) => turned,
            };
            // Acknowledgements that came before the end still count.
            for ack in link.take_acks() {
                self.settle(ack);
            }
            if let Err(end) = turned {
                return self.give_up_unless_lost(end).map(Turn::Lost);
            }
        }
    }

    /// Whether all that is to be played is settled.
    fn is_finished(&mut self) -> bool {
        let drained = self.window.len() == 0;
        drained && (self.stopped || self.peek().is_none())
    }

    /// Sends what may be sent; returns when the next message is due.
    fn fill<S: AsyncRead + AsyncWrite>(&mut self, link: &mut Link<S>) -> Option<Instant> {
        let in_flight_max = usize::from(self.options.in_flight_max.min(link.receive_max()));
        let window_max = WINDOW_PER_IN_FLIGHT * usize::from(self.options.in_flight_max);
        let now = Instant::now();
        while link.has_room() && self.window.n_in_flight() < in_flight_max {
            if self.send_waiting(link) {
                continue;
            }
            if self.drain_by.is_some() || self.window.len() >= window_max {
                return None;
            }
            let at = self.peek()?.at;
            if let Some(due) = self.pacer.due(at, now) {
                return Some(due);
            }
            let message = self.peeked.take().expect("peeked above");
            self.window.push(message);
        }
        None
    }

    /// Sends the oldest waiting message; `false` if none waits.
    fn send_waiting<S: AsyncRead + AsyncWrite>(&mut self, link: &mut Link<S>) -> bool {
        let Some((number, message)) = self.window.next_waiting() else { return false };
        let at = message.at;
        match link.publish(message, self.options.qos) {
            Ok(Some(packet_id)) => {
                if self.window.mark_sent(number, packet_id) {
                    self.progress.repeated += 1;
                } else {
                    self.progress.published += 1;
                }
            }
            Ok(None) => {
                debug_assert_eq!(self.options.qos, Qos::AtMostOnce);
                self.window.settle(number);
                self.progress.published += 1;
                self.progress.acknowledged += 1;
            }
            Err(refusal) => {
                let message = self.window.settle(number);
                self.reject(message, refusal);
            }
        }
        // Late messages do not move the position back.
        self.progress.position = self.progress.position.max(Some(at));
        true
    }

    fn settle(&mut self, ack: Ack) {
        let Some(message) = self.window.settle_packet(ack.packet_id) else { return };
        match ack.refusal {
            None => self.progress.acknowledged += 1,
            Some(refusal) => self.reject(message, refusal),
        }
    }

    fn reject(&mut self, message: Message, refusal: Refusal) {
        let Refusal { reason_code, reason } = refusal;
        let Message { topic, at, key, .. } = message;
        tracing::debug!(%topic, reason_code, %reason, "message refused");
        self.progress.rejected += 1;
        if self.progress.rejections.len() < REJECTIONS_KEPT_MAX {
            self.progress.rejections.push(Rejection { topic, at, key, reason_code, reason });
        }
    }

    fn write_position(&mut self) -> Result<(), PositionError> {
        let n_settled = self.window.n_settled_leading();
        if let Some(path) = &self.options.resume
            && self.n_settled_written != Some(n_settled)
        {
            Position::new(n_settled, self.first.clone()).write(path)?;
            self.n_settled_written = Some(n_settled);
        }
        Ok(())
    }

    fn n_settled(&self) -> u64 {
        self.progress.acknowledged + self.progress.rejected
    }

    fn report(&mut self) {
        let now = Instant::now();
        let settled = self.n_settled();
        let seconds = (now - self.reported_at).as_secs_f64();
        // Reports at a change of the connection may come together; they keep the last rate.
        if seconds > 0.0 {
            self.progress.rate_per_s = (settled - self.reported_settled) as f64 / seconds;
            self.reported_at = now;
            self.reported_settled = settled;
        }
        (self.on_progress)(&self.progress);
    }
}

async fn open<C, F, S>(connect: &mut C, options: &PlayOptions) -> Result<Link<S>, LinkEnd>
where
    C: FnMut() -> F,
    F: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite,
{
    match tokio::time::timeout(CONNECT_MAX, connect()).await {
        Ok(Ok(stream)) => Link::open(stream, options).await,
        Ok(Err(error)) => Err(LinkEnd::Lost(format!("cannot connect: {error}"))),
        Err(_) => Err(LinkEnd::Lost(format!("no connection within {} s", CONNECT_MAX.as_secs()))),
    }
}
