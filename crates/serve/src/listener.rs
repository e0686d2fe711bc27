//! The HTTP listener: HTTP/1.1 and HTTP/2 on one port, in the clear or behind TLS.
//!
//! HTTP/2 is chosen by ALPN behind TLS, and by its first bytes ("prior knowledge") in both.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::tls::Tls;

/// Open connections of one listener; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// How long the head of a request may take, and how long a connection may be idle. Longer than clients keep theirs, so that it is they
/// who close.
const HEAD_WAIT: Duration = Duration::from_secs(120);
/// How long agreeing on TLS may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How often a silent HTTP/2 connection is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// The pause after the system could not hand out a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop` turns true; requests under way are answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<Tls>>, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Nothing is ever sent: it is closed when the last connection has let go of its end.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let accepted = async {
            let turn = Arc::clone(&turns).acquire_owned().await.expect("it is never closed");
            (listener.accept().await, turn)
        };
        let (accepted, turn) = tokio::select! {
            accepted = accepted => accepted,
            // An error means that the sender is gone: the same as stop.
            _ = stop.wait_for(|s| *s) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) if is_of_one_connection(&e) => continue,
            Err(e) => {
                tracing::error!(error = %e, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, tls, stop, open) = (router.clone(), tls.clone(), stop.clone(), open.clone());
        tokio::spawn(async move {
            connection(stream, router, tls, stop).await;
            drop((turn, open));
        });
    }
    drop((listener, open));
    all_closed.recv().await;
    Ok(())
}

fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn connection(stream: TcpStream, router: Router, tls: Option<Arc<Tls>>, stop: watch::Receiver<bool>) {
    // Answers are written whole: waiting for more only delays them. An error shows at the first read anyway.
    let _ = stream.set_nodelay(true);
    match tls {
        None => http(TokioIo::new(stream), router, stop).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_WAIT, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => http(TokioIo::new(stream), router, stop).await,
            Ok(Err(e)) => tracing::debug!(error = %e, "no TLS connection came about"),
            Err(_) => tracing::debug!("no TLS connection came about in time"),
        },
    }
}

async fn http<I>(io: I, router: Router, mut stop: watch::Receiver<bool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).keep_alive_interval(PING_EVERY);
    let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
    // Kept over the loop: to begin to wait anew at each packet would cost more than the packet.
    let mut stopped = pin!(async move {
        // An error means that the sender is gone: the same as stop.
        let _ = stop.wait_for(|s| *s).await;
    });
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(e) = ended {
                    tracing::trace!(error = e, "a connection broke");
                }
                return;
            }
            () = stopped.as_mut(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
