//! The datagram that local syslog daemons take: `<PRI>Mmm dd hh:mm:ss ident[pid]: message` (RFC 3164 section 4.1
//! without the host name, which local senders leave out).

use std::time::{SystemTime, UNIX_EPOCH};

use super::event::Rendered;
use crate::sys::localtime::{self, LocalTime};

/// `daemon`, RFC 5424 section 6.2.1.
pub(super) const FACILITY: u8 = 3;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The datagram for one event that happened at `time`.
pub(super) fn datagram(ident: &str, pid: u32, time: LocalTime, rendered: &Rendered<'_>) -> Vec<u8> {
    let priority = FACILITY * 8 + rendered.level.severity();
    let month = MONTHS.get(usize::from(time.month).saturating_sub(1)).copied().unwrap_or("Jan");
    let LocalTime { day, hour, minute, second, .. } = time;
    let line = &rendered.line;
    format!("<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} {ident}[{pid}]: {line}").into_bytes()
}

/// The time of day where the system is.
pub(super) fn now() -> LocalTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    localtime::at(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Event, Level};

    #[test]
    fn a_datagram_has_priority_time_ident_pid_and_line() {
        let time = LocalTime { month: 11, day: 2, hour: 7, minute: 5, second: 9 };
        let text = |level| {
            let bytes = datagram("ctrl-exec-agent", 42, time, &Event::new(level, "start").field("PORT", 7443).render());
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text(Level::Info), "<30>Nov  2 07:05:09 ctrl-exec-agent[42]: ACTION=start PORT=7443");
        assert!(text(Level::Warning).starts_with("<28>") && text(Level::Error).starts_with("<27>"));
    }
}
