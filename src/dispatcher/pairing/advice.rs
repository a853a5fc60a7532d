//! What the resolver's view of a request suggests to the operator.

use std::fmt;
use std::net::IpAddr;

use crate::store::queue::QueuedRequest;
use crate::store::record::AgentRecord;
use crate::wire::pair::LookupBy;

/// How the agent will best be found once it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Its address has a confirmed name, and it is another one.
    Rename {
        /// Registered name.
        agent: String,
        /// Confirmed name.
        name: String,
    },
    /// Its address has a confirmed name, and it is this one.
    HostnameWorks,
    /// No confirmed name leads to its address.
    ByAddress {
        /// Registered name.
        agent: String,
        /// Where it called from.
        source: IpAddr,
    },
}

/// Judges a request by its reverse lookup.
#[must_use]
pub fn advice(request: &QueuedRequest) -> Advice {
    let agent = request.hostname.to_string();
    let name = request.reverse_dns.trim_end_matches('.').to_owned();
    // Every host calls itself localhost.
    let nobody = name.is_empty() || name.to_ascii_lowercase().starts_with("localhost");
    if request.reverse_confirmed == 0 || nobody {
        Advice::ByAddress { agent, source: request.source_ip }
    } else if name.eq_ignore_ascii_case(&agent) {
        Advice::HostnameWorks
    } else {
        Advice::Rename { agent, name }
    }
}

impl Advice {
    /// Commands that put an existing record right; none are needed where the record follows the advice.
    #[must_use]
    pub fn commands(&self, record: &AgentRecord) -> Vec<String> {
        let current = record.hostname.as_str();
        match self {
            Self::Rename { name, .. } => vec![format!("ctrl-exec edit-agent {current} --rename {name}")],
            Self::HostnameWorks => Vec::new(),
            Self::ByAddress { source, .. } => {
                let followed = record.lookup_by.0 == LookupBy::Ip && record.ip == source.to_string();
                let command = format!("ctrl-exec edit-agent {current} --lookup-by ip --ip {source}");
                if followed { Vec::new() } else { vec![command] }
            }
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rename { agent, name } => write!(
                f,
                "DNS knows this host as {name}. After approval consider: ctrl-exec edit-agent {agent} --rename {name}"
            ),
            Self::HostnameWorks => f.write_str("DNS confirms the name: hostname lookup should work."),
            Self::ByAddress { agent, source } => write!(
                f,
                "DNS does not confirm the name. If {agent} does not resolve here: ctrl-exec edit-agent {agent} \
                 --lookup-by ip --ip {source}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queue::Form;
    use crate::wire::name::{AgentName, RequestId};

    fn request(reverse: &str, confirmed: u8) -> QueuedRequest {
        QueuedRequest {
            id: RequestId::parse("a").unwrap(),
            hostname: AgentName::parse("web.example").unwrap(),
            ip: IpAddr::from([10, 0, 0, 1]),
            source_ip: IpAddr::from([192, 0, 2, 1]),
            csr: String::new(),
            nonce: String::new(),
            lookup_by: None,
            port: None,
            received: String::new(),
            code: String::new(),
            reverse_dns: reverse.into(),
            reverse_confirmed: confirmed,
            form: Form::Strong,
        }
    }

    #[test]
    fn a_confirmed_name_decides_and_an_unconfirmed_one_does_not() {
        assert_eq!(advice(&request("WEB.example", 1)), Advice::HostnameWorks);
        let renamed = advice(&request("www.example", 1));
        assert!(renamed.to_string().contains("edit-agent web.example --rename www.example"));
        for unknown in [request("", 0), request("www.example", 0), request("", 1), request("localhost", 1)] {
            let text = advice(&unknown).to_string();
            assert!(text.contains("--lookup-by ip --ip 192.0.2.1"), "{text}");
        }
    }
}
