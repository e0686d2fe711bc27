//! The life of one connection.
//!
//! Our own loop over the protocol crate's steps, because its loop goes on after a fatal error, as if the client had logged in,
//! lets a panic end a connection without a word, and cannot be asked to stop.

use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use datafusion_postgres::pgwire::tokio::server::{negotiate_tls, process_error, process_message};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Server;
use super::session::{Session, error_info, fatal};

/// How long a client may take to log in.
const LOGIN_TIME: Duration = Duration::from_secs(30);

/// Answers a client until it goes, fails to log in, or the server stops.
pub(super) async fn converse(stream: TcpStream, server: Arc<Server>, admitted: bool, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let (stream, probe) = twice(stream)?;
    let login_deadline = tokio::time::sleep(LOGIN_TIME);
    tokio::pin!(login_deadline);
    let negotiated = tokio::select! {
        () = &mut login_deadline => return Ok(()),
        negotiated = negotiate_tls(stream, server.tls.clone()) => negotiated?,
    };
    // None: TLS was asked for without asking whether there is any.
    let Some(mut socket) = negotiated else { return Ok(()) };
    let cancel = server.open.clone();
    let session = Arc::new(Session::new(server, admitted));

    let mut is_resting = true;
    loop {
        let logging_in = matches!(socket.state(), PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress);
        // Between the messages of one statement a cancellation waits for the next one.
        let is_copying = matches!(socket.state(), PgWireConnectionState::CopyInProgress(false));
        let message = tokio::select! {
            // In this order: a cancellation that came too late does not end the next statement.
            biased;
            () = session.signals().end.notified() => return socket.send(PgWireBackendMessage::ErrorResponse(terminated().into())).await,
            () = session.signals().cancel.notified(), if is_resting || is_copying => {
                if is_copying {
                    session.break_off_copy().await;
                    process_error(&mut socket, PgWireError::QueryCanceled, false).await?;
                    is_resting = true;
                    session.rest(socket.transaction_status());
                }
                continue;
            }
            () = &mut login_deadline, if logging_in => break,
            () = stop_asked(&mut stopped) => {
                let farewell = fatal("57P01", "terminating connection: the server is shutting down");
                socket.send(PgWireBackendMessage::ErrorResponse(farewell.into())).await?;
                break;
            }
            message = socket.next() => message,
        };
        let message = match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => break,
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                let mut info = error_info(error);
                info.severity = "FATAL".to_owned();
                return socket.send(PgWireBackendMessage::ErrorResponse(info.into())).await;
            }
        };
        let extended = message.is_extended_query();
        let cancelling = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        let ends = matches!(message, PgWireFrontendMessage::Sync(_) | PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Close(_));
        let works = !ends && !matches!(socket.state(), PgWireConnectionState::AwaitingSync);
        is_resting &= ends || logging_in;
        let is_query = matches!(message, PgWireFrontendMessage::Query(_));
        let ends_statement = matches!(message, PgWireFrontendMessage::Query(_) | PgWireFrontendMessage::Sync(_));
        let step =
            process_message(message, &mut socket, session.clone(), session.clone(), session.clone(), session.clone(), cancel.clone());
        // Who waits for nobody works for nobody: with the step everything that it has started is dropped.
        let done = tokio::select! {
            biased;
            done = AssertUnwindSafe(step).catch_unwind() => done,
            // The statement is dropped with its step; no message was left half written.
            () = session.signals().end.notified() => return socket.send(PgWireBackendMessage::ErrorResponse(terminated().into())).await,
            // Rows that have arrived are recorded first: the client is told how many.
            () = session.signals().cancel.notified(), if works && !is_copying => Ok(Err(PgWireError::QueryCanceled)),
            () = gone(&probe) => {
                tracing::debug!("an SQL client went away during a statement, which was stopped");
                return Ok(());
            }
        };
        let done = match done {
            // It had its answer already, which only had to be sent.
            Ok(Err(PgWireError::QueryCanceled)) if is_query && matches!(socket.state(), PgWireConnectionState::ReadyForQuery) => {
                Ok(Ok(socket.flush().await?))
            }
            done => done,
        };
        let mut info = match done {
            Ok(Ok(())) if cancelling => break,
            Ok(Ok(())) => {
                let still_copying = matches!(socket.state(), PgWireConnectionState::CopyInProgress(_));
                if (ends_statement || is_copying) && !still_copying {
                    session.rest(socket.transaction_status());
                    is_resting = true;
                }
                continue;
            }
            Ok(Err(error)) => error_info(error),
            Err(panic) => panicked(&*panic),
        };
        if logging_in {
            // Nothing that goes wrong before the login may leave a usable connection.
            info.severity = "FATAL".to_owned();
        }
        let ended = info.is_fatal();
        process_error(&mut socket, PgWireError::UserError(Box::new(info)), extended).await?;
        if ended {
            break;
        }
        if !extended {
            is_resting = true;
            session.rest(socket.transaction_status());
        }
    }
    Ok(())
}

/// How often it is looked whether the client is still there, while more of its messages wait to be read.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// A second handle of the same connection, to look at it while the first one is lent to a statement.
fn twice(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let probe = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, TcpStream::from_std(probe)?))
}

/// Completes when the client has closed its side of the connection.
async fn gone(probe: &TcpStream) {
    let mut one = [0];
    loop {
        match probe.peek(&mut one).await {
            Ok(0) | Err(_) => return,
            // It has sent more already, behind which the end may be.
            Ok(_) => tokio::time::sleep(PROBE_PAUSE).await,
        }
        if probe.ready(tokio::io::Interest::READABLE).await.is_ok_and(|r| r.is_read_closed()) {
            return;
        }
    }
}

/// Completes when the server is to stop, or is gone.
async fn stop_asked(stopped: &mut watch::Receiver<bool>) {
    // The guard inside the answer must not live across the next await.
    let _ = stopped.wait_for(|stop| *stop).await.is_ok();
}

/// What a session is told whose end another one has asked for.
fn terminated() -> ErrorInfo {
    fatal("57P01", "terminating connection due to administrator command")
}

fn panicked(panic: &(dyn Any + Send)) -> ErrorInfo {
    let what = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(what = what.unwrap_or("unknown"), "a panic while answering an SQL statement");
    fatal("XX000", "internal error; the connection is closed, the server goes on")
}
