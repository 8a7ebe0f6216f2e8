//! The life of one WebSocket connection: frames both ways, the server's pings, and its end.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::sim::delivery::Push;
use crate::sim::listener::{Ask, Opened};
use crate::sim::session::ConnectionId;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Frames written before one flush.
const BATCH: usize = 256;
/// A client that takes no bytes for so long is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub ping_every: Duration,
    pub pong_within: Duration,
    pub connection_life: Duration,
}

enum Next {
    Go,
    Freeze,
    End,
}

pub(super) async fn carry(mut socket: Socket, opened: Opened, asks: &mpsc::Sender<Ask>, life: Life) {
    let Opened { id, mut frames } = opened;
    let mut pings = interval_at(Instant::now() + life.ping_every, life.ping_every);
    let mut last_pong = Instant::now();
    let end = sleep(life.connection_life);
    tokio::pin!(end);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let next = tokio::select! {
            biased;
            () = &mut end => Next::End,
            count = frames.recv_many(&mut batch, BATCH) => {
                if count == 0 { Next::End } else { write(&mut socket, &mut batch).await }
            }
            _ = pings.tick() => {
                if last_pong.elapsed() > life.pong_within { Next::End } else { ping(&mut socket).await }
            }
            read = socket.next() => read_one(id, read, asks, &mut last_pong).await,
        };
        match next {
            Next::Go => {}
            // The socket stays open and mute; it ends with the exchange.
            Next::Freeze => std::future::pending::<()>().await,
            Next::End => break,
        }
    }
    // The client may be gone already: closing politely is a courtesy, not a duty.
    drop(timeout(Duration::from_secs(1), socket.close(None)).await);
}

async fn write(socket: &mut Socket, batch: &mut Vec<Push>) -> Next {
    let mut last = Next::Go;
    for push in batch.drain(..) {
        match push {
            Push::Text(text) => match timeout(WRITE_WITHIN, socket.feed(Message::text(text))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Next::End,
            },
            Push::Close => last = Next::End,
            Push::Freeze => last = Next::Freeze,
        }
    }
    match timeout(WRITE_WITHIN, socket.flush()).await {
        Ok(Ok(())) => last,
        Ok(Err(_)) | Err(_) => Next::End,
    }
}

async fn ping(socket: &mut Socket) -> Next {
    match timeout(WRITE_WITHIN, socket.send(Message::Ping(b"countersign-sim".as_slice().into()))).await {
        Ok(Ok(())) => Next::Go,
        Ok(Err(_)) | Err(_) => Next::End,
    }
}

async fn read_one(
    id: ConnectionId,
    read: Option<Result<Message, Error>>,
    asks: &mpsc::Sender<Ask>,
    last_pong: &mut Instant,
) -> Next {
    match read {
        Some(Ok(Message::Text(text))) => match asks.send(Ask::Message(id, text.to_string())).await {
            Ok(()) => Next::Go,
            Err(_) => Next::End,
        },
        Some(Ok(Message::Pong(_))) => {
            *last_pong = Instant::now();
            Next::Go
        }
        // The library has queued the pong; the next read or flush sends it.
        Some(Ok(Message::Ping(_) | Message::Frame(_) | Message::Binary(_))) => Next::Go,
        Some(Ok(Message::Close(_)) | Err(_)) | None => Next::End,
    }
}
