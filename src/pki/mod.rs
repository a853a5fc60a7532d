//! CA, certificate requests, certificates and trust as pure decisions.
//!
//! Nothing here opens a file or asks for the time: text and DER come in, text, DER and verdicts go out, and `now` is
//! an argument. The only outside state is the system's random source, for keys ([`key`]) and serials ([`serial`]).
//!
//! | file | decides |
//! |---|---|
//! | [`ca`] | what the CA is and what it signs |
//! | [`csr`] | which certificate requests may be signed |
//! | [`cert`] | what a certificate says |
//! | [`chain`] | whether a peer's certificate holds under the one CA |
//! | [`known`] | the same, for peers that come back |
//! | [`renewal`] | when a certificate is due, and whether a new one may replace it |
//! | [`trust`], [`revoked`] | which serials are trusted, and which refused |
//! | [`rotation`] | which changes of its own trust a dispatcher may ask for |
//! | [`code`] | the confirmation code of pairing, and what it is bound to |
//! | [`key`], [`serial`] | fresh keys and serials, and keys of the original |

pub mod ca;
pub mod cert;
pub mod chain;
pub mod code;
pub mod csr;
mod der;
mod extensions;
mod issue;
pub mod key;
pub mod known;
pub mod pem;
pub mod renewal;
pub mod revoked;
pub mod rotation;
pub mod serial;
mod signature;
pub mod trust;

#[cfg(test)]
mod limbo;
#[cfg(test)]
pub(crate) mod testing;
