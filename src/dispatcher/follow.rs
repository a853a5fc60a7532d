//! A job's output as it is printed, from its first byte on, whenever somebody begins to look.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Ask, Dialer, Reply};
use super::failure::CallError;
use super::live::{ACCEPT, Live, while_heard};
use super::resolve::Target;
use super::status;

/// Time between two questions to an agent that cannot stream a job.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows the jobs of this id on every target to their ends, or until nobody listens to `live` any more.
pub async fn follow(fleet: &Fleet, targets: Vec<Target>, reqid: &str, live: mpsc::Sender<Live>) -> Vec<HostResult> {
    let ask = |target| {
        let (dialer, reqid, live) = (fleet.dialer.clone(), reqid.to_owned(), live.clone());
        async move { while_heard(&live, to_the_end(&dialer, &target, &reqid, &live)).await }
    };
    let (log, id, ended) = (fleet.log.clone(), reqid.to_owned(), live.clone());
    let finish = move |call: Call| {
        let (result, ended) = (status::finish(&log, &id, &call), ended.clone());
        async move {
            // Nobody listens any more: the results are returned all the same.
            let _ = ended.send(Live::Ended(result.clone())).await;
            result
        }
    };
    call::each(targets, fleet.most, ask, finish, |_| {}).await
}

/// One job. An agent that cannot stream it is asked again until it has ended, and tells its output then.
pub(super) async fn to_the_end(
    dialer: &Dialer,
    target: &Target,
    reqid: &str,
    live: &mpsc::Sender<Live>,
) -> Result<Map<String, Value>, CallError> {
    loop {
        let ask = Ask { method: Method::GET, path: &format!("/result/{reqid}"), accept: ACCEPT, body: Bytes::new() };
        let each = |channel, bytes| {
            let (live, host) = (live.clone(), target.name().clone());
            async move {
                // Where nobody listens any more, the call ends of itself.
                let _ = live.send(Live::Output { host, channel, bytes }).await;
            }
        };
        let Reply { body, .. } = dialer.stream(target, ask, each).await?;
        let record = status::as_meant(answer::object(&body, "invalid JSON")?);
        if record.get("status").is_none_or(|status| status != "running") {
            return Ok(record);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
