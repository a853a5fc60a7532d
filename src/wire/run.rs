//! `POST /run`: what a dispatcher asks and what an agent answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::outcome::{EXIT_NOTHING_RAN, OUTCOME_UNKNOWN, Outcome};
use super::stream::whole_characters;
use super::{limits, spelling};

/// The body that our dispatcher sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunCall {
    /// Script name, as the operator typed it; the agent judges it.
    pub script: String,
    /// Argument vector behind `argv[0]`.
    pub args: Vec<String>,
    /// One id for all hosts of a run.
    pub reqid: String,
    /// User name claimed by the caller.
    pub username: String,
    /// Token for hooks and script. Never logged.
    pub token: String,
    /// Asks for a detached job.
    #[serde(rename = "async", skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

/// A run request as an agent read it: typed, and still unjudged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRequest {
    script: Value,
    reqid: Value,
    /// Arguments as text.
    pub args: Vec<String>,
    /// User name, empty when absent.
    pub username: String,
    /// Token, empty when absent. Never logged.
    pub token: String,
    /// Whether the caller asked for a detached job.
    pub detached: bool,
}

impl RunRequest {
    /// Reads a request body. Both peers' JSON habits are accepted: numbers and booleans among `args` become their
    /// text, as it was sent, `null` is empty, and `async` follows the original's idea of truth.
    ///
    /// # Errors
    /// The reply to send, in the original's form: `exit` -1 and an `error`.
    pub fn parse(body: &[u8]) -> Result<Self, Box<RunReply>> {
        let value: Value =
            serde_json::from_slice(body).map_err(|_| Box::new(RunReply::error("invalid-json", "invalid JSON")))?;
        let mut fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(Box::new(RunReply::error("invalid-request", "request body must be a JSON object"))),
        };
        let mut take = |key: &str| fields.shift_remove(key).unwrap_or(Value::Null);
        let (script, reqid) = (take("script"), echo(spelling::exact(body, "reqid", take("reqid"))));
        let refuse = |code| {
            let reqid = &reqid;
            move |text: String| Box::new(RunReply { reqid: Some(reqid.clone()), ..RunReply::error(code, text) })
        };
        let args = arguments(take("args"), || spelling::elements(body, "args")).map_err(refuse("invalid-args"))?;
        let username = text_field(&take("username"), "username").map_err(refuse("invalid-username"))?;
        let token = text_field(&take("token"), "token").map_err(refuse("invalid-token"))?;
        let detached = truthy(&take("async"));
        Ok(Self { script, reqid, args, username, token, detached })
    }

    /// The script's name as text; empty where the request named none.
    #[must_use]
    pub fn script(&self) -> String {
        plain(&self.script)
    }

    /// The request id as text.
    #[must_use]
    pub fn reqid(&self) -> String {
        plain(&self.reqid)
    }

    /// A refusal in the original's form, 200 with `exit` -1 and the text; and the stable code, which the original has not.
    #[must_use]
    pub fn refused(&self, code: &str, error: impl Into<String>) -> RunReply {
        let reply = RunReply::error(code, error);
        RunReply { script: Some(self.script.clone()), reqid: Some(self.reqid.clone()), ..reply }
    }

    /// The reply to a run that the executor could not be given: nothing ran. The original's form: the text on `stderr`, too.
    #[must_use]
    pub fn failed(&self, code: &str, error: &str) -> RunReply {
        let reply = self.refused(code, error);
        RunReply { stdout: Some(String::new()), stderr: Some(error.to_owned()), ..reply }
    }

    /// The reply to a run whose end nobody told, with what was heard of it.
    #[must_use]
    pub fn unknown(&self, error: &str, stdout: Output, stderr: Output) -> RunReply {
        RunReply { unknown: true, ..self.refused(OUTCOME_UNKNOWN, error) }.printed(stdout, stderr)
    }

    /// The reply to a job that was accepted.
    #[must_use]
    pub fn accepted(&self) -> JobReply {
        self.submitted("accepted")
    }

    /// The reply to a job that has to wait for another's end.
    #[must_use]
    pub fn busy(&self, code: &'static str, error: &str) -> JobReply {
        JobReply { error: Some(error.to_owned()), reason: Some(code), ..self.submitted("busy") }
    }

    fn submitted(&self, status: &'static str) -> JobReply {
        JobReply { script: self.script.clone(), status, reqid: self.reqid.clone(), error: None, reason: None }
    }

    /// The reply to a run that was started, or that the executor refused.
    #[must_use]
    pub fn ran(&self, outcome: &Outcome, stdout: Output, stderr: Output) -> RunReply {
        if let Outcome::Refused(refusal) = outcome {
            return self.refused(refusal.code(), refusal.text());
        }
        let reply = RunReply { exit: outcome.exit(), error: None, reason: outcome.reason(), ..self.refused("", "") };
        reply.printed(stdout, stderr)
    }
}

/// The answer to the submission of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobReply {
    /// Echo of the request's `script`, with its JSON type.
    pub script: Value,
    /// `accepted` or `busy`.
    pub status: &'static str,
    /// Echo of the request's `reqid`, with its JSON type.
    pub reqid: Value,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The stable code of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// One collected output stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The bytes as text; what is not UTF-8 is replaced by U+FFFD.
    pub text: String,
    /// The exact bytes, present only where something was replaced.
    pub base64: Option<String>,
    /// More was printed than the limit on buffered output keeps.
    pub truncated: bool,
}

impl Output {
    /// What a script printed, as text, and as base64 beside it where the text had to replace some. A character that was
    /// `truncated` in its middle is left out: the script never printed half of it.
    #[must_use]
    pub fn of(mut bytes: Vec<u8>, truncated: bool) -> Self {
        if truncated {
            bytes.truncate(whole_characters(&bytes));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self { text, base64: None, truncated },
            Err(error) => {
                let bytes = error.into_bytes();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Self { text, base64: Some(STANDARD.encode(&bytes)), truncated }
            }
        }
    }

    /// The exact bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let exact = self.base64.and_then(|text| STANDARD.decode(text).ok());
        exact.unwrap_or_else(|| self.text.into_bytes())
    }
}

/// The answer to `/run`. Most refusals are 200 with an `error`, as the original's peers expect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunReply {
    /// Echo of the request's `script`, with its JSON type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Value>,
    /// The script's exit status, or the numbers of [`super::outcome`].
    pub exit: i32,
    /// Why nothing ran, or why nobody knows how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The script may have run: `exit` says nothing about it.
    #[serde(skip_serializing_if = "is_false")]
    pub unknown: bool,
    /// Standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Exact bytes of `stdout` where the text had to replace some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// Exact bytes of `stderr` where the text had to replace some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// The streams above are cut.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// What `exit` alone cannot say: signal, time-out, the refusal's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Advice for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Echo of the request's `reqid`, with its JSON type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reqid: Option<Value>,
}

impl RunReply {
    /// `exit` -1, the text, and its stable code in kebab-case.
    #[must_use]
    pub fn error(code: &str, text: impl Into<String>) -> Self {
        let (error, reason) = (Some(text.into()), Some(code.to_owned()));
        Self { exit: EXIT_NOTHING_RAN, error, reason, ..Self::default() }
    }

    /// The same with what the script printed.
    fn printed(self, stdout: Output, stderr: Output) -> Self {
        Self {
            truncated: stdout.truncated || stderr.truncated,
            stdout: Some(stdout.text),
            stderr: Some(stderr.text),
            stdout_base64: stdout.base64,
            stderr_base64: stderr.base64,
            ..self
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// An absent id is echoed as the empty text, as the original does.
fn echo(value: Value) -> Value {
    if value.is_null() { Value::String(String::new()) } else { value }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// `spelt` is asked only where a number may have been spelt in another way.
fn arguments<'b>(value: Value, spelt: impl FnOnce() -> Vec<Option<&'b str>>) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) if values.iter().any(Value::is_f64) => {
            let spelt = spelt().into_iter().chain(std::iter::repeat(None));
            let text = |(value, spelt): (Value, Option<&str>)| {
                spelt.map_or_else(|| argument(value), |text| Ok(text.to_owned()))
            };
            values.into_iter().zip(spelt).map(text).collect()
        }
        Value::Array(values) => values.into_iter().map(argument).collect(),
        _ => Err("args must be an array".to_owned()),
    }
}

fn argument(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        Value::Bool(on) => Ok(if on { "1" } else { "0" }.to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(_) | Value::Object(_) => Err("args must be an array of strings".to_owned()),
    }
}

/// User name and token reach environments, where a NUL would cut them: what a hook sees in its environment and in its
/// JSON must be the same.
fn text_field(value: &Value, field: &str) -> Result<String, String> {
    let text = plain(value);
    if matches!(value, Value::Array(_) | Value::Object(_)) {
        Err(format!("{field} must be a string"))
    } else if text.contains('\0') {
        Err(format!("{field} contains a NUL byte"))
    } else if text.len() > limits::TEXT {
        Err(format!("{field} is longer than {} bytes", limits::TEXT))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(body: &str) -> String {
        RunRequest::parse(body.as_bytes()).unwrap_err().error.unwrap()
    }

    #[test]
    fn a_body_that_is_no_object_gets_an_answer() {
        assert_eq!(error_of("{"), "invalid JSON");
        assert_eq!(error_of("[]"), "request body must be a JSON object");
        assert_eq!(error_of("\"x\""), "request body must be a JSON object");
        assert_eq!(RunRequest::parse(b"null").unwrap().script(), "");
    }

    #[test]
    fn arguments_of_the_originals_peers_become_text() {
        let request = RunRequest::parse(br#"{"script":"x","args":[1,2.5,true,false,null,"a b"]}"#).unwrap();
        assert_eq!(request.args, ["1", "2.5", "1", "0", "", "a b"]);
        let request = RunRequest::parse(br#"{"args":[1e3,-0,100000000000000000000,2.50,7]}"#).unwrap();
        assert_eq!(request.args, ["1e3", "-0", "100000000000000000000", "2.50", "7"]);
        assert_eq!(error_of(r#"{"args":"x"}"#), "args must be an array");
        assert_eq!(error_of(r#"{"args":[{}]}"#), "args must be an array of strings");
    }

    #[test]
    fn a_nul_in_name_or_token_is_refused_at_the_door() {
        assert_eq!(error_of(r#"{"username":"a\u0000b"}"#), "username contains a NUL byte");
        assert_eq!(error_of(r#"{"token":"a\u0000b"}"#), "token contains a NUL byte");
        assert_eq!(error_of(r#"{"token":{}}"#), "token must be a string");
    }

    #[test]
    fn ids_are_echoed_with_their_type() {
        let request = RunRequest::parse(br#"{"script":"x","reqid":7}"#).unwrap();
        let reply = serde_json::to_value(request.refused("script-not-permitted", "script not permitted")).unwrap();
        assert_eq!(reply["reqid"], 7);
        assert_eq!(reply["exit"], -1);
        assert_eq!(request.reqid(), "7");
        let request = RunRequest::parse(br#"{"reqid":12345678901234567890123}"#).unwrap();
        assert_eq!(request.reqid(), "12345678901234567890123");
    }

    #[test]
    fn truth_is_the_originals() {
        for (text, want) in [("false", false), ("null", false), ("0", false), ("\"\"", false), ("\"0\"", false)] {
            assert_eq!(RunRequest::parse(format!(r#"{{"async":{text}}}"#).as_bytes()).unwrap().detached, want);
        }
        for text in ["true", "1", "\"false\"", "[]"] {
            assert!(RunRequest::parse(format!(r#"{{"async":{text}}}"#).as_bytes()).unwrap().detached, "{text}");
        }
    }

    #[test]
    fn a_reply_holds_the_originals_fields() {
        let request = RunRequest::parse(br#"{"script":"x","reqid":"r"}"#).unwrap();
        let reply = request.ran(&Outcome::Exited { code: 1 }, Output::default(), Output::default());
        let value = serde_json::to_value(reply).unwrap();
        assert_eq!(value, serde_json::json!({"script": "x", "exit": 1, "stdout": "", "stderr": "", "reqid": "r"}));
    }

    #[test]
    fn no_refusal_of_a_body_is_without_its_code() {
        for (body, code) in [
            ("{", "invalid-json"),
            ("[]", "invalid-request"),
            (r#"{"args":{}}"#, "invalid-args"),
            (r#"{"args":[[]]}"#, "invalid-args"),
            (r#"{"username":[]}"#, "invalid-username"),
            (r#"{"token":[]}"#, "invalid-token"),
        ] {
            let reply = RunRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!((reply.reason.as_deref(), reply.exit), (Some(code), EXIT_NOTHING_RAN), "{body}");
        }
    }

    #[test]
    fn an_unknown_end_is_told_apart_from_nothing_at_all_and_keeps_what_was_printed() {
        let request = RunRequest::parse(br#"{"script":"x","reqid":"r"}"#).unwrap();
        let printed = Output { text: "begun\n".into(), ..Output::default() };
        let unknown = serde_json::to_value(request.unknown("lost", printed, Output::default())).unwrap();
        assert_eq!(
            (&unknown["exit"], &unknown["unknown"], &unknown["reason"]),
            (&(-1).into(), &true.into(), &OUTCOME_UNKNOWN.into())
        );
        assert_eq!((&unknown["stdout"], &unknown["error"]), (&"begun\n".into(), &"lost".into()));
        let failed = serde_json::to_value(request.failed("executor-failed", "gone")).unwrap();
        assert_eq!(
            (&failed["exit"], &failed["stderr"], &failed["reason"]),
            (&(-1).into(), &"gone".into(), &"executor-failed".into())
        );
        assert!(failed.get("unknown").is_none());
    }

    #[test]
    fn a_character_that_was_cut_in_its_middle_is_not_called_bytes_that_are_no_text() {
        let cut = Output::of("aé".as_bytes()[..2].to_vec(), true);
        assert_eq!(cut, Output { text: "a".into(), base64: None, truncated: true });
        let whole = Output::of("aé".as_bytes().to_vec(), true);
        assert_eq!(whole, Output { text: "aé".into(), base64: None, truncated: true });
        // Nobody but the script has cut this one.
        let odd = Output::of(b"a\xc3".to_vec(), false);
        assert_eq!(odd.base64.as_deref(), Some("YcM="));
        assert_eq!((odd.into_bytes(), whole.into_bytes()), (b"a\xc3".to_vec(), "aé".as_bytes().to_vec()));
    }
}
