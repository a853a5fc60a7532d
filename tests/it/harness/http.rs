//! HTTP/1 by hand: exactly the bytes that a test writes, and answers taken apart.

use std::io::{self, Read, Write};

use serde_json::Value;

/// A connection on which HTTP is spoken.
#[derive(Debug)]
pub(crate) struct Http<S> {
    pub(crate) stream: S,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl<S: Read + Write> Http<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Writes bytes as they are. A peer that has closed already is no failure: it may have answered before.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()));
    }

    /// A request with a JSON body; keeps the connection.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(head + body);
        self.answer().unwrap()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        self.answer().unwrap()
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(place) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break place + 4;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        Ok(String::from_utf8(head).unwrap())
    }

    /// The next chunk of a body without a length (RFC 9112 7.1); nothing at its end or that of the connection.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(place) = self.read.windows(2).position(|window| window == b"\r\n") {
                break place;
            }
            self.more().ok()?;
        };
        let size = usize::from_str_radix(std::str::from_utf8(&self.read[..line]).unwrap(), 16).unwrap();
        while self.read.len() < line + 2 + size + 2 {
            self.more().ok()?;
        }
        let chunk = self.read[line + 2..line + 2 + size].to_vec();
        self.read.drain(..line + 2 + size + 2);
        (size > 0).then_some(chunk)
    }

    /// Reads one answer; an error where the connection ended before it.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map(|text| text.parse::<usize>().unwrap());
        answer.body = self.body(length)?;
        Ok(answer)
    }

    /// Whatever comes until the connection ends, also where it ends with an error.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more().is_ok() {}
        std::mem::take(&mut self.read)
    }

    fn body(&mut self, length: Option<usize>) -> io::Result<Vec<u8>> {
        let Some(length) = length else { return Ok(self.rest()) };
        while self.read.len() < length {
            self.more()?;
        }
        Ok(self.read.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}
