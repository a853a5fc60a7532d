//! The journal's native protocol: one datagram of fields (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! The line is `MESSAGE`, so that it reads as it does in any other log; besides, every field of the event is a field
//! of the journal, so that `journalctl ACTION=run REQID=...` finds it.

use super::event::Rendered;
use super::syslog::FACILITY;

/// The longest field name (systemd's `journal_field_valid`).
const MAX_NAME: usize = 64;
/// The fields that are written for every event; an event's own field of such a name is renamed.
const OURS: [&str; 5] = ["MESSAGE", "PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER", "SYSLOG_PID"];

/// The datagram for one event.
pub(super) fn datagram(ident: &str, pid: u32, rendered: &Rendered<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(rendered.line.len() * 2 + 256);
    push(&mut out, "MESSAGE", &rendered.line);
    push(&mut out, "PRIORITY", &rendered.level.severity().to_string());
    push(&mut out, "SYSLOG_FACILITY", &FACILITY.to_string());
    push(&mut out, "SYSLOG_IDENTIFIER", ident);
    push(&mut out, "SYSLOG_PID", &pid.to_string());
    for (key, value) in &rendered.fields {
        push(&mut out, &name(key), value);
    }
    out
}

/// `NAME=value`, or where the value has a line break: `NAME`, its length in 64 bits little-endian, the value.
fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// A key as the journal takes it: capitals, digits and `_`, a letter first, and none of [`OURS`].
fn name(key: &str) -> String {
    let safe: String = key
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .skip_while(|c| !c.is_ascii_uppercase())
        .take(MAX_NAME)
        .collect();
    if safe.is_empty() || OURS.contains(&safe.as_str()) { format!("FIELD_{safe}") } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Event, Level};

    #[test]
    fn a_datagram_has_the_line_and_every_field_of_it() {
        let event = Event::new(Level::Warning, "deny").field("SCRIPT", "a b").field("REASON", "x\ny");
        let bytes = datagram("ctrl-exec-agent", 42, &event.render());
        let head = "MESSAGE=ACTION=deny REASON=\"x\\ny\" SCRIPT=\"a b\"\nPRIORITY=4\nSYSLOG_FACILITY=3\n\
                    SYSLOG_IDENTIFIER=ctrl-exec-agent\nSYSLOG_PID=42\nACTION=deny\nREASON\n";
        let expected = [head.as_bytes(), &[3, 0, 0, 0, 0, 0, 0, 0], b"x\ny\nSCRIPT=a b\n"].concat();
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn names_are_what_the_journal_takes() {
        assert_eq!(name("REQID"), "REQID");
        assert_eq!(name("_days-left.2"), "DAYS_LEFT_2");
        assert_eq!(name("9"), "FIELD_");
        assert_eq!(name("message"), "FIELD_MESSAGE");
        assert_eq!(name(&"x".repeat(100)).len(), 64);
    }
}
