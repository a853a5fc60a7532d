//! Order to plan or refusal, and supervision of the script. Synchronous and small: no async runtime, no TLS.
