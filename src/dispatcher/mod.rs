//! Fan-out, connections to agents, verbs, pairing server.
