//! The logger against real sockets.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::*;

/// What went to the last resort.
#[derive(Clone, Default)]
struct Rest(Arc<Mutex<Vec<u8>>>);

impl Rest {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Rest {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct System {
    dir: tempfile::TempDir,
    rest: Rest,
}

impl System {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for parent in ["run/systemd/journal", "dev"] {
            std::fs::create_dir_all(dir.path().join(parent)).unwrap();
        }
        Self { dir, rest: Rest::default() }
    }

    fn sockets(&self) -> Sockets {
        Sockets::new(|path| self.dir.path().join(path.trim_start_matches('/')))
    }

    fn journal(&self) -> UnixDatagram {
        listen(&self.sockets().journal)
    }

    fn syslog(&self) -> UnixDatagram {
        listen(&self.sockets().syslog)
    }

    fn logger(&self) -> Logger {
        Logger::with_last_resort(Ident::Agent, Some(self.sockets()), Box::new(self.rest.clone()))
    }
}

fn listen(path: &std::path::Path) -> UnixDatagram {
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn received(socket: &UnixDatagram) -> String {
    let mut buffer = vec![0; 1 << 20];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn event(n: usize) -> Event {
    Event::new(Level::Info, "t").field("N", n)
}

#[test]
fn the_journal_is_preferred_and_gets_every_field() {
    let system = System::new();
    let (journal, _syslog) = (system.journal(), system.syslog());
    system.logger().emit(Event::new(Level::Error, "run").field("ERROR", "no route").field("RTT", 7));
    let pid = std::process::id();
    assert_eq!(
        received(&journal),
        format!(
            "MESSAGE=ACTION=run ERROR=\"no route\" RTT=7\nPRIORITY=3\nSYSLOG_FACILITY=3\n\
             SYSLOG_IDENTIFIER=ctrl-exec-agent\nSYSLOG_PID={pid}\nACTION=run\nERROR=no route\nRTT=7\n"
        )
    );
    assert_eq!(system.rest.text(), "");
}

#[test]
fn without_a_journal_syslog_gets_the_line() {
    let system = System::new();
    let syslog = system.syslog();
    system.logger().emit(event(1));
    let text = received(&syslog);
    assert!(text.starts_with("<30>"), "{text}");
    assert!(text.ends_with(&format!(" ctrl-exec-agent[{}]: ACTION=t N=1", std::process::id())), "{text}");
    assert_eq!(system.rest.text(), "");
}

#[test]
fn without_any_socket_the_line_goes_to_standard_error() {
    let system = System::new();
    let logger = system.logger();
    logger.emit(event(1));
    logger.clone().emit(event(2).field("V", "a\nb"));
    assert_eq!(system.rest.text(), "ctrl-exec-agent: ACTION=t N=1\nctrl-exec-agent: ACTION=t N=2 V=\"a\\nb\"\n");
}

#[test]
fn a_restarted_log_gets_the_next_line_and_none_is_lost() {
    let system = System::new();
    let syslog = system.syslog();
    let logger = system.logger();
    logger.emit(event(1));
    assert!(received(&syslog).ends_with("N=1"));
    drop(syslog);
    logger.emit(event(2));
    assert_eq!(system.rest.text(), "ctrl-exec-agent: ACTION=t N=2\n");
    let syslog = system.syslog();
    logger.emit(event(3));
    assert!(received(&syslog).ends_with("N=3"));
    drop(syslog);
    let syslog = system.syslog();
    logger.emit(event(4));
    assert!(received(&syslog).ends_with("N=4"));
    assert_eq!(system.rest.text().lines().count(), 1);
}

#[test]
fn a_log_that_does_not_keep_up_delays_little_and_loses_nothing() {
    // More than any queue of the kernel holds (net.unix.max_dgram_qlen).
    const EVENTS: usize = 1500;
    let system = System::new();
    let syslog = system.syslog();
    let logger = system.logger();
    let start = Instant::now();
    (0..EVENTS).for_each(|n| logger.emit(event(n)));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let passed_over = system.rest.text().lines().count();
    assert!(passed_over > 0);
    for n in 0..EVENTS - passed_over {
        assert!(received(&syslog).ends_with(&format!("N={n}")));
    }
    logger.emit(event(EVENTS));
    assert!(received(&syslog).ends_with(&format!("N={EVENTS}")));
}

#[test]
fn the_largest_event_fits_one_datagram_of_either_log() {
    const KEYS: [&str; 10] = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"];
    let big = || KEYS.iter().fold(event(1), |event, key| event.field(key, "x\n".repeat(1 << 19)));
    let system = System::new();
    let syslog = system.syslog();
    system.logger().emit(big());
    assert!(received(&syslog).contains("-bytes-cut]"));
    let journal = system.journal();
    system.logger().emit(big());
    assert!(received(&journal).contains("-bytes-cut]"));
    assert_eq!(system.rest.text(), "");
}

#[test]
fn many_threads_write_whole_lines() {
    let system = System::new();
    let logger = system.logger();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|n| logger.emit(event(n))));
        }
    });
    let text = system.rest.text();
    assert_eq!(text.lines().filter(|line| line.starts_with("ctrl-exec-agent: ACTION=t N=")).count(), 200);
}

#[test]
fn the_idents_are_the_documented_ones() {
    let names = [Ident::Dispatcher, Ident::Api, Ident::Agent, Ident::Executor].map(Ident::as_str);
    assert_eq!(names, ["ctrl-exec-dispatcher", "ctrl-exec-api", "ctrl-exec-agent", "ctrl-exec-exec"]);
}

#[test]
fn a_writer_can_be_the_log() {
    let rest = Rest::default();
    Logger::to_writer(Ident::Executor, Box::new(rest.clone())).emit(event(1));
    assert_eq!(rest.text(), "ctrl-exec-exec: ACTION=t N=1\n");
}
