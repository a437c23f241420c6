//! Callers known by the certificate of their connection, which the TLS handshake has checked.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::auth::{CertificateClient, Pattern};
use crate::types::{Certificate, Identity};

/// What certificates mean. The entry that stands first in the file counts.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    identities: Vec<Arc<Identity>>,
    subjects: Names,
    alternatives: Names,
}

/// Texts of one part of certificates, each with the place of its identity.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, usize>,
    starts: Vec<(String, usize)>,
}

impl Certificates {
    pub(super) fn new(clients: &[CertificateClient]) -> Self {
        let mut all = Self::default();
        for (place, client) in clients.iter().enumerate() {
            all.identities.push(client.identity.clone());
            match &client.pattern {
                Pattern::Subject(pattern) => all.subjects.insert(pattern, place),
                Pattern::AlternativeName(pattern) => all.alternatives.insert(pattern, place),
            }
        }
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// Whose certificate this is.
    pub(super) fn find(&self, certificate: &Certificate) -> Option<Arc<Identity>> {
        let subject = self.subjects.find(&certificate.subject);
        let others = certificate.names.iter().filter_map(|name| self.alternatives.find(name));
        subject.into_iter().chain(others).min().map(|place| self.identities[place].clone())
    }
}

impl Names {
    fn insert(&mut self, pattern: &str, place: usize) {
        match pattern.strip_suffix('*') {
            Some(start) => self.starts.push((start.to_owned(), place)),
            None => {
                self.exact.entry(pattern.to_owned()).or_insert(place);
            }
        }
    }

    /// The first place with a pattern that fits.
    fn find(&self, text: &str) -> Option<usize> {
        let start = self.starts.iter().find(|(start, _)| text.starts_with(start));
        self.exact.get(text).copied().into_iter().chain(start.map(|(_, place)| *place)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Roles;

    fn client(name: &str, pattern: Pattern) -> CertificateClient {
        let identity = Identity { name: name.into(), ..Identity::anonymous(Roles::all()) };
        CertificateClient { identity: Arc::new(identity), pattern }
    }

    fn found(certificates: &Certificates, subject: &str, names: &[&str]) -> Option<String> {
        let names = names.iter().map(ToString::to_string).collect();
        let certificate = Certificate { subject: subject.into(), names };
        certificates.find(&certificate).map(|identity| identity.name.clone())
    }

    #[test]
    fn the_first_entry_that_fits_counts() {
        let certificates = Certificates::new(&[
            client("ops", Pattern::Subject("CN=ops,O=Acme".into())),
            client("batch", Pattern::AlternativeName("spiffe://prod/batch/*".into())),
            client("prod", Pattern::AlternativeName("spiffe://prod/*".into())),
            client("exact", Pattern::AlternativeName("spiffe://prod/x".into())),
        ]);
        let prod = "spiffe://prod/x";
        assert_eq!(found(&certificates, "CN=ops,O=Acme", &[prod]).as_deref(), Some("ops"));
        assert_eq!(found(&certificates, "CN=x", &[prod]).as_deref(), Some("prod"));
        let batch = ["spiffe://prod/x", "spiffe://prod/batch/1"];
        assert_eq!(found(&certificates, "", &batch).as_deref(), Some("batch"));
    }

    #[test]
    fn what_fits_nobody_is_nobody() {
        let certificates = Certificates::new(&[
            client("ops", Pattern::Subject("CN=ops".into())),
            client("prod", Pattern::AlternativeName("prod".into())),
        ]);
        // A subject is no alternative name, and the start of a name is not the name.
        for (subject, names) in
            [("prod", &["CN=ops"] as &[_]), ("CN=ops2", &["prod2"]), ("CN=op", &["pro"]), ("", &[])]
        {
            assert_eq!(found(&certificates, subject, names), None, "{subject} {names:?}");
        }
    }
}
