//! Tests of the agent end.
