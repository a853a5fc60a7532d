//! A streamed answer: what a run prints becomes frames of the body while it is printed.
//!
//! At most two frames wait between the script and the connection; a caller that reads slowly holds the script back. A
//! caller that goes away drops the body, and with it the run: the script ends with everything it started. One that stays
//! and takes nothing for too long is given up, which comes to the same.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame as Piece};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::pump::Sink;
use super::under_way::Place;
use crate::net::crowd::{self, Crowd};
use crate::net::serve::Cut;
use crate::wire::name::DispatcherId;
use crate::wire::stream::{Channel, Draft, Encoder, Frame};

/// Frames that may wait for the connection.
const WAITING: usize = 2;
/// After so much silence a frame says that the run is still there.
const IDLE: Duration = Duration::from_secs(10);

/// A caller that asked for a streamed answer.
#[derive(Debug)]
pub struct Reader {
    /// Ends the answer in the middle.
    pub cut: Cut,
    /// How long it may take no frame that is there for it.
    pub patience: Duration,
}

/// The caller takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled;

/// The script's side of a streamed answer.
#[derive(Debug)]
pub struct Outlet {
    /// Held while a frame is sent, so that frames leave in the order of their numbers.
    encoder: Mutex<Encoder>,
    sender: mpsc::Sender<Bytes>,
    reader: Reader,
    /// Told when a frame waited too long, or the place among the readers is lost.
    stalled: Arc<Notify>,
    /// Once there is nothing left to do but to be read.
    reading: OnceLock<crowd::Place<DispatcherId>>,
}

impl Outlet {
    async fn send(&self, encode: impl FnOnce(&mut Encoder) -> Vec<u8>) {
        let mut encoder = self.encoder.lock().await;
        // **Invariant:** a frame gets its number when nothing can keep it from leaving any more: who waits here for a place
        // may be dropped, as the sign of life is when the script ends, and the next would be out of sequence.
        match timeout(self.reader.patience, self.sender.reserve()).await {
            Ok(Ok(place)) => {
                place.send(Bytes::from(encode(&mut encoder)));
                // Behind the sending: that there was room means that something was taken.
                self.reading.get().into_iter().for_each(crowd::Place::renew);
            }
            // A body that is gone takes the run with it; until then there is nothing to do about it.
            Ok(Err(_)) => {}
            Err(_) => {
                self.stalled.notify_one();
                // What follows would be missing something.
                pending::<()>().await;
            }
        }
    }

    /// There is nothing left to do for this answer but to be read: it makes room for requests, and has a place among its
    /// caller's others of the kind from now on.
    pub fn is_to_be_read(&self, readers: &Arc<Crowd<DispatcherId>>, caller: &DispatcherId, place: &mut Place) {
        let enter = || readers.enter_heard(caller.clone(), false, Arc::clone(&self.stalled));
        self.reading.get_or_init(enter);
        place.step_aside();
    }

    /// Sends output that was read elsewhere.
    pub async fn tell(&self, channel: Channel, bytes: &[u8]) {
        self.send(|encoder| encoder.encode(&Frame::Output(channel, bytes))).await;
    }

    /// Says at intervals that the run is still there; returns when the caller takes nothing any more.
    pub async fn keep_alive(&self) -> Stalled {
        let idle = async {
            loop {
                tokio::time::sleep(IDLE).await;
                self.send(|encoder| encoder.encode(&Frame::Idle)).await;
            }
        };
        tokio::select! {
            () = self.stalled.notified() => Stalled,
            () = idle => Stalled,
        }
    }

    /// The last frame.
    pub async fn end(self, json: Vec<u8>) {
        tokio::select! {
            () = self.send(|encoder| encoder.encode(&Frame::End(json))) => {}
            () = self.stalled.notified() => self.give_up(),
        }
    }

    /// Ends the answer without its end, and throws away what waits of it.
    pub fn give_up(&self) {
        self.reader.cut.now();
    }
}

impl Sink for Outlet {
    async fn take(&self, channel: Channel, draft: &mut Draft) {
        self.send(|encoder| encoder.output(channel, draft)).await;
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
    pub fn start<F: Future<Output = ()> + Send + 'static>(reader: Reader, work: impl FnOnce(Outlet) -> F) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let outlet =
            Outlet { encoder: Mutex::default(), sender, reader, stalled: Arc::default(), reading: OnceLock::new() };
        let work = tokio::spawn(work(outlet));
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::wire::stream::Decoder;

    /// A body of endless output, and when its work has given the caller up.
    fn endless(patience: Duration) -> (OutputBody, oneshot::Receiver<Stalled>) {
        let (told, stalled) = oneshot::channel();
        let body = OutputBody::start(Reader { cut: Cut::default(), patience }, |outlet| async move {
            let print = async {
                loop {
                    outlet.tell(Channel::Stdout, b"x").await;
                }
            };
            let stalled = tokio::select! {
                stalled = outlet.keep_alive() => stalled,
                never = print => never,
            };
            told.send(stalled).unwrap();
        });
        (body, stalled)
    }

    #[tokio::test]
    async fn a_caller_that_takes_nothing_is_given_up() {
        let (_body, stalled) = endless(Duration::from_millis(20));
        assert_eq!(stalled.await, Ok(Stalled));
    }

    #[tokio::test]
    async fn a_caller_that_takes_little_by_little_is_not_given_up() {
        let (mut body, mut stalled) = endless(Duration::from_secs(2));
        // Longer than the limit: time is what is tested.
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(body.frame().await.is_some());
        }
        assert!(stalled.try_recv().is_err());
        let began = std::time::Instant::now();
        assert_eq!(stalled.await, Ok(Stalled));
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_frame_that_nobody_waits_for_any_more_leaves_no_gap() {
        let reader = Reader { cut: Cut::default(), patience: Duration::from_secs(20) };
        let (waiting, full) = oneshot::channel();
        let mut body = OutputBody::start(reader, |outlet| async move {
            for _ in 0..WAITING {
                outlet.tell(Channel::Stdout, b"x").await;
            }
            let idle = outlet.send(|encoder| encoder.encode(&Frame::Idle));
            assert!(timeout(Duration::from_millis(10), idle).await.is_err());
            waiting.send(()).unwrap();
            outlet.end(b"{}".to_vec()).await;
        });
        full.await.unwrap();
        let (mut decoder, mut ended) = (Decoder::default(), false);
        while let Some(frame) = body.frame().await {
            let bytes = frame.unwrap().into_data().unwrap();
            let mut piece = &bytes[..];
            while let Some(frame) = decoder.next_frame(&mut piece).unwrap() {
                ended = matches!(frame, Frame::End(_));
            }
        }
        assert!(ended);
    }

    #[tokio::test]
    async fn a_script_that_says_nothing_is_no_callers_fault() {
        let (told, ended) = oneshot::channel();
        let mut body = OutputBody::start(
            Reader { cut: Cut::default(), patience: Duration::from_millis(1) },
            |outlet| async move {
                tokio::select! {
                    Stalled = outlet.keep_alive() => {}
                    () = tokio::time::sleep(Duration::from_millis(50)) => told.send(()).unwrap(),
                }
                outlet.end(b"{}".to_vec()).await;
            },
        );
        assert_eq!(ended.await, Ok(()));
        assert!(body.frame().await.is_some());
    }
}
