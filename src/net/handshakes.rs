//! Handshakes under way, each with a place in a [`Crowd`]: a bounded number, in all and from one address.

use std::net::IpAddr;

use super::crowd::{self, Crowd};

/// The handshakes under way and their ceilings.
pub type Handshakes = Crowd<IpAddr>;

/// One handshake's place, free again when dropped.
pub type Place = crowd::Place<IpAddr>;
