//! The agent front-end: gate, verbs, pairing client. Unprivileged; the only network listener on a managed host.
