//! `[listen]`: where the doors are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::reader::{Problems, Section};
use super::value::OrOff;

/// Nobody but this machine, unless the file says more.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8003);

/// Where the doors are; `None` is a closed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listen {
    pub http: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    /// For operators; never a data port.
    pub admin: Option<SocketAddr>,
    /// Unix domain sockets beside the ports.
    pub http_socket: Option<PathBuf>,
    pub grpc_socket: Option<PathBuf>,
}

impl Listen {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Self {
        let any = |port| OrOff(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)));
        let listen = Self {
            http: section.or("http", any(8000)).0,
            grpc: section.or("grpc", any(8001)).0,
            metrics: section.or("metrics", any(8002)).0,
            admin: section.or("admin", OrOff(Some(ADMIN))).0,
            http_socket: section.take::<String>("http_socket").map(|path| base.join(path)),
            grpc_socket: section.take::<String>("grpc_socket").map(|path| base.join(path)),
        };
        section.finish();
        listen
    }

    /// Checks the doors against each other. `operators_are_known` says that nobody operates the
    /// gateway over a network without authentication.
    pub(super) fn check(&self, operators_are_known: bool, problems: &Problems) {
        let sockets = [&self.http_socket, &self.grpc_socket];
        if let [Some(one), Some(other)] = sockets
            && one == other
        {
            problems.add("listen.grpc_socket", "is also listen.http_socket");
        }
        let is_far = self.admin.is_some_and(|admin| !admin.ip().to_canonical().is_loopback());
        if is_far && !operators_are_known {
            let text = "is no loopback address, which needs authentication: see [auth], and let \
                        nobody operate anonymously";
            problems.add("listen.admin", text);
        }
        let has_socket = sockets.into_iter().any(Option::is_some);
        if self.http.is_none() && self.grpc.is_none() && !has_socket {
            problems.add("listen", "http and grpc are both off: nothing could be called");
        }
        let doors = [
            ("http", self.http),
            ("grpc", self.grpc),
            ("metrics", self.metrics),
            ("admin", self.admin),
        ];
        for (i, (name, address)) in doors.iter().enumerate() {
            for (other, taken) in &doors[..i] {
                let same = address.is_some_and(|a| a.port() != 0 && *taken == Some(a));
                if same {
                    problems.add(format!("listen.{name}"), format!("is also listen.{other}"));
                }
            }
        }
    }
}
