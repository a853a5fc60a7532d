//! Length-prefixed frames: a big-endian `u32` and that many bytes of JSON. Used on the executor's socket and by the
//! pairing exchange between our own ends.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;

/// A frame that cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced, or we would send, more than the wire allows.
    #[error("a message of {size} bytes is larger than the {limit} allowed here")]
    TooLarge {
        /// Announced size in bytes.
        size: usize,
        /// Largest size in bytes.
        limit: usize,
    },
    /// The bytes are not the JSON that belongs here.
    #[error("a message does not have the expected form")]
    Malformed(#[source] serde_json::Error),
}

/// Encodes one message with its prefix, so that it leaves in one write.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Malformed)?;
    let size = bytes.len() - PREFIX;
    let too_large = FrameError::TooLarge { size, limit };
    let prefix = u32::try_from(size).ok().filter(|_| size <= limit).ok_or(too_large)?;
    for (place, byte) in bytes.iter_mut().zip(prefix.to_be_bytes()) {
        *place = byte;
    }
    Ok(bytes)
}

/// The size that a prefix announces, refused before a byte of memory is taken for it.
pub fn announced(prefix: [u8; PREFIX], limit: usize) -> Result<usize, FrameError> {
    let size = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if size > limit { Err(FrameError::TooLarge { size, limit }) } else { Ok(size) }
}

/// Decodes the bytes behind a prefix. Anything behind the JSON value is an error.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let bytes = encode(&vec!["a", "b"], 100).unwrap();
        let (prefix, body) = bytes.split_at(PREFIX);
        assert_eq!(announced(prefix.try_into().unwrap(), 100).unwrap(), body.len());
        assert_eq!(decode::<Vec<String>>(body).unwrap(), ["a", "b"]);
    }

    #[test]
    fn an_announced_gigabyte_is_refused() {
        assert!(matches!(announced([0x40, 0, 0, 0], 100), Err(FrameError::TooLarge { .. })));
        assert!(matches!(encode(&"x".repeat(200), 100), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(decode::<u8>(b"1 2").is_err());
    }
}
