//! Every type that crosses a process boundary: names, identifiers, serials, requests, replies, orders.
//!
//! No I/O happens here and values come into being only by parsing, so both ends of every wire share one reading
//! of it. The fuzz targets start in this room.

pub mod capabilities;
pub mod causes;
pub mod context;
pub mod control;
pub mod explanation;
pub mod frame;
pub mod hex;
pub mod job;
pub mod limits;
pub mod name;
pub mod order;
pub mod outcome;
pub mod pair;
pub mod ping;
pub mod refusal;
pub mod renew;
pub mod rotate;
pub mod run;
pub mod serial;
pub mod spelling;
pub mod spelt;
pub mod stamp;
pub mod stream;
pub mod trace;
