//! An executor of the system, reached through its socket.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{ExecutorError, PATIENCE, judge};
use crate::sys::fdpass;
use crate::wire::control::{Control, LIMIT};
use crate::wire::frame::{self, PREFIX};

/// How long the executor's queue may be full.
const CROWD: Duration = Duration::from_secs(5);
/// The pause before another attempt then.
const PAUSE: Duration = Duration::from_millis(10);

/// A fresh connection for one order.
///
/// # Errors
/// Nobody listens there, or somebody who is not root: what an order says is for no other ears.
pub(super) async fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(connect(path).await?.into_std()?.into())
}

/// Says one word and waits for its answer. Returns the process that made the socket.
///
/// # Errors
/// As [`open`], or what the executor answers.
pub(super) async fn ask(path: &Path, word: Control) -> Result<i32, ExecutorError> {
    let unreachable = |source| ExecutorError::Unreachable { path: path.to_owned(), source };
    let answer = async {
        let mut stream = connect(path).await?;
        let maker = fdpass::peer(stream.as_fd())?.pid;
        stream.write_all(&frame::encode(&word, LIMIT).map_err(io::Error::other)?).await?;
        let mut prefix = [0; PREFIX];
        stream.read_exact(&mut prefix).await?;
        let mut body = vec![0; frame::announced(prefix, LIMIT).map_err(io::Error::other)?];
        stream.read_exact(&mut body).await?;
        io::Result::Ok((maker, body))
    };
    let answered = timeout(PATIENCE, answer).await.map_err(|_| ExecutorError::Silent)?;
    let (maker, body) = answered.map_err(unreachable)?;
    judge(&body).map(|()| maker)
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let crowded = async {
        loop {
            match UnixStream::connect(path).await {
                // The queue is full, connect(2).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
                other => return other,
            }
        }
    };
    let stream = timeout(CROWD, crowded).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let peer = fdpass::peer(stream.as_fd())?;
    if !peer.uid.is_root() {
        let text = format!("{} is served by uid {}, and not by root", path.display(), peer.uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(stream)
}
