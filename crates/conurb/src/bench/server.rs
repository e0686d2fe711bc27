//! A lean HTTP/1.1 server that stands in for receivers of notifications and for other context sources: connections are kept open.

use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Sees the body of a request and gives that of the answer.
pub(super) type Answer = Arc<dyn Fn(&[u8]) -> Arc<[u8]> + Send + Sync>;

/// Serves on a port of its own for as long as the process lives; gives the address.
pub(super) async fn serve(answer: Answer) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            // A connection that ends is not an event.
            tokio::spawn(async move { drop(connection(stream, answer).await) });
        }
    });
    Ok(address)
}

async fn connection(stream: TcpStream, answer: Answer) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut n_bytes = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                n_bytes = value.trim().parse()?;
            }
        }
        body.resize(n_bytes, 0);
        stream.read_exact(&mut body).await?;
        let bytes = answer(&body);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", bytes.len());
        stream.write_all(&[head.as_bytes(), &bytes].concat()).await?;
    }
}
