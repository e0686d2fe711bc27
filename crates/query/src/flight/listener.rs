//! Connections: TCP, inside TLS if there is a certificate, counted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::ServerConfig;
use datafusion_postgres::pgwire::tokio::tokio_rustls::server::TlsStream;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::transport::server::Connected;

/// How long a client may take for the TLS handshake.
const TLS_TIME: Duration = Duration::from_secs(30);
/// How long to wait when the machine has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The protocol inside TLS, which clients insist on.
const HTTP_2: &[u8] = b"h2";

/// The address at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A connection; its place among the connections is free again when it is dropped.
pub(super) struct Connection {
    stream: MaybeTls,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

enum MaybeTls {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

/// The connections that come in, at most so many at a time. Runs until the answer is dropped.
pub(super) fn connections(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    connections_max: usize,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let tls = tls.map(|config| {
        let mut config = (*config).clone();
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let places = Arc::new(Semaphore::new(connections_max));
    // A handshake takes its time; it must not keep others from being accepted.
    let (ready, mut accepted) = mpsc::channel(1);
    let accepting = tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = ready.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a Flight SQL connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(peer = %address, limit = connections_max, "a Flight SQL connection beyond the limit was dropped");
                continue;
            };
            let (ready, tls) = (ready.clone(), tls.clone());
            tokio::spawn(async move {
                let secured = tokio::time::timeout(TLS_TIME, secure(stream, tls)).await;
                match secured.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(stream) => {
                        // An error says that the server has stopped.
                        let _ = ready.send(Connection { stream, peer: Peer(address), _place: place }).await;
                    }
                    Err(error) => tracing::debug!(peer = %address, %error, "Flight SQL connection lost"),
                }
            });
        }
    });
    let accepting = AbortOnDrop(accepting);
    futures::stream::poll_fn(move |context| {
        let _ = &accepting;
        accepted.poll_recv(context).map(|c| c.map(Ok))
    })
}

/// The task holds the listening socket, which must be closed when the server stops.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn secure(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<MaybeTls> {
    stream.set_nodelay(true)?;
    match tls {
        Some(tls) => Ok(MaybeTls::Tls(Box::new(tls.accept(stream).await?))),
        None => Ok(MaybeTls::Plain(stream)),
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_flush(context),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
