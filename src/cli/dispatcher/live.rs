//! Output while it is printed: raw for one host, whole lines with the host before them for several, or JSON lines.
//!
//! One thread prints. What waits for it is bounded: a terminal that is slow holds back the hosts, each at its own
//! pipe, and no host's flood keeps another's line from its turn.

use std::collections::HashMap;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::sync::mpsc;

use super::results;
use crate::cli::out::{self, Raw};
use crate::dispatcher::answer::HostResult;
use crate::dispatcher::live::Live;
use crate::wire::name::AgentName;
use crate::wire::stream::{Channel, whole_characters};

/// Events that may wait for the terminal.
const WAITING: usize = 32;
/// Pieces of this size come from a script that prints as fast as it can. To be woken for each of them costs more than to
/// print them: what comes meanwhile gathers for so long.
const FLOOD: usize = 32 * 1024;
const PAUSE: Duration = Duration::from_millis(1);
/// Longest line that is kept whole; a longer one is shown in pieces of this size, so that a script that never ends its
/// line takes no memory.
const LINE: usize = 64 * 1024;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The only host's bytes as they are.
    Raw,
    /// Lines, each with its host.
    Prefixed,
    /// One JSON event a line.
    Json,
}

/// Starts the printing thread. It ends when every sender is gone, or when what it prints is lost: the senders are told, and
/// [`out::is_lost`] from then on.
pub fn start(style: Style) -> io::Result<(mpsc::Sender<Live>, JoinHandle<()>)> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let (stdout, stderr) = (Raw::of(&io::stdout())?, Raw::of(&io::stderr())?);
    let printing = std::thread::Builder::new().name("print".to_owned()).spawn(move || {
        let mut printer = Printer { style, stdout, stderr, mid_line: false, open: HashMap::new() };
        let mut events = Vec::with_capacity(WAITING);
        while receiver.blocking_recv_many(&mut events, WAITING) > 0 {
            let large = |event: &Live| matches!(event, Live::Output { bytes, .. } if bytes.len() >= FLOOD);
            let flood = events.len() < WAITING / 4 && events.iter().any(large);
            for event in events.drain(..) {
                printer.event(event);
                if out::is_lost() {
                    return;
                }
            }
            if flood {
                std::thread::sleep(PAUSE);
            }
        }
    })?;
    Ok((sender, printing))
}

/// What of each stream is not printed yet: the beginning of a line, or of a character.
struct Printer {
    style: Style,
    stdout: Raw,
    stderr: Raw,
    /// Raw output stopped in the middle of a line.
    mid_line: bool,
    open: HashMap<(AgentName, Channel), Vec<u8>>,
}

impl Printer {
    fn event(&mut self, event: Live) {
        match event {
            Live::Output { channel, bytes, .. } if self.style == Style::Raw => {
                self.write(channel, &bytes);
                if channel == Channel::Stdout {
                    self.mid_line = !bytes.ends_with(b"\n");
                }
            }
            Live::Output { host, channel, bytes } => self.output(&host, channel, &bytes),
            Live::Ended(result) => self.ended(&result),
        }
    }

    fn output(&mut self, host: &AgentName, channel: Channel, bytes: &[u8]) {
        let json = self.style == Style::Json;
        let open = self.open.entry((host.clone(), channel)).or_default();
        open.extend_from_slice(bytes);
        let whole = if json { whole_characters(open) } else { lines(open) };
        let ready: Vec<u8> = open.drain(..whole).collect();
        self.print(host, channel, &ready);
    }

    fn ended(&mut self, result: &HostResult) {
        for channel in [Channel::Stdout, Channel::Stderr] {
            if let Some(rest) = self.open.remove(&(result.host.clone(), channel)) {
                self.print(&result.host, channel, &rest);
            }
        }
        if self.style == Style::Json {
            let mut fields = result.fields.clone();
            fields.shift_insert(0, "event".to_owned(), "result".into());
            self.json(&fields.into());
        } else {
            let next = if std::mem::take(&mut self.mid_line) { "\n" } else { "" };
            self.stdout.bytes(format!("{next}{}", results::block(result)).as_bytes());
        }
    }

    fn print(&self, host: &AgentName, channel: Channel, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.style == Style::Json {
            return self.json(&event(host, channel, bytes));
        }
        let mut text = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n').flat_map(pieces) {
            text.extend_from_slice(format!("{host}: ").as_bytes());
            text.extend_from_slice(piece);
            text.push(b'\n');
        }
        self.write(channel, &text);
    }

    fn write(&self, channel: Channel, bytes: &[u8]) {
        match channel {
            Channel::Stdout => self.stdout.bytes(bytes),
            Channel::Stderr => self.stderr.bytes(bytes),
        }
    }

    fn json(&self, value: &serde_json::Value) {
        self.stdout.bytes(format!("{value}\n").as_bytes());
    }
}

/// A piece of output as an event. Bytes that are no text stand beside the text.
fn event(host: &AgentName, channel: Channel, bytes: &[u8]) -> serde_json::Value {
    let text = String::from_utf8_lossy(bytes);
    let mut event = json!({ "event": "output", "host": host.as_str(), "stream": channel.as_str(), "text": text });
    if let (std::borrow::Cow::Owned(_), Some(fields)) = (&text, event.as_object_mut()) {
        fields.insert("base64".to_owned(), STANDARD.encode(bytes).into());
    }
    event
}

/// How much of the beginning is whole lines, and whole pieces of the last line where that is too long to wait for. Something
/// of a line is always left for its last piece: an end alone would look like an empty line.
fn lines(bytes: &[u8]) -> usize {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    whole + (bytes.len() - whole).saturating_sub(1) / LINE * LINE
}

/// A line's pieces, without its end; an empty line has one.
fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.is_empty().then_some(line).into_iter().chain(line.chunks(LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_held_until_they_are_whole_but_not_for_ever() {
        assert_eq!(lines(b"one\ntw"), 4);
        assert_eq!(lines(b"tw"), 0);
        let long = vec![b'x'; 2 * LINE + 1];
        assert_eq!(
            [LINE, LINE + 1, 2 * LINE, 2 * LINE + 1].map(|length| lines(&long[..length])),
            [0, 1, 1, 2].map(|n| n * LINE)
        );
        assert_eq!(lines(&[b"a\n", &long[..=LINE]].concat()), LINE + 2);
    }

    #[test]
    fn an_end_of_a_line_is_no_piece_of_it() {
        let lengths = |line: &[u8]| pieces(line).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!([lengths(b"\n"), lengths(b"a\n"), lengths(b"a")], [vec![0], vec![1], vec![1]]);
        assert_eq!(lengths(&[vec![b'x'; LINE], vec![b'\n']].concat()), [LINE]);
    }

    #[test]
    fn bytes_that_are_no_text_stand_beside_it() {
        let host = AgentName::parse("web").unwrap();
        let event = event(&host, Channel::Stderr, b"a\xff");
        assert_eq!(event["base64"], "Yf8=");
        assert_eq!(event["text"], "a\u{FFFD}");
    }
}
