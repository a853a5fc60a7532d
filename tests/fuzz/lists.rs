//! The trust map and the revocation list: who may ask, and who may not whatever else is said.

use ctrl_exec::agent::list_file;
use ctrl_exec::pki::revoked::{self, RevocationList};
use ctrl_exec::pki::trust::{self, LineWarning, TrustMap};
use ctrl_exec::wire::name::DispatcherId;
use ctrl_exec::wire::serial::Serial;

fn placed(text: &str, warnings: &[LineWarning]) {
    let lines = text.lines().count();
    for warning in warnings {
        assert!((1..=lines).contains(&warning.line), "{warning}");
        assert!(!warning.reason.contains(char::is_control), "{:?}", warning.reason);
    }
}

/// The canonical form is a fixed point in every spelling.
fn canonical(serial: &Serial) {
    let text = serial.as_str();
    for spelling in [text.to_owned(), text.to_uppercase(), format!("0x{text}"), format!("serial=0{text}")] {
        let again = Serial::parse_hex(&spelling);
        // A leading zero can make it longer than any serial.
        assert!(again.as_ref().is_ok_and(|again| again == serial) || spelling.len() > 64, "{spelling}: {again:?}");
    }
}

/// The trust map.
pub fn trust_map(bytes: &[u8]) {
    let text = &list_file::text(bytes);
    let (map, warnings) = TrustMap::parse(text);
    // A change of nothing, and of something, in a file that holds anything.
    let after = |map: &TrustMap| TrustMap::parse(&list_file::text(&map.put_into(text.as_bytes()))).0;
    let mut more = map.clone();
    drop(more.insert(Serial::from_bytes(&[0xab, 0xcd]), DispatcherId::sanitise("new")));
    assert_eq!((after(&map), after(&more)), (map.clone(), more));
    placed(text, &warnings);
    let (again, doubts) = TrustMap::parse(&map.to_text());
    assert_eq!((&again, doubts.len()), (&map, 0));
    for (serial, id) in map.iter() {
        canonical(serial);
        assert_eq!(map.get(serial), Some(id));
        let line = trust::line_of(text, serial).and_then(|line| text.lines().nth(line - 1));
        assert!(line.is_some_and(|line| line.contains(id.as_str())), "{serial} {id}: {line:?}");
    }
    let (older, warnings) = TrustMap::parse_legacy(text);
    placed(text, &warnings);
    assert!(older.iter().count() <= 1);
}

/// The revocation list.
pub fn revocation_list(bytes: &[u8]) {
    let text = &list_file::text(bytes);
    let (list, warnings) = RevocationList::parse(text);
    placed(text, &warnings);
    let mut printed = String::new();
    for serial in list.iter() {
        canonical(serial);
        assert!(list.contains(serial) && revoked::line_of(text, serial).is_some(), "{serial}");
        printed.extend([serial.as_str(), "\n"]);
    }
    let (again, doubts) = RevocationList::parse(&printed);
    assert!(doubts.is_empty());
    assert!(list.iter().all(|serial| again.contains(serial)), "what is revoked stays revoked");
    // A line that the trust map takes for a serial must never be one that cannot be revoked.
    for line in text.lines() {
        if let Ok(serial) = Serial::parse_hex(line) {
            let bare = line.split('#').next().unwrap_or_default();
            assert!(bare != line || list.contains(&serial), "{line:?}");
        }
    }
}
