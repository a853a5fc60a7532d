//! What a front-end says to an executor besides its orders.
//!
//! To an executor that it started itself it speaks over the socket pair between them (`SOCK_SEQPACKET`, one message a
//! datagram). [`Control::Order`] carries one descriptor: the executor's end of a new order connection
//! ([`super::order`]); it has no answer of its own. The other words carry none and are answered by one [`Reloaded`].
//!
//! To an executor that listens on a socket every connection is an order's. One whose first frame is a word of control
//! instead of an order is answered by one [`Reloaded`], also as a frame, and closed. There [`Control::Order`] has no
//! meaning and is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::ScriptName;

/// Largest control message or answer, in bytes.
pub const LIMIT: usize = 64 * 1024;

/// A message to the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// A new order connection is attached as a descriptor.
    Order,
    /// Read the configuration again; keep the old one if the new is broken.
    Reload,
    /// Is an executor there that speaks this protocol? Answered at once by [`Reloaded::Done`].
    Hello,
    /// Become the file that is at the executor's path now. For an agent's own root executor alone; answered by that file's
    /// with [`Reloaded::Done`], or by the one that stays with [`Reloaded::Failed`].
    Upgrade,
    /// Which state is each listed script's file in? Of a root executor, on an order's connection, to whomever it starts
    /// scripts for. Answered by [`Contents`], as a frame, or by nothing where there is no room.
    Versions,
    /// What is in them? As [`Control::Versions`].
    Digests,
}

/// What is said of the files of listed scripts: 64 hex digits each. With [`Control::Digests`] the file's SHA-256; with
/// [`Control::Versions`] a word that is another for another state of the file, and means nothing else. What nobody but root can
/// have put there is told of alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents(pub BTreeMap<ScriptName, String>);

impl Contents {
    /// Largest of them, in bytes: some thousands of scripts.
    pub const LIMIT: usize = 1 << 20;
}

/// The answer to a word that has one, and over a socket pair the first message after start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reloaded {
    /// The configuration on disk is in force; to a greeting: the executor is there.
    Done,
    /// It is broken, and the old one (if there was one) stays in force.
    Failed {
        /// Every error with its place.
        text: String,
    },
    /// At the start alone: the executor cannot serve, whatever the configuration.
    Unable {
        /// Why not, and what to do about it.
        text: String,
    },
}

impl Reloaded {
    /// A failure whose text is cut so that it fits an answer even if each of its bytes needs six in JSON.
    #[must_use]
    pub fn failed(text: &str) -> Self {
        Self::Failed { text: fitting(text) }
    }

    /// The same for one that cannot serve.
    #[must_use]
    pub fn unable(text: &str) -> Self {
        Self::Unable { text: fitting(text) }
    }
}

fn fitting(text: &str) -> String {
    const MOST: usize = LIMIT / 6 - 64;
    text.get(..text.floor_char_boundary(MOST)).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_faults_is_cut_to_fit_an_answer() {
        let answer = Reloaded::failed(&"\u{1}é".repeat(LIMIT));
        let bytes = serde_json::to_vec(&answer).unwrap();
        assert!(bytes.len() <= LIMIT && bytes.len() > LIMIT / 3, "{}", bytes.len());
    }

    #[test]
    fn no_word_of_control_is_an_order() {
        let words =
            [Control::Order, Control::Reload, Control::Hello, Control::Upgrade, Control::Versions, Control::Digests];
        for word in words {
            let bytes = serde_json::to_vec(&word).unwrap();
            assert!(serde_json::from_slice::<crate::wire::order::Order>(&bytes).is_err());
        }
    }
}
