//! Order to plan or refusal, and supervision of the script. Synchronous and small: no async runtime, no TLS.
//!
//! The way of an order: `serve` takes its connection from the front-end and hands it to a monitor, one that waits
//! (`post`) or a new one; the monitor reads it (`intake`), decides (`decide`, pure, against the `policy`), starts the
//! script and stands by until it has ended (`monitor` and `supervision`, with `watch` as the pure part, and
//! `printed` for
//! what a job prints), and tells the outcome once (`report`). Under a root executor the script is confined
//! (`confinement`
//! says to what, pure; `confine` does it, and states the order of its steps; `household` makes what it can of it
//! ahead). `explain` tells what would become of an
//! order, by the same decision.
//!
//! **Invariant:** a process of this room has one thread. It forks.

mod confine;
mod confinement;
mod confinements;
mod contents;
mod covers;
mod decide;
mod environment;
mod event;
mod explain;
mod fence;
mod ground;
mod homes;
mod host;
mod household;
mod init;
mod inits;
mod intake;
mod interpreter;
mod keeper;
mod kind;
mod ledger;
mod limits;
mod models;
mod monitor;
mod names;
mod needs;
mod offer;
mod outlook;
mod own;
mod pins;
mod policy;
mod post;
mod printed;
mod reach;
mod reasons;
mod report;
mod resolve;
mod rights;
mod serve;
mod streams;
mod succession;
mod supervision;
mod tree;
mod unmade;
mod unstarted;
mod view;
mod watch;
mod workshop;

pub use confine::prepare;
pub use confinement::Confinement;
pub use confinements::{Confinements, meanings, of_two_names};
pub use decide::{Plan, decide};
pub use event::{ExecEvent, Trail};
pub use explain::{Explained, Files, OWNS_THE_HOST, explain, start};
pub use ground::unstartable;
pub use host::{HostFacts, OnDisk, Person};
pub use intake::{Asked, Intake, Job, take as take_order};
pub use monitor::busy;
pub use offer::{Named, Offer, Shared, alone, incapable, lacking, linked, named, owners, shared};
pub use outlook::{is_fit, starts};
pub use pins::{Content, Pins};
pub use policy::{Paths, Policy, ProfileLimits, Rights, Script, doubt};
pub use resolve::resolve;
pub use serve::{Door, Load, ServeError, able, serve_own, serve_private, serve_socket};
pub use succession::{Succession, asked};

#[cfg(test)]
mod tests;
