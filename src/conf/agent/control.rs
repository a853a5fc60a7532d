//! Where the agent's own files are, and whether a profile lets a script write there.

use std::path::{Component, Path, PathBuf};

use super::Settings;
use crate::conf::diagnostic::{Diagnostic, shown};

/// What a path means now, or would mean if it were made: the file's own path first, then the others at which it shows.
type Resolve<'a> = &'a dyn Fn(&Path) -> Vec<PathBuf>;

/// A directory of the agent's own, in every spelling that is known, and which setting makes it so.
struct Control {
    setting: &'static str,
    spellings: Vec<PathBuf>,
}

/// The errors about `writable` paths of all profiles.
pub(super) fn errors<'a>(
    settings: &'a Settings,
    scripts: &Path,
    resolve: Resolve<'a>,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let controls = controls(settings, scripts, resolve);
    settings.profiles.values().flat_map(move |profile| {
        let judged = profile.writable_places().filter_map(|(path, place)| {
            let control = controls.iter().find(|control| control.meets(&spellings(path, resolve)))?;
            let message = format!(
                "Profile '{}': writable path '{}' reaches into '{}', where {} is",
                profile.name,
                shown(&path.to_string_lossy()),
                control.spellings.first().map(|path| path.display().to_string()).unwrap_or_default(),
                control.setting
            );
            let help = "a script that can write there can make itself trusted; name a directory of the script's own";
            Some(place.instead(message).help(help))
        });
        judged.collect::<Vec<_>>()
    })
}

fn controls(settings: &Settings, scripts: &Path, resolve: Resolve<'_>) -> Vec<Control> {
    let files = [
        ("agent.conf", settings.file.as_path()),
        ("scripts.conf", scripts),
        ("the private key", &settings.key),
        ("the certificate", &settings.cert),
        ("the CA's certificate", &settings.ca),
        ("trusted_dispatchers_path", &settings.trusted_dispatchers_path),
        ("revoked_serials", &settings.revoked_serials),
        ("cert_staging_path", &settings.cert_staging_path),
    ];
    let socket = settings.executor_socket.iter().map(|socket| ("executor_socket", socket.as_path()));
    // Whoever writes the hook decides what the agent allows, and runs as the agent.
    let hook = settings.auth_hook.iter().map(|hook| ("auth_hook", hook.as_path()));
    let control = |(setting, file): (_, &Path)| {
        // The file may itself be a link out of its directory.
        let spellings = [spellings(directory_of(file), resolve), spellings(file, resolve)].concat();
        Control { setting, spellings }
    };
    let controls = files.into_iter().chain(socket).chain(hook).map(control);
    let runs = Control { setting: "async_runs_dir", spellings: spellings(&settings.async_runs_dir, resolve) };
    controls.chain([runs]).collect()
}

/// A file may itself be a link, but it is its name here that a script could replace.
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

impl Control {
    /// Whether one of `paths` is, holds or lies in this directory.
    fn meets(&self, paths: &[PathBuf]) -> bool {
        paths.iter().any(|path| self.spellings.iter().any(|own| path.starts_with(own) || own.starts_with(path)))
    }
}

/// A path as its words say, as the file system resolves it, and as mounts show it elsewhere.
fn spellings(path: &Path, resolve: Resolve<'_>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    all.extend(path.is_absolute().then(|| lexical(path)));
    let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for found in resolve(here).iter().map(|found| lexical(found)) {
        if !all.contains(&found) {
            all.push(found);
        }
    }
    all
}

/// Without `.` and `..`, and without asking the file system.
fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, component| {
        match component {
            Component::ParentDir => drop(done.pop()),
            Component::CurDir => {}
            other => done.push(other),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Root, Source};

    const TEXT: &str = "port = 1\ncert = /pki/a.crt\nkey = /keys/a.key\nca = /pki/ca.crt\nexecutor_socket = /run/c/x.sock\n\
                        auth_hook = /opt/hooks/judge\nasync_runs_dir = /var/lib/c/runs\n[profile p]\nwritable = ";

    /// The errors about the writable paths, where the file system has these links.
    fn judge(writable: &str, links: &[(&str, &str)]) -> String {
        let source = Source::new("/etc/c/agent.conf", format!("{TEXT}{writable}\n"));
        let (settings, _) = Settings::parse(&source, &Root::default()).unwrap();
        let resolve = |path: &Path| {
            let found = links.iter().filter_map(|(from, to)| Some((path.strip_prefix(from).ok()?, to)));
            found.map(|(rest, to)| Path::new(to).join(rest)).collect()
        };
        let outcome = settings.writable_errors(Path::new("/etc/s/scripts.conf"), resolve);
        outcome.map_or_else(|errors| errors.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn what_is_holds_or_lies_in_a_control_directory_is_refused_at_its_place() {
        for (writable, setting) in [
            ("/etc/c", "agent.conf"),
            ("/etc/s/", "scripts.conf"),
            ("/keys/sub/dir", "the private key"),
            ("/pki", "the certificate"),
            ("/run", "executor_socket"),
            ("/run/c/x.sock", "executor_socket"),
            ("/opt/hooks", "auth_hook"),
            ("/opt/hooks/judge", "auth_hook"),
            ("/var/lib/c/runs/x", "async_runs_dir"),
            ("/var/lib/ctrl-exec-agent/x", "trusted_dispatchers_path"),
            ("/var/lib", "trusted_dispatchers_path"),
            ("/srv/../etc/c", "agent.conf"),
            ("/srv/./../etc//c/.", "agent.conf"),
            ("/", "agent.conf"),
        ] {
            let errors = judge(writable, &[]);
            assert!(errors.starts_with("/etc/c/agent.conf:9:12: Profile 'p': writable path"), "{writable}: {errors}");
            assert!(errors.contains(&format!(", where {setting} is")), "{writable}: {errors}");
        }
        for free in ["/srv", "/var/lib/c", "/keys2", "/run/other", "/etc/nginx/ssl:/tmp"] {
            let expected = if free == "/var/lib/c" { "async_runs_dir" } else { "ok" };
            assert!(judge(free, &[]).contains(expected), "{free}");
        }
    }

    #[test]
    fn every_wrong_path_is_told_where_it_stands() {
        let errors = judge("/srv:/keys:/run", &[]);
        assert!(errors.contains(":9:17: ") && errors.contains(":9:23: ") && !errors.contains(":9:12: "), "{errors}");
    }

    #[test]
    fn links_on_either_side_are_followed() {
        assert!(judge("/srv/link", &[("/srv/link", "/etc/c")]).contains("agent.conf is"));
        assert!(judge("/srv/link/new/dir", &[("/srv/link", "/keys")]).contains("the private key is"));
        assert!(judge("/mnt/disk", &[("/etc/c", "/mnt/disk/etc-c")]).contains("agent.conf is"));
        assert!(judge("/a/b", &[("/a/b", "/x"), ("/run/c", "/x/y")]).contains("executor_socket is"));
        assert_eq!(judge("/a/b", &[("/a/b", "/x"), ("/run/c", "/y")]), "ok");
        // A file that is a link out of its directory.
        assert!(judge("/srv", &[("/keys/a.key", "/srv/real.key")]).contains("the private key is"));
        assert_eq!(judge("/srv", &[("/keys/a.key", "/keys/real.key")]), "ok");
    }

    #[test]
    fn what_shows_at_another_place_too_is_the_same_there() {
        let shows = [("/etc/c", "/etc/c"), ("/etc/c", "/mnt/alias/c")];
        for writable in ["/mnt/alias", "/mnt/alias/c", "/mnt/alias/c/x"] {
            assert!(judge(writable, &shows).contains("agent.conf is"), "{writable}");
        }
        assert_eq!(judge("/mnt/alias/d", &shows), "ok");
        // And the other way round.
        assert!(judge("/a", &[("/a", "/a"), ("/a", "/etc/c/x")]).contains("agent.conf is"));
    }

    #[test]
    fn a_relative_file_lies_in_the_current_directory() {
        let source = Source::new("agent.conf", format!("{TEXT}/srv/here\n"));
        let (settings, _) = Settings::parse(&source, &Root::default()).unwrap();
        let here = |path: &Path| (path == Path::new(".")).then(|| PathBuf::from("/srv/here")).into_iter().collect();
        assert!(settings.writable_errors(Path::new("scripts.conf"), here).is_err());
    }
}
