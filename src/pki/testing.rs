//! The `openssl` program in a temporary directory: the other implementation that ours must agree with.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A directory in which `openssl` runs.
pub(crate) struct Openssl {
    directory: tempfile::TempDir,
}

impl Openssl {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command with these words; a word in single quotes may hold blanks.
    #[expect(clippy::disallowed_methods, reason = "tests compare with the openssl program")]
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new("openssl");
        for (index, part) in words.split('\'').enumerate() {
            if index % 2 == 1 {
                command.arg(part);
            } else {
                command.args(part.split_whitespace());
            }
        }
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs it and returns whatever came out.
    pub(crate) fn try_run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs it and demands success.
    pub(crate) fn run(&self, words: &str) -> String {
        let output = self.try_run(words);
        assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    pub(crate) fn read_bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path().join(file)).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "a test's temporary file needs no atomic write")]
    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    /// A CA as the original makes it (`ca.key`, `ca.crt`), but with 2048 bits where speed matters more.
    pub(crate) fn original_ca(&self, bits: u32) {
        self.run(&format!("genrsa -out ca.key {bits}"));
        self.run("req -new -x509 -key ca.key -out ca.crt -days 3650 -subj '/CN=ctrl-exec CA'");
    }

    /// A leaf as the original makes it (`NAME.key`, `NAME.crt`): RSA, no extensions, X.509 version 1.
    pub(crate) fn original_leaf(&self, name: &str, traditional: bool) {
        let form = if traditional { "-traditional" } else { "" };
        self.run(&format!("genrsa {form} -out {name}.key 2048"));
        self.run(&format!("req -new -key {name}.key -out {name}.csr -subj '/CN={name}'"));
        self.run(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out {name}.crt"
        ));
    }
}
