//! What a root executor knows of scripts' files that this agent may not read.

use std::io;
use std::os::unix::net::UnixStream as Socket;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Orders;
use crate::wire::control::{Contents, Control, LIMIT};
use crate::wire::frame::{self, PREFIX};

/// How long an executor may take, with files to read. One that is busy, or does not know the word, says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

impl Orders {
    /// Asks [`Control::Versions`] or [`Control::Digests`].
    ///
    /// # Errors
    /// It does not answer, or nothing that is one.
    pub async fn contents(&self, word: Control) -> io::Result<Contents> {
        let answer = async {
            let socket = Socket::from(self.open().await?);
            socket.set_nonblocking(true)?;
            let mut stream = UnixStream::from_std(socket)?;
            stream.write_all(&frame::encode(&word, LIMIT).map_err(io::Error::other)?).await?;
            let mut prefix = [0; PREFIX];
            stream.read_exact(&mut prefix).await?;
            let mut body = vec![0; frame::announced(prefix, Contents::LIMIT).map_err(io::Error::other)?];
            stream.read_exact(&mut body).await?;
            frame::decode(&body).map_err(io::Error::other)
        };
        timeout(PATIENCE, answer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}
