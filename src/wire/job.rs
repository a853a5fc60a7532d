//! How a caller says which words for a job's state it knows.

/// Media type of a job's record in our own words (RFC 6838 3.2). The original knows of a job that it is `running` or
/// `done`, keeps asking for one of any other state, and does not name this type in `Accept`. Whoever names it knows the
/// state `lost` too: the job has ended, and how nobody will ever know.
pub const MEDIA_TYPE: &str = "application/vnd.ctrl-exec.job+json";
