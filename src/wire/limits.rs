//! Sizes and counts that both ends of a wire must agree on. All sizes are in bytes.

/// Largest request body an agent reads; one byte more is answered with 413.
pub const REQUEST_BODY: usize = 1_048_576;
/// Most header lines in a request to an agent; one more is answered with 431.
pub const REQUEST_HEADERS: usize = 32;
/// Largest request head, all lines together.
pub const REQUEST_HEAD: usize = 64 * 1024;
/// Largest pairing message, both forms.
pub const PAIRING_BODY: usize = 65_536;
/// Most arguments of one run. The original's executor has the same limit.
pub const ARGUMENTS: usize = 256;
/// Longest single argument. Linux refuses 128 KiB and more (`MAX_ARG_STRLEN`, execve(2)).
pub const ARGUMENT: usize = 128 * 1024 - 1;
/// All arguments of one run together; leaves room below the kernel's limit for the environment.
pub const ARGUMENTS_TOTAL: usize = 1_048_576;
/// Largest order to the executor: the arguments, escaped as JSON at worst sixfold, and the names.
pub const ORDER: usize = 8 * 1_048_576;
/// Largest report from the executor.
pub const REPORT: usize = 64 * 1024;
/// Longest text taken from a peer for a log field or a user name.
pub const TEXT: usize = 4096;
/// Largest answer other than script output that a dispatcher reads from an agent (capabilities, ping, renewal).
pub const ANSWER_BODY: usize = 16 * 1_048_576;
