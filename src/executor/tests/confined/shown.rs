//! What a script may write to shows at other places, and what it must not change shows there: by mounts, by hard links, and by
//! being made where it is not yet.

use super::fenced::mounting;
use super::*;

/// Why an executor does not start with this.
fn fault(starter: &str, profile: &str) -> Option<String> {
    let starter = mounting(starter);
    let executor = Executor::spawn_root(&starter.each_ref().map(String::as_str), profile);
    match executor.answer() {
        Reloaded::Failed { text } => Some(text),
        Reloaded::Done => None,
    }
}

#[test]
fn what_is_not_there_yet_would_show_where_its_directory_shows_and_not_where_something_beside_it_does() {
    let part = "rmdir $D/conf-runs; mount --bind $D/other /srv; mkdir /srv/x";
    for writable in ["/srv", "/srv/x"] {
        assert_eq!(fault(part, &format!("run_as = root\nwritable = {writable}")), None, "{writable}");
    }
    let whole = "rmdir $D/conf-runs; mount --bind $D /srv";
    for writable in ["/srv/conf-runs", "/srv/conf-runs/x"] {
        let text = fault(whole, &format!("run_as = root\nwritable = {writable}")).unwrap_or_default();
        assert!(text.contains("where async_runs_dir is"), "{writable}: {text}");
    }
    assert_eq!(fault(whole, "run_as = root\nwritable = /srv/other"), None);
}

/// A layer of an overlay is written to through the overlay, and the other way round.
#[test]
fn an_overlay_shows_what_it_is_made_of() {
    let overlay = "mkdir $D/l; mount -t tmpfs x $D/l; mkdir -p $D/l/low $D/l/up/in $D/l/work $D/l/beside
        mount -t overlay x -o lowerdir=$D/l/low,upperdir=$D/l/up,workdir=$D/l/work /srv
        rmdir $D/conf-runs; ln -s /srv/in $D/conf-runs";
    for writable in ["{}/l/up", "{}/l/up/in", "{}/l", "{}/l/up/in/new"] {
        let text = fault(overlay, &format!("run_as = root\nwritable = {writable}")).unwrap_or_default();
        assert!(text.contains("where async_runs_dir is"), "{writable}: {text}");
    }
    assert_eq!(fault(overlay, "run_as = root\nwritable = {}/l/beside"), None);
}
