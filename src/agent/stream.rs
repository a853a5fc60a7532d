//! A streamed answer: what a run prints becomes frames of the body while it is printed.
//!
//! At most two frames wait between the script and the connection; a caller that reads slowly holds the script back. A
//! caller that goes away drops the body, and with it the run: the script ends with everything it started.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame as Piece};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::execute::Sink;
use crate::wire::stream::{Channel, Encoder, Frame};

/// Frames that may wait for the connection.
const WAITING: usize = 2;
/// After so much silence a frame says that the run is still there.
const IDLE: Duration = Duration::from_secs(10);

/// The script's side of a streamed answer.
#[derive(Debug)]
pub struct Outlet {
    /// Held while a frame is sent, so that frames leave in the order of their numbers.
    encoder: Mutex<Encoder>,
    sender: mpsc::Sender<Bytes>,
}

impl Outlet {
    async fn send(&self, encode: impl FnOnce(&mut Encoder) -> Vec<u8>) {
        let mut encoder = self.encoder.lock().await;
        // A body that is gone takes the run with it; until then there is nothing to do about it.
        let _ = self.sender.send(Bytes::from(encode(&mut encoder))).await;
    }

    /// Says at intervals that the run is still there; never returns.
    pub async fn keep_alive(&self) -> Infallible {
        loop {
            tokio::time::sleep(IDLE).await;
            self.send(|encoder| encoder.encode(&Frame::Idle)).await;
        }
    }

    /// The last frame.
    pub async fn end(&self, json: Vec<u8>) {
        self.send(|encoder| encoder.encode(&Frame::End(json))).await;
    }
}

impl Sink for Outlet {
    async fn take(&self, channel: Channel, bytes: &[u8]) {
        self.send(|encoder| encoder.output(channel, bytes)).await;
    }
}

/// The body of a streamed answer. Dropping it drops the work behind it.
#[derive(Debug)]
pub struct OutputBody {
    receiver: mpsc::Receiver<Bytes>,
    work: JoinHandle<()>,
}

impl OutputBody {
    /// Starts the work that fills the body.
    pub fn start<F: Future<Output = ()> + Send + 'static>(work: impl FnOnce(Outlet) -> F) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let work = tokio::spawn(work(Outlet { encoder: Mutex::default(), sender }));
        Self { receiver, work }
    }
}

impl Body for OutputBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Piece<Bytes>, Infallible>>> {
        self.get_mut().receiver.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Piece::data(bytes))))
    }
}

impl Drop for OutputBody {
    fn drop(&mut self) {
        self.work.abort();
    }
}
