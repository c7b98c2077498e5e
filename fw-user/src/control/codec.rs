//! JSON documents in length-delimited frames over a Unix socket.

use std::io;

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Bytes that one message may have: a policy with large address lists fits, a flood of memory does not.
pub const MAX_MESSAGE: usize = 16 << 20;

/// One connection.
pub struct Connection {
    frames: Framed<UnixStream, LengthDelimitedCodec>,
}

impl Connection {
    /// Wraps a connected socket.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(MAX_MESSAGE)
            .new_codec();
        Self {
            frames: Framed::new(stream, codec),
        }
    }

    /// Sends one message and hands it to the kernel.
    ///
    /// # Errors
    /// If the other side is gone, or the message is over [`MAX_MESSAGE`].
    pub async fn send(&mut self, message: &(impl Serialize + Sync)) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        self.frames.send(bytes.as_slice()).await
    }

    /// Sends one message; it may wait in the buffer for [`Self::flush`] or a later message.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn feed(&mut self, message: &(impl Serialize + Sync)) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        self.frames.feed(bytes.as_slice()).await
    }

    /// Hands all buffered messages to the kernel.
    ///
    /// # Errors
    /// If the other side is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        SinkExt::<&[u8]>::flush(&mut self.frames).await
    }

    /// The next message; `None` when the other side has closed.
    ///
    /// # Errors
    /// If the frame is too long, or is not the JSON document that is expected here.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(frame) = self.frames.next().await else {
            return Ok(None);
        };
        let frame = frame?;
        serde_json::from_slice(&frame)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
