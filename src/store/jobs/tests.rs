//! The store by itself: its files, its locks, its judgement of who lives.

mod sweeps;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::wire::outcome::{Noted, Outcome};
use crate::wire::run::Output;

const LIMITS: Limits = Limits { age: RETENTION, bytes: 1 << 20 };

fn store() -> (tempfile::TempDir, Jobs) {
    let dir = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(dir.path().join("runs"), 10);
    (dir, jobs)
}

fn key(id: &str) -> Key {
    Key { owner: DispatcherId::parse("control").unwrap(), id: RequestId::parse(id).unwrap() }
}

fn submit(jobs: &Jobs, id: &str, script: &str) -> Submission {
    jobs.submit(&key(id), &ScriptName::parse(script).unwrap(), SystemTime::now()).unwrap()
}

fn accepted(jobs: &Jobs, id: &str, script: &str) -> NewJob {
    let Submission::Accepted(job) = submit(jobs, id, script) else { panic!("not accepted") };
    job
}

/// Lets go of a job's locks, and waits until nobody has them. A process that another test is starting at this moment has
/// copies of them until it runs its program.
fn close(jobs: &Jobs, id: &str, job: NewJob) {
    let script = jobs.read(&key(id)).unwrap().map(|record| jobs.script_lock(&record.script));
    drop(job);
    let is_held = |path: &PathBuf| file::is_locked(path).unwrap() == Some(true);
    while jobs.is_alive(&key(id)).unwrap() || script.as_ref().is_some_and(is_held) {
        std::thread::yield_now();
    }
}

/// What the monitor does at the end of a job.
fn end(jobs: &Jobs, id: &str, job: NewJob, outcome: &Outcome) {
    let mut line = serde_json::to_vec(outcome).unwrap();
    line.push(b'\n');
    let status = File::from(std::os::fd::AsFd::as_fd(&job.status).try_clone_to_owned().unwrap());
    (&status).write_all(&line).unwrap();
    drop(status);
    close(jobs, id, job);
}

fn look(jobs: &Jobs, id: &str) -> JobRecord {
    let known = jobs.look(&key(id), SystemTime::now()).unwrap().unwrap();
    assert_eq!((&known.stdout, &known.stderr_base64), (&None, &None));
    let whole = jobs.whole(&key(id)).unwrap().unwrap();
    if known.status == whole.status {
        assert_eq!(whole.clone().without_output(), known);
    }
    whole
}

/// What there is of a job that runs.
const RUNNING: [Part; 5] = [Part::Record, Part::Stdout, Part::Stderr, Part::Status, Part::Cancel];

fn parts(jobs: &Jobs, id: &str) -> Vec<Part> {
    let there = |part: &Part| jobs.path(&key(id), *part).symlink_metadata().is_ok();
    Part::ALL.into_iter().filter(there).collect()
}

#[test]
fn a_job_runs_while_its_lock_is_held_and_then_has_the_outcome_on_file() {
    let (_dir, jobs) = store();
    let mut job = accepted(&jobs, "a", "x");
    assert_eq!(look(&jobs, "a").status, JobStatus::Running);
    assert_eq!(parts(&jobs, "a"), RUNNING);
    job.stdout.write_all(b"0123456789+").unwrap();
    job.stderr.write_all(b"\xff").unwrap();
    end(&jobs, "a", job, &Outcome::Exited { code: 7 });
    let done = look(&jobs, "a");
    assert_eq!((done.status, done.exit, done.reason.clone()), (JobStatus::Done, Some(7), None));
    assert_eq!((done.stdout.as_deref(), done.truncated), (Some("0123456789"), true));
    assert_eq!((done.stderr.as_deref(), done.stderr_base64.as_deref()), (Some("\u{FFFD}"), Some("/w==")));
    assert_eq!(parts(&jobs, "a"), [Part::Record, Part::Stdout, Part::Stderr]);
    assert_eq!(look(&jobs, "a"), done);
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(jobs.path(&key("a"), Part::Record)), 0o640);
    assert_eq!(mode(jobs.dir.join("control")), 0o750);
}

#[test]
fn a_line_that_is_not_whole_is_no_outcome() {
    let whole = serde_json::to_string(&Outcome::Cancelled).unwrap();
    let padded = format!("{whole}{}", "\0".repeat(100));
    for text in ["", "{", "\n", whole.as_str(), &padded, "\0\0\n", "{\"kind\":\"other\"}\n"] {
        let (_dir, jobs) = store();
        let job = accepted(&jobs, "a", "x");
        file::overwrite(&jobs.path(&key("a"), Part::Status), text.as_bytes()).unwrap();
        close(&jobs, "a", job);
        let lost = look(&jobs, "a");
        assert_eq!((lost.status, lost.exit, lost.stdout.as_deref()), (JobStatus::Lost, Some(-1), Some("")), "{text:?}");
    }
}

#[test]
fn a_lost_job_stands_on_file_in_words_of_the_original_and_is_read_as_it_is_meant() {
    for (printed, kept, said) in [
        (&b""[..], &b""[..], "ctrl-exec-agent: "),
        (b"half", b"half", "half\nctrl-exec-agent: "),
        (b"whole\n", b"whole\n", "whole\nctrl-exec-agent: "),
        (b"0123456789\n", b"0123456789", "0123456789\nctrl-exec-agent: "),
        (b"\xffx\n", b"\xffx\n", "\u{FFFD}x\nctrl-exec-agent: "),
    ] {
        let (_dir, jobs) = store();
        let mut job = accepted(&jobs, "a", "x");
        job.stderr.write_all(printed).unwrap();
        close(&jobs, "a", job);
        let lost = look(&jobs, "a");
        assert_eq!(lost.status, JobStatus::Lost);
        let stderr =
            Output { text: lost.stderr.clone().unwrap(), base64: lost.stderr_base64.clone(), truncated: false };
        assert_eq!(stderr.into_bytes(), kept);
        let text = file::read_bounded(&jobs.path(&key("a"), Part::Record), 4096).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        // All that the original's agent looks at, and all that its dispatcher keeps.
        assert_eq!(
            (&record["status"], &record["exit"], &record["owner"]),
            (&"done".into(), &(-1).into(), &"control".into())
        );
        assert!(record["stderr"].as_str().is_some_and(|stderr| stderr.starts_with(said)), "{record}");
        let told = serde_json::to_value(lost.in_words_of_the_original()).unwrap();
        assert_eq!(told, record, "in the answer as on file");
    }
}

#[test]
fn script_and_request_id_are_busy_while_the_job_lives() {
    let (_dir, jobs) = store();
    let job = accepted(&jobs, "a", "x");
    assert!(matches!(submit(&jobs, "b", "x"), Submission::Busy));
    assert!(matches!(submit(&jobs, "a", "y"), Submission::InUse));
    assert!(jobs.look(&key("b"), SystemTime::now()).unwrap().is_none());
    let other = accepted(&jobs, "c", "y");
    close(&jobs, "a", job);
    let again = accepted(&jobs, "a", "x");
    assert_eq!(look(&jobs, "a").status, JobStatus::Running);
    drop((again, other));
}

#[test]
fn a_job_that_was_taken_back_leaves_nothing() {
    let (_dir, jobs) = store();
    let job = accepted(&jobs, "a", "x");
    let stdout = job.stdout.try_clone().unwrap();
    close(&jobs, "a", job);
    jobs.discard(&key("a"), &stdout).unwrap();
    assert_eq!(parts(&jobs, "a"), []);
    assert!(jobs.look(&key("a"), SystemTime::now()).unwrap().is_none());
    jobs.discard(&key("a"), &stdout).unwrap();
}

#[test]
fn a_job_that_was_taken_back_takes_no_other_with_it_that_has_its_request_id() {
    let (_dir, jobs) = store();
    let first = accepted(&jobs, "a", "x");
    let stdout = first.stdout.try_clone().unwrap();
    // As the monitor that refuses it does, before the front-end hears of that.
    close(&jobs, "a", first);
    let second = accepted(&jobs, "a", "y");
    jobs.discard(&key("a"), &stdout).unwrap();
    assert_eq!(parts(&jobs, "a"), RUNNING);
    end(&jobs, "a", second, &Outcome::Exited { code: 4 });
    assert_eq!(look(&jobs, "a").exit, Some(4));
}

#[test]
fn a_lock_that_no_job_has_any_more_makes_no_script_busy() {
    let (_dir, jobs) = store();
    let NewJob { status, lock, .. } = accepted(&jobs, "a", "x");
    drop(status);
    let lost = || look(&jobs, "a").status == JobStatus::Lost;
    while !lost() {
        std::thread::yield_now();
    }
    let other = Key { owner: DispatcherId::parse("other").unwrap(), id: RequestId::parse("b").unwrap() };
    std::thread::scope(|scope| {
        let next = scope.spawn(|| jobs.submit(&other, &ScriptName::parse("x").unwrap(), SystemTime::now()).unwrap());
        // Until it has found the lock held.
        let has_come = || {
            jobs.dir.join("other").exists() && file::is_locked(&jobs.dir.join(".locks/.store")).unwrap() == Some(false)
        };
        while !has_come() {
            std::thread::yield_now();
        }
        drop(lock);
        assert!(matches!(next.join().unwrap(), Submission::Accepted(_)));
    });
}

#[test]
fn a_lock_that_somebody_else_keeps_makes_its_script_busy() {
    let (_dir, jobs) = store();
    let NewJob { status, lock: _lock, .. } = accepted(&jobs, "a", "x");
    drop(status);
    while jobs.is_alive(&key("a")).unwrap() {
        std::thread::yield_now();
    }
    assert!(matches!(submit(&jobs, "b", "x"), Submission::Busy));
    assert!(matches!(submit(&jobs, "b", "y"), Submission::Accepted(_)));
}

#[test]
fn whoever_looks_at_jobs_disturbs_no_submission() {
    let (_dir, jobs) = store();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = jobs.is_alive(&key("a")).unwrap();
                }
            });
        }
        for _ in 0..300 {
            close(&jobs, "a", accepted(&jobs, "a", "x"));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_cancelled_job_hears_of_it_and_an_ended_one_has_nobody_to_hear() {
    let (_dir, jobs) = store();
    assert!(!jobs.cancel(&key("a")).unwrap());
    let job = accepted(&jobs, "a", "x");
    assert!(jobs.cancel(&key("a")).unwrap());
    let ready = crate::sys::poll::readable([Some(std::os::fd::AsFd::as_fd(&job.cancel))], None).unwrap();
    assert!(ready[0].readable);
    close(&jobs, "a", job);
    assert!(!jobs.cancel(&key("a")).unwrap());
}

#[test]
fn many_who_look_at_once_see_one_end() {
    let (_dir, jobs) = store();
    for round in 0..20 {
        let id = format!("r{round}");
        let job = accepted(&jobs, &id, "x");
        std::thread::scope(|scope| {
            let lookers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        loop {
                            let record = look(&jobs, &id);
                            if record.status != JobStatus::Running {
                                return record;
                            }
                        }
                    })
                })
                .collect();
            end(&jobs, &id, job, &Outcome::Exited { code: 0 });
            for looker in lookers {
                assert_eq!(looker.join().unwrap().status, JobStatus::Done);
            }
        });
    }
}

#[test]
fn a_census_counts_who_runs_and_who_has_ended_and_each_end_is_told_once() {
    let (_dir, jobs) = store();
    assert_eq!(jobs.census(SystemTime::now()).unwrap(), Census::default());
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ends = Arc::clone(&told);
    let jobs = jobs.witnessed(Witness::new(
        move |record, noted| {
            ends.lock().unwrap().push((record.script.clone(), noted.map(|noted| noted.outcome.clone())));
        },
        |record, error| panic!("{record:?}: {error:?}"),
    ));
    let (first, second, _third) = (accepted(&jobs, "a", "x"), accepted(&jobs, "b", "y"), accepted(&jobs, "c", "z"));
    assert_eq!(jobs.census(SystemTime::now()).unwrap(), Census { running: 3, done: 0, lost: 0 });
    end(&jobs, "a", first, &Outcome::Exited { code: 7 });
    close(&jobs, "b", second);
    for _ in 0..2 {
        assert_eq!(jobs.census(SystemTime::now()).unwrap(), Census { running: 1, done: 1, lost: 1 });
        look(&jobs, "a");
    }
    let expected = [("x".to_owned(), Some(Outcome::Exited { code: 7 })), ("y".to_owned(), None)];
    assert_eq!(*told.lock().unwrap(), expected);
    // The next job of that id is another one.
    let again = accepted(&jobs, "b", "y");
    assert_eq!(jobs.census(SystemTime::now()).unwrap(), Census { running: 2, done: 1, lost: 0 });
    end(&jobs, "b", again, &Outcome::Exited { code: 0 });
    assert_eq!(jobs.census(SystemTime::now()).unwrap(), Census { running: 1, done: 2, lost: 0 });
}

#[test]
fn a_job_that_is_replaced_before_anybody_asked_has_its_end_told() {
    let (_dir, jobs) = store();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ends = Arc::clone(&told);
    let ended = move |record: &JobRecord, noted: Option<&Noted>| {
        ends.lock().unwrap().push((record.script.clone(), noted.map(|noted| noted.outcome.clone())));
    };
    let jobs = jobs.witnessed(Witness::new(ended, |_, error| panic!("{error}")));
    let outcome = Outcome::Exited { code: 7 };
    end(&jobs, "a", accepted(&jobs, "a", "x"), &outcome);
    close(&jobs, "a", accepted(&jobs, "a", "y"));
    let last = accepted(&jobs, "a", "z");
    assert_eq!(*told.lock().unwrap(), [("x".to_owned(), Some(outcome)), ("y".to_owned(), None)]);
    assert_eq!(parts(&jobs, "a"), RUNNING);
    close(&jobs, "a", last);
    // Nor does one that cannot be read stand in the way.
    file::write_atomic(&jobs.path(&key("a"), Part::Record), b"{", Access::mode(MODE)).unwrap();
    drop(accepted(&jobs, "a", "x"));
    assert_eq!(told.lock().unwrap().len(), 2);
}
