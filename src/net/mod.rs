//! Listeners, connection limits, HTTP head and body limits.
