//! The end of a connection whose peer has its last answer.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::FAREWELL;

/// How much of what a peer sends after it was refused is taken and thrown away, in bytes.
const WASTE: u64 = 16 * 1024 * 1024;

/// Ends a connection whose peer has its last answer, and may not have read it. Where a connection is closed before all was
/// read, the kernel resets it, and the answer may be lost with that: so what still comes is thrown away for a while
/// (RFC 9112 9.6).
pub async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let parting = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(WASTE), &mut tokio::io::sink()).await
    };
    drop(timeout(FAREWELL, parting).await);
}
