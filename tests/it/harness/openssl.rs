//! The `openssl` program: it makes what the original made, and speaks TLS as the original did.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Ran, finish};

/// A directory in which `openssl` works.
#[derive(Debug)]
pub(crate) struct Openssl(PathBuf);

impl Openssl {
    pub(crate) fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        Self(dir.to_owned())
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    /// Runs it with these words; words in single quotes stay together.
    #[track_caller]
    pub(crate) fn run(&self, words: &str) -> Ran {
        let mut command = Command::new("openssl");
        command.current_dir(&self.0);
        for (index, part) in words.split('\'').enumerate() {
            if index % 2 == 1 {
                command.arg(part);
            } else {
                command.args(part.split_whitespace());
            }
        }
        finish(command, "").exits(0)
    }

    /// A CA as the original made it.
    pub(crate) fn original_ca(&self, bits: u32) {
        self.run(&format!("genrsa -out ca.key {bits}"));
        self.run("req -new -x509 -key ca.key -out ca.crt -days 3650 -subj '/CN=ctrl-exec CA'");
    }

    /// A leaf as the original made it: RSA, no extensions, X.509 version 1; its key as PKCS#1 or PKCS#8.
    pub(crate) fn original_leaf(&self, file: &str, name: &str, pkcs1: bool) {
        let form = if pkcs1 { "-traditional" } else { "" };
        self.run(&format!("genrsa {form} -out {file}.key 2048"));
        self.run(&format!("req -new -key {file}.key -out {file}.csr -subj '/CN={name}'"));
        self.run(&format!(
            "x509 -req -in {file}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out {file}.crt"
        ));
    }
}
