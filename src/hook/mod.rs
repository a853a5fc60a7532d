//! The auth hook: context, time limit, exit status to decision.
