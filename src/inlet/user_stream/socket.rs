//! What is said on a connection's socket, each within a limit.

use std::time::Duration;

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::tls::Socket;

const SEND_WITHIN: Duration = Duration::from_secs(5);
/// What the venue still had on the way when a connection was retired.
pub const DRAIN: Duration = Duration::from_secs(1);

pub async fn send(socket: &mut Socket, message: Message) -> Result<(), String> {
    match tokio::time::timeout(SEND_WITHIN, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the connection broke: {error}")),
        Err(_) => Err("the connection takes no more data".to_owned()),
    }
}

/// Says goodbye where the other side still listens; nothing depends on it.
pub async fn close(socket: &mut Socket) {
    let _ = tokio::time::timeout(DRAIN, socket.close(None)).await;
}

pub fn farewell(frame: Option<&CloseFrame>) -> String {
    match frame {
        Some(frame) => format!("the server closed the connection ({}: {})", u16::from(frame.code), frame.reason),
        None => "the server closed the connection".to_owned(),
    }
}
