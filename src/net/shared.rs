//! A transport that can be looked at while somebody reads and writes it, and that says nothing before it may.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The transport. All who use it are in one task, so that nobody ever waits for the lock.
#[derive(Debug)]
pub(super) struct Shared<S> {
    stream: Mutex<S>,
    /// What is written goes nowhere.
    silent: AtomicBool,
    /// Bytes that were read while it was silent.
    taken: AtomicUsize,
}

impl<S> Shared<S> {
    /// One that is silent.
    pub(super) const fn new(stream: S) -> Self {
        Self { stream: Mutex::new(stream), silent: AtomicBool::new(true), taken: AtomicUsize::new(0) }
    }

    /// Whatever is written from now on is written, and the end is an end.
    pub(super) fn speak(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// What `look` finds.
    pub(super) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.held())
    }

    fn held(&self) -> MutexGuard<'_, S> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for &Shared<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut *self.held()).poll_read(context, buffer);
        if self.is_silent() {
            self.taken.fetch_add(buffer.filled().len().saturating_sub(before), Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for &Shared<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_silent() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut *self.held()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.held()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.held()).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_silent() {
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
        Pin::new(&mut *self.held()).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.held().is_write_vectored()
    }
}
