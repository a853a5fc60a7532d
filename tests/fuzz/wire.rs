//! What crosses a wire: run bodies, streams of output, pairing.

use ctrl_exec::pki::csr::{self, ExpectedName};
use ctrl_exec::wire::name::AgentName;
use ctrl_exec::wire::order::check_arguments;
use ctrl_exec::wire::pair::{AgentMessage, DispatcherMessage, OriginalAnswer, OriginalRequest};
use ctrl_exec::wire::run::{RunCall, RunRequest};
use ctrl_exec::wire::stream::{Channel, Decoder, Encoder, Frame, StreamError, whole_characters};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The body of `POST /run`.
pub fn run_body(bytes: &[u8]) {
    let request = match RunRequest::parse(bytes) {
        Ok(request) => request,
        Err(reply) => {
            assert_eq!((reply.exit, reply.error.is_some()), (-1, true));
            assert!(serde_json::to_vec(&reply).is_ok());
            return;
        }
    };
    assert!(!request.username.contains('\0') && !request.token.contains('\0'));
    let refused = serde_json::to_value(request.refused("no", "no")).unwrap_or_default();
    assert_eq!(refused["exit"], -1);
    assert_eq!(refused["error"], "no");
    let call = RunCall {
        script: request.script(),
        args: request.args.clone(),
        reqid: request.reqid(),
        username: request.username.clone(),
        token: request.token.clone(),
        detached: request.detached,
    };
    let again = RunRequest::parse(&serde_json::to_vec(&call).unwrap_or_default());
    let again = again.unwrap_or_else(|reply| panic!("{call:?}: {reply:?}"));
    assert_eq!((again.script(), again.reqid()), (request.script(), request.reqid()));
    assert_eq!((&again.args, &again.username, &again.token), (&request.args, &request.username, &request.token));
    assert_eq!(again.detached, request.detached);
    if check_arguments(&request.args).is_ok() {
        assert!(request.args.iter().all(|arg| !arg.contains('\0')));
    }
}

/// A run's output on its way to the dispatcher. The first byte says in what pieces the body arrives.
pub fn stream_frames(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let whole = decode(std::iter::once(body));
    let size = usize::from(*first).max(1);
    assert_eq!(decode(body.chunks(size)), whole, "pieces of {size}");
    let (frames, error) = whole;
    let mut encoder = Encoder::default();
    let again: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(&frame.lent())).collect();
    assert_eq!(decode(std::iter::once(again.as_slice())), (frames, None), "behind {error:?}");
    whole_text(body, usize::from(*first));
}

/// A frame that outlives the body it came in.
#[derive(Debug, PartialEq)]
enum Kept {
    Output(Channel, Vec<u8>),
    Idle,
    End(Vec<u8>),
}

impl Kept {
    fn of(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Output(channel, bytes) => Self::Output(channel, bytes.to_vec()),
            Frame::Idle => Self::Idle,
            Frame::End(json) => Self::End(json),
        }
    }

    fn lent(&self) -> Frame<'_> {
        match self {
            Self::Output(channel, bytes) => Frame::Output(*channel, bytes),
            Self::Idle => Frame::Idle,
            Self::End(json) => Frame::End(json.clone()),
        }
    }
}

/// The frames of a body up to what is wrong with it; parts of output that follow each other are one here.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Kept>, Option<StreamError>) {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    for mut rest in pieces {
        loop {
            match (decoder.next_frame(&mut rest), found.last_mut()) {
                (Err(error), _) => return (found, Some(error)),
                (Ok(None), _) => break,
                (Ok(Some(Frame::Output(channel, more))), Some(Kept::Output(last, bytes))) if *last == channel => {
                    bytes.extend_from_slice(more);
                }
                (Ok(Some(frame)), _) => found.push(Kept::of(frame)),
            }
        }
        assert!(rest.is_empty());
    }
    (found, None)
}

/// Text that is cut where a character may be cut, and shown in two parts, is the text.
fn whole_text(bytes: &[u8], place: usize) {
    let (head, _) = bytes.split_at(place.min(bytes.len()));
    let cut = whole_characters(head);
    assert!(head.len() - cut <= 3);
    let (shown, rest) = bytes.split_at(cut);
    let parts = String::from_utf8_lossy(shown).into_owned() + &String::from_utf8_lossy(rest);
    assert_eq!(parts, String::from_utf8_lossy(bytes), "cut at {cut} of {}", head.len());
}

/// What a stranger can say to the pairing listener, and an agent's dispatcher to it: either form's messages, and the
/// certificate request in them.
pub fn pairing(bytes: &[u8]) {
    same_again::<AgentMessage>(bytes);
    same_again::<DispatcherMessage>(bytes);
    same_again::<OriginalAnswer>(bytes);
    if let Ok(request) = OriginalRequest::parse(bytes) {
        checked(&request.applicant.csr, &request.applicant.hostname);
        let text = serde_json::to_vec(&request).unwrap_or_default();
        assert_eq!(OriginalRequest::parse(&text), Ok(request));
    }
    if let (Ok(text), Ok(name)) = (std::str::from_utf8(bytes), AgentName::parse("web-01")) {
        checked(text, &name);
    }
}

/// What is taken under this name has it under any other check too.
fn checked(request: &str, name: &AgentName) {
    let exactly = csr::check(request, ExpectedName::Exactly(name.as_str()));
    let any = csr::check(request, ExpectedName::Any);
    assert!(exactly.is_err() || any.is_ok());
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let text = serde_json::to_vec(&message).unwrap_or_default();
    let again = serde_json::from_slice::<T>(&text);
    assert!(again.as_ref().is_ok_and(|again| *again == message), "{message:?}: {again:?}");
}
