//! What the operator sees and types while pairing mode is on.

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::approve;
use crate::cli::out;
use crate::dispatcher::pairing::advice::advice;
use crate::dispatcher::pairing::decide::{self, Approved, Overrides, Waiting};
use crate::dispatcher::pairing::prompt::{self, Command};
use crate::dispatcher::pairing::session::Notice;
use crate::dispatcher::site::Site;
use crate::store::queue::{Form, QueuedRequest};
use crate::wire::causes;

/// The operator's side of a session.
pub(super) struct Prompt {
    site: Site,
    interactive: bool,
    /// Approved here, and not taken by their agents yet.
    approved: Vec<Approved>,
}

/// Lines of standard input. The thread that reads them ends with the process: nothing interrupts a read of a terminal.
pub(super) fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    // Without the thread the channel is closed, which is the end of input.
    let _ = std::thread::Builder::new().name("prompt".to_owned()).spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Prompt {
    pub(super) const fn new(site: Site, interactive: bool) -> Self {
        Self { site, interactive, approved: Vec::new() }
    }

    /// There will be no more lines.
    pub(super) const fn input_ended(&mut self) {
        self.interactive = false;
    }

    /// Shows what happened.
    pub(super) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Queued(request) => {
                out::line(queued(request));
                self.show();
            }
            Notice::Gone(id, why) => {
                self.approved.retain(|approved| approved.request.id != *id);
                out::line(format!("Pairing request {id} is over: {}. Nothing was registered.", plain(why)));
            }
            Notice::Registered(record, _) => {
                let ours = |approved: &Approved| approved.request.id.as_str() == record.reqid;
                match self.approved.iter().position(ours) {
                    Some(index) => {
                        let approved = self.approved.swap_remove(index);
                        approve::registered(&approved, record).iter().for_each(out::line);
                    }
                    None => out::line(format!("Registered '{}' ({}).", record.hostname, record.target(record.port))),
                }
                if self.interactive {
                    out::line("Waiting for next request... (Ctrl-C to exit pairing mode)");
                }
            }
        }
    }

    /// Does what a line says; `false` to end the session.
    pub(super) async fn line(&mut self, line: &str) -> bool {
        let waiting = self.waiting();
        match prompt::parse(line, waiting.len()) {
            Command::Quit => return false,
            Command::List => self.show(),
            Command::Nothing => {}
            Command::Skip => out::line("Skipped: the request keeps waiting."),
            Command::Accept(number) => match nth(waiting, number) {
                Some(request) => self.approve(request).await,
                None => out::line(format!("Approve failed: there is no request {number}.")),
            },
            Command::Deny(number) => match nth(waiting, number) {
                Some(request) => self.deny(request).await,
                None => out::line(format!("Deny failed: there is no request {number}.")),
            },
            Command::Unknown(text) => out::line(format!(
                "Unknown command '{}'. Commands: a/d/s/list/quit or a1/d1 for multiple.",
                plain(&text)
            )),
        }
        true
    }

    async fn approve(&mut self, request: QueuedRequest) {
        let (site, id) = (self.site.clone(), request.id.to_string());
        match spawn_blocking(move || decide::approve(&site, &id, Overrides::default())).await {
            Ok(Ok(approved)) => {
                out::line(format!("Approved '{}' ({}).", approved.record.hostname, approved.request.id));
                self.approved.push(approved);
            }
            Ok(Err(error)) => out::line(format!("Approve failed: {}", describe(&error))),
            Err(error) => out::line(format!("Approve failed: {error}")),
        }
    }

    async fn deny(&mut self, request: QueuedRequest) {
        let (site, id) = (self.site.clone(), request.id.to_string());
        match spawn_blocking(move || decide::deny(&site, &id)).await {
            Ok(Ok(request)) => {
                out::line(format!("Denied request '{}'.", request.id));
                out::line("Waiting for next request... (Ctrl-C to exit pairing mode)");
            }
            Ok(Err(error)) => out::line(format!("Deny failed: {}", describe(&error))),
            Err(error) => out::line(format!("Deny failed: {error}")),
        }
    }

    /// Requests that nobody has answered yet.
    fn waiting(&self) -> Vec<Waiting> {
        match decide::list(&self.site) {
            Ok(all) => {
                let open = |waiting: &Waiting| matches!(self.site.queue.answered(&waiting.request.id), Ok(None));
                all.into_iter().filter(open).collect()
            }
            Err(error) => {
                out::error(format!("Error: {}", describe(&error)));
                Vec::new()
            }
        }
    }

    fn show(&self) {
        if !self.interactive {
            return;
        }
        match self.waiting().as_slice() {
            [] => out::line("No pending pairing requests."),
            [one] => out::text(&single(one)),
            several => out::text(&numbered(several)),
        }
    }
}

fn nth(waiting: Vec<Waiting>, number: usize) -> Option<QueuedRequest> {
    waiting.into_iter().nth(number.checked_sub(1)?).map(|waiting| waiting.request)
}

fn queued(request: &QueuedRequest) -> String {
    format!("Pairing request queued: {} ({}) - ID: {}", request.hostname, request.source_ip, request.id)
}

/// One request in full, and the question.
fn single(waiting: &Waiting) -> String {
    let request = &waiting.request;
    let mut lines = vec![
        String::new(),
        format!("Pairing request from {} ({}) - ID: {}", request.hostname, request.source_ip, request.id),
        format!("  Code:     {}   (verify this matches the agent display)", request.code),
    ];
    if request.form == Form::Original {
        lines.push("  Form:     original (the code covers the request only)".to_owned());
    }
    lines.push(format!("  Received: {}", request.received));
    lines.push(format!("  Reported name: {}", request.hostname));
    lines.push(format!("  Source IP:     {}", request.source_ip));
    if request.ip != request.source_ip {
        lines.push(format!("  Reported IP:   {}", request.ip));
    }
    lines.push(match (request.reverse_dns.as_str(), request.reverse_confirmed) {
        ("", _) => "  Reverse DNS:   (none)".to_owned(),
        (name, 0) => format!("  Reverse DNS:   {} (unconfirmed)", plain(name)),
        (name, _) => format!("  Reverse DNS:   {} (forward-confirmed)", plain(name)),
    });
    lines.extend(waiting.replaces.as_ref().map(|old| format!("  {}", approve::replaces(old))));
    lines.push(format!("  {}", advice(request)));
    lines.join("\n") + "\nAccept, Deny, or Skip? [a/d/s]: "
}

fn numbered(waiting: &[Waiting]) -> String {
    let mut lines = vec![String::new(), format!("{} pending pairing requests:", waiting.len())];
    for (index, one) in waiting.iter().enumerate() {
        let request = &one.request;
        let (host, ip) = (request.hostname.as_str(), request.source_ip.to_string());
        let weak = if request.form == Form::Original { "  (original: the code covers the request only)" } else { "" };
        let (code, received) = (&request.code, &request.received);
        lines.push(format!("  [{}] {host:<30}  {ip:<16}  code: {code}  {received}{weak}", index + 1));
        lines.extend(one.replaces.as_ref().map(|old| format!("      {}", approve::replaces(old))));
    }
    lines.join("\n") + "\nCommand (a1/d1/a2/d2/list/quit): "
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn describe(error: &dyn std::error::Error) -> String {
    plain(&causes::on_one_line(error))
}
