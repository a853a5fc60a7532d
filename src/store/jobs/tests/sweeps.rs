//! What a sweep of the store takes away, and what it leaves.

use super::*;

#[test]
fn a_sweep_settles_what_has_ended_and_removes_what_belongs_to_nothing() {
    let (_dir, jobs) = store();
    let running = accepted(&jobs, "run", "x");
    let done = accepted(&jobs, "done", "y");
    end(&jobs, "done", done, &Outcome::Exited { code: 0 });
    close(&jobs, "lost", accepted(&jobs, "lost", "z"));
    let orphan = accepted(&jobs, "orphan", "w");
    close(&jobs, "orphan", orphan);
    file::remove(&jobs.path(&key("orphan"), Part::Record)).unwrap();
    jobs.sweep(LIMITS, SystemTime::now()).unwrap();
    assert_eq!(parts(&jobs, "run"), RUNNING);
    assert_eq!(parts(&jobs, "done"), [Part::Record, Part::Stdout, Part::Stderr]);
    assert_eq!(parts(&jobs, "orphan"), []);
    let read = |id: &str| jobs.read(&key(id)).unwrap().unwrap().status;
    assert_eq!((read("run"), read("done"), read("lost")), (JobStatus::Running, JobStatus::Done, JobStatus::Lost));
    drop(running);
}

#[test]
fn a_sweep_removes_what_somebody_was_killed_over_who_had_made_the_record() {
    let (_dir, jobs) = store();
    for left in [vec![Part::Status, Part::Cancel], vec![Part::Status], vec![Part::Cancel]] {
        end(&jobs, "a", accepted(&jobs, "a", "x"), &Outcome::Exited { code: 0 });
        let record = look(&jobs, "a");
        for part in &left {
            file::write_atomic(&jobs.path(&key("a"), *part), b"", Access::mode(MODE)).unwrap();
        }
        jobs.sweep(LIMITS, SystemTime::now()).unwrap();
        assert_eq!(parts(&jobs, "a"), [Part::Record, Part::Stdout, Part::Stderr], "{left:?}");
        assert_eq!(look(&jobs, "a"), record);
    }
}

#[test]
fn a_submission_under_way_is_no_orphan() {
    let (_dir, jobs) = store();
    let job = accepted(&jobs, "a", "x");
    file::remove(&jobs.path(&key("a"), Part::Record)).unwrap();
    jobs.sweep(LIMITS, SystemTime::now()).unwrap();
    assert_eq!(parts(&jobs, "a"), RUNNING[1..]);
    drop(job);
}

#[test]
fn a_job_that_is_submitted_anew_is_not_forgotten_in_the_old_ones_place() {
    let (_dir, jobs) = store();
    let job = accepted(&jobs, "a", "x");
    jobs.forget(&key("a"), SystemTime::now()).unwrap();
    assert_eq!(parts(&jobs, "a").len(), 5);
    // As far as a submission is when it lets go of the store's lock.
    jobs.remove_part(&key("a"), Part::Record).unwrap();
    jobs.forget(&key("a"), SystemTime::now()).unwrap();
    assert_eq!(parts(&jobs, "a"), RUNNING[1..]);
    close(&jobs, "a", job);
    jobs.forget(&key("a"), SystemTime::now()).unwrap();
    assert_eq!(parts(&jobs, "a"), []);
}

#[test]
fn what_is_too_old_is_forgotten_unless_it_runs() {
    let (_dir, jobs) = store();
    let running = accepted(&jobs, "run", "x");
    close(&jobs, "lost", accepted(&jobs, "lost", "y"));
    look(&jobs, "lost");
    let later = SystemTime::now() + RETENTION + Duration::from_mins(1);
    jobs.sweep(LIMITS, SystemTime::now()).unwrap();
    assert!(!parts(&jobs, "lost").is_empty());
    jobs.sweep(LIMITS, later).unwrap();
    assert_eq!((parts(&jobs, "lost"), parts(&jobs, "run").len()), (vec![], 5));
    // A clock that was set back forgets nothing.
    jobs.sweep(LIMITS, UNIX_EPOCH).unwrap();
    assert_eq!(look(&jobs, "run").status, JobStatus::Running);
    drop(running);
}

#[test]
fn the_oldest_go_until_the_rest_fits_and_the_newest_keeps_its_record() {
    let (_dir, jobs) = store();
    let now = SystemTime::now();
    for (place, id) in ["a", "b", "c"].into_iter().enumerate() {
        let mut job = accepted(&jobs, id, "x");
        job.stdout.write_all(&[b'x'; 4000]).unwrap();
        end(&jobs, id, job, &Outcome::Exited { code: 0 });
        look(&jobs, id);
        let output = File::options().write(true).open(jobs.path(&key(id), Part::Stdout)).unwrap();
        output.set_modified(now - Duration::from_hours(10 - place as u64)).unwrap();
    }
    let limits = |bytes| Limits { age: RETENTION, bytes };
    jobs.sweep(limits(25_000), now).unwrap();
    assert_eq!(parts(&jobs, "a").len(), 3);
    jobs.sweep(limits(17_000), now).unwrap();
    assert_eq!((parts(&jobs, "a").len(), parts(&jobs, "b").len(), parts(&jobs, "c").len()), (0, 3, 3));
    jobs.sweep(limits(100), now).unwrap();
    assert_eq!((parts(&jobs, "b").len(), parts(&jobs, "c")), (0, vec![Part::Record]));
    assert_eq!(look(&jobs, "c").stdout.as_deref(), Some("xxxxxxxxxx"));
}

#[test]
fn what_ended_later_goes_later_in_whichever_order_the_ends_are_found() {
    let (_dir, jobs) = store();
    let now = SystemTime::now();
    let [first, second] = ["a", "b"].map(|id| accepted(&jobs, id, id));
    for (id, mut job, hours) in [("b", second, 1), ("a", first, 2)] {
        job.stdout.write_all(&[b'x'; 4000]).unwrap();
        let status = jobs.path(&key(id), Part::Status);
        file::overwrite(&status, b"{\"kind\":\"exited\",\"code\":0}\n").unwrap();
        let ended = now - Duration::from_hours(hours);
        File::options().write(true).open(status).unwrap().set_modified(ended).unwrap();
        close(&jobs, id, job);
        look(&jobs, id);
    }
    jobs.sweep(Limits { age: RETENTION, bytes: 10_000 }, now).unwrap();
    assert_eq!((parts(&jobs, "a").len(), parts(&jobs, "b").len()), (0, 3));
}

#[test]
fn a_record_that_cannot_be_read_is_forgotten_like_any_other() {
    let (_dir, jobs) = store();
    close(&jobs, "a", accepted(&jobs, "a", "x"));
    file::write_atomic(&jobs.path(&key("a"), Part::Record), b"{", Access::mode(MODE)).unwrap();
    assert!(matches!(jobs.look(&key("a"), SystemTime::now()), Err(StoreError::Malformed { .. })));
    jobs.sweep(LIMITS, SystemTime::now()).unwrap();
    assert!(parts(&jobs, "a").contains(&Part::Record));
    jobs.sweep(LIMITS, SystemTime::now() + RETENTION * 2).unwrap();
    assert_eq!(parts(&jobs, "a"), []);
}
