//! HTTP/1.0 and 1.1, for the original and for anything by hand: the connection is the request, and one that ends early ends it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Bounds, Counted, Cut, FAREWELL, Held, Unreadable, is_last, unasked};
use crate::net::shared::Shared;
use crate::wire::limits;

/// HTTP/1: how often is looked whether the peer of a request under way has hung up.
const LOOK: Duration = Duration::from_secs(1);

/// Serves a connection on which HTTP/1.0 or 1.1 is spoken, to its end or until `leave` is done.
pub async fn serve_1<S, A, F, B>(
    stream: S,
    bounds: Bounds,
    leave: impl Future<Output = ()>,
    answer: A,
) -> Option<Unreadable>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve(stream, |_| false, bounds, leave, answer).await
}

/// The same over a transport that can tell whether the peer has hung up.
///
/// While a request is under way, nothing is read beyond what came with it: where that is more than the request, its end is
/// not seen by reading.
pub(super) async fn serve<S, A, F, B>(
    stream: S,
    hung_up: impl Fn(&S) -> bool,
    bounds: Bounds,
    leave: impl Future<Output = ()>,
    answer: A,
) -> Option<Unreadable>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = Shared::new(stream);
    let (parting, cut) = (Notify::new(), Cut::default());
    let under_way = Arc::new(watch::Sender::new(0_usize));
    let watched = under_way.subscribe();
    let service = service_fn(|mut request| {
        stream.speak();
        request.extensions_mut().insert(cut.clone());
        let (counted, answer, parting) = (Counted::new(&under_way), answer(request), &parting);
        async move {
            let mut answer = answer.await;
            if is_last(&answer) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                parting.notify_one();
            }
            Ok::<_, Infallible>(answer.map(|body| Held { body, _counted: counted }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(limits::REQUEST_HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(&stream), service));
    let mut over = std::pin::pin!(async {
        tokio::select! {
            () = async { parting.notified().await; sleep(FAREWELL).await } => {}
            () = cut.wanted() => {}
            () = lost(watched, || stream.look(&hung_up)) => {}
        }
    });
    tokio::select! {
        ended = &mut connection => return unasked::end(ended, &stream, false).await,
        () = &mut over => return None,
        () = leave => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = &mut connection => unasked::end(ended, &stream, true).await,
        () = over => None,
    }
}

/// Returns when the peer has hung up on a request that is under way.
async fn lost(mut under_way: watch::Receiver<usize>, has_hung_up: impl Fn() -> bool) {
    loop {
        if under_way.wait_for(|count| *count > 0).await.is_err() {
            return std::future::pending().await;
        }
        sleep(LOOK).await;
        if *under_way.borrow() > 0 && has_hung_up() {
            return;
        }
    }
}
