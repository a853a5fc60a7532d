//! The exit statuses, one table.

/// How a process ends. Numbers that the field already knows come from `sysexits.h`; 1, 2 and 3 are the
/// product's own and mean what each verb documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything that was asked for happened.
    Success,
    /// 1: the work was done and some of it failed: a host, a script, a check.
    Failed,
    /// 2: still pending, or the waiting time ran out.
    Pending,
    /// 2: the executor's `resolve` could not use the configuration. The original's number for it.
    Unreadable,
    /// 3: the operator at the other end denied it.
    Denied,
    /// 64 (`EX_USAGE`): the command line was wrong. clap's own 2 would collide with [`Exit::Pending`].
    Usage,
    /// 69 (`EX_UNAVAILABLE`): something outside this program did not answer or could not be used.
    Unavailable,
    /// 70 (`EX_SOFTWARE`): a bug.
    Bug,
    /// 74 (`EX_IOERR`): what was to be shown could not be written.
    Output,
    /// 77 (`EX_NOPERM`): needs root or the group.
    Permission,
    /// 78 (`EX_CONFIG`): configuration error or unpaired. Init systems must not restart on it.
    Config,
    /// 141: who read the output has gone, `| head` for one. What a shell says of a program that SIGPIPE has ended.
    ReaderGone,
}

impl Exit {
    /// The number handed to the parent process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Pending | Self::Unreadable => 2,
            Self::Denied => 3,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Output => 74,
            Self::Permission => 77,
            Self::Config => 78,
            Self::ReaderGone => 141,
        }
    }
}
