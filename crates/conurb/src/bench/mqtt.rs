//! A lean MQTT 3.1.1 publisher for loading a node: QoS 1, a window of unacknowledged messages, no more.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Messages that may be unacknowledged.
const WINDOW: usize = 256;
/// Bytes of a PUBACK: type, length, packet identifier.
const PUBACK_BYTES: usize = 4;

/// Publishes all messages in order; returns when all are acknowledged.
pub(super) async fn publish(address: &str, client_id: &str, messages: impl Iterator<Item = (String, String)>) -> anyhow::Result<u64> {
    let mut socket = TcpStream::connect(address).await.context("cannot connect")?;
    socket.set_nodelay(true)?;
    let mut packet = Vec::new();
    // Protocol name and level, clean session, keep alive 60 s, client identifier.
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec();
    push_text(&mut body, client_id);
    push_packet(&mut packet, 0x10, &body);
    socket.write_all(&packet).await?;
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).await?;
    if connack[0] != 0x20 || connack[3] != 0 {
        bail!("the node refused the MQTT connection with code {}", connack[3]);
    }
    let mut n_done = 0;
    let mut messages = messages.peekable();
    let mut acknowledged = vec![0; WINDOW * PUBACK_BYTES];
    while messages.peek().is_some() {
        packet.clear();
        let mut n = 0;
        for (topic, payload) in messages.by_ref().take(WINDOW) {
            n += 1;
            body.clear();
            push_text(&mut body, &topic);
            body.extend((n as u16).to_be_bytes());
            body.extend(payload.as_bytes());
            push_packet(&mut packet, 0x32, &body);
        }
        socket.write_all(&packet).await?;
        let answers = &mut acknowledged[..n * PUBACK_BYTES];
        socket.read_exact(answers).await?;
        if let Some(other) = answers.chunks(PUBACK_BYTES).find(|a| a[0] != 0x40) {
            bail!("expected an acknowledgement, found packet type {:#04x}", other[0]);
        }
        n_done += n as u64;
    }
    Ok(n_done)
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text.as_bytes());
}

fn push_packet(packet: &mut Vec<u8>, first: u8, body: &[u8]) {
    packet.push(first);
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
}
