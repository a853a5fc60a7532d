//! The logger against real sockets.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::*;

/// What went to the last resort, and whether it takes nothing.
#[derive(Clone, Default)]
struct Aside(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>);

impl Aside {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.1.load(Relaxed) {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct System {
    dir: tempfile::TempDir,
    rest: Aside,
}

impl System {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for parent in ["run/systemd/journal", "dev"] {
            std::fs::create_dir_all(dir.path().join(parent)).unwrap();
        }
        Self { dir, rest: Aside::default() }
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
        self.made(false)
    }

    fn serving(&self) -> Logger {
        self.made(true)
    }

    fn made(&self, serves: bool) -> Logger {
        Logger::new(Ident::Agent, Some(self.sockets()), Rest::Writer(Box::new(self.rest.clone())), serves)
    }
}

fn listen(path: &std::path::Path) -> UnixDatagram {
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
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

/// The number in each line that a log gets, up to that of the last line.
fn numbers_until(socket: &UnixDatagram, last: usize) -> (Vec<usize>, usize) {
    let (mut seen, mut gone) = (Vec::new(), 0);
    while seen.last() != Some(&last) {
        let text = received(socket);
        if let Some((_, behind)) = text.split_once("ACTION=log-lost COUNT=") {
            gone += behind.split(' ').next().unwrap().parse::<usize>().unwrap();
        } else {
            seen.push(text.rsplit_once("N=").unwrap().1.parse().unwrap());
        }
    }
    (seen, gone)
}

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than any queue of the kernel holds (`net.unix.max_dgram_qlen`), and less than a logger keeps.
const MANY: usize = 1500;
/// More than a logger keeps.
const TOO_MANY: usize = 30_000;

#[test]
fn a_log_that_nobody_reads_keeps_nobody_waiting_and_gets_every_line_in_its_order_later() {
    for serves in [false, true] {
        let system = System::new();
        let syslog = system.syslog();
        let logger = system.made(serves);
        let start = Instant::now();
        (0..MANY).for_each(|n| logger.emit(event(n)));
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        assert!(logger.waiting() > 0);
        let writing = logger.clone();
        let rest = std::thread::spawn(move || serves || writing.flush(PATIENCE) == 0);
        assert_eq!(numbers_until(&syslog, MANY - 1), ((0..MANY).collect(), 0));
        assert!(rest.join().unwrap());
        assert_eq!((system.rest.text(), logger.lost()), (String::new(), 0));
    }
}

#[test]
fn lines_that_there_is_no_room_for_go_to_standard_error_and_not_out_of_memory() {
    let system = System::new();
    let syslog = system.syslog();
    let logger = system.serving();
    (0..TOO_MANY).for_each(|n| logger.emit(event(n)));
    let passed_over = system.rest.text().lines().count();
    assert!(passed_over > TOO_MANY / 10, "{passed_over}");
    let (numbers, lost) = numbers_until(&syslog, TOO_MANY - passed_over - 1);
    assert_eq!((numbers, lost, logger.lost()), ((0..TOO_MANY - passed_over).collect(), 0, 0));
}

#[test]
fn no_line_is_lost_without_being_counted_where_it_would_have_stood() {
    let system = System::new();
    let syslog = system.syslog();
    system.rest.1.store(true, Relaxed);
    let logger = system.serving();
    (0..TOO_MANY).for_each(|n| logger.emit(event(n)));
    let lost = usize::try_from(logger.lost()).unwrap();
    assert!(lost > TOO_MANY / 10, "{lost}");
    // One that has not been told of, and a line behind it.
    while logger.waiting() > MANY {
        drop(received(&syslog));
    }
    logger.emit(event(TOO_MANY));
    let text = std::iter::repeat_with(|| received(&syslog)).find(|text| !text.contains("ACTION=t ")).unwrap();
    assert!(text.starts_with("<27>") && text.contains(&format!("ACTION=log-lost COUNT={lost} REASON=")), "{text}");
    assert_eq!(numbers_until(&syslog, TOO_MANY), (vec![TOO_MANY], 0));
}

#[test]
fn the_end_of_a_logger_waits_for_a_log_but_not_for_long() {
    let system = System::new();
    let syslog = system.syslog();
    let logger = system.serving();
    (0..MANY).for_each(|n| logger.emit(event(n)));
    let start = Instant::now();
    drop(logger);
    assert!(start.elapsed() >= FAREWELL && start.elapsed() < FAREWELL + PATIENCE / 2, "{:?}", start.elapsed());
    drop(syslog);
    let system = System::new();
    let syslog = system.syslog();
    let logger = system.logger();
    (0..MANY).for_each(|n| logger.emit(event(n)));
    let reader = std::thread::spawn(move || numbers_until(&syslog, MANY - 1));
    drop(logger);
    assert_eq!(reader.join().unwrap(), ((0..MANY).collect(), 0));
}

#[test]
fn a_fork_does_not_write_its_parent_s_lines_once_more() {
    use crate::sys::process::{self, Fork, tests::in_a_process};
    let said = in_a_process("lines of a parent", || {
        let system = System::new();
        let _syslog = system.syslog();
        let logger = system.logger();
        (0..MANY).for_each(|n| logger.emit(event(n)));
        let in_parent = logger.waiting() > 0;
        if let Fork::Parent(_) = process::fork().unwrap() {
            loop {
                if let process::Reaped::Child(_, end) = process::reap().unwrap() {
                    return format!("{in_parent} {end:?}");
                }
            }
        }
        process::end(i32::from(logger.waiting() > 0))
    });
    assert_eq!(said, format!("true {:?}", process::End::Exited(0)));
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
    let rest = Aside::default();
    Logger::to_writer(Ident::Executor, Box::new(rest.clone())).emit(event(1));
    assert_eq!(rest.text(), "ctrl-exec-exec: ACTION=t N=1\n");
}
