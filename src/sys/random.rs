//! Random bytes from the kernel.
#![expect(unsafe_code, reason = "getrandom has no safe binding here")]

use std::io;

/// Fills `bytes` from the kernel's generator (getrandom(2)), waiting for its first seeding after boot.
///
/// # Errors
/// The kernel refuses the call. There is no fallback: a guessable key is worse than none.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: pointer and length describe one live, writable slice.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(_) => retry_interrupted(io::Error::last_os_error())?,
        }
    }
    Ok(())
}

/// `N` random bytes.
///
/// # Errors
/// As [`fill`].
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

fn retry_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_large_ones_are_filled_to_the_end() {
        assert_ne!(bytes::<16>().unwrap(), bytes::<16>().unwrap());
        let mut large = vec![0; 1 << 20];
        fill(&mut large).unwrap();
        assert!(large[(1 << 20) - 64..].iter().any(|byte| *byte != 0));
    }
}
