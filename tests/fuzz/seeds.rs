//! Every target with its seeds, as ordinary tests.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{conf, lists, order, requests, sidecar, wire};

/// Held while a target runs: one of them counts the descriptors of this process, so no other may open any meanwhile.
static ALONE: Mutex<()> = Mutex::new(());

/// Feeds a target with each of its seeds, and with each cut short.
fn sown(name: &str, target: fn(&[u8])) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        target(&bytes);
        target(&bytes[..bytes.len() / 2]);
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn no_request_of_the_seeds_breaks_the_agent() {
    sown("request_head", requests::request_head);
    sown("http_2", requests::http_2);
}

#[test]
fn no_message_of_the_seeds_breaks_its_reader() {
    sown("run_body", wire::run_body);
    sown("stream_frames", wire::stream_frames);
    sown("pairing", wire::pairing);
    sown("order", order::order);
}

#[test]
fn no_file_of_the_seeds_breaks_its_reader() {
    sown("trust_map", lists::trust_map);
    sown("revocation_list", lists::revocation_list);
    sown("sidecar", sidecar::sidecar);
    sown("agent_conf", conf::agent_conf);
    sown("scripts_conf", conf::scripts_conf);
}
