//! The gateway's admin port, as far as routes need it.

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::http_client::HttpClient;

/// A client of the admin port, on a connection of its own.
#[derive(Debug)]
pub struct Admin {
    client: HttpClient,
}

/// All routes as they are in force.
#[derive(Debug, Clone, Deserialize)]
pub struct Routes {
    pub revision: u64,
    pub routes: Vec<Route>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Route {
    pub name: String,
    pub arms: Vec<Arm>,
}

/// An arm with the buckets of its callers, half-open ranges of 10,000.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Arm {
    pub name: String,
    pub share: String,
    pub buckets: Vec<(u16, u16)>,
}

/// What became of a change of routes.
#[derive(Debug, Clone, Deserialize)]
pub struct Change {
    /// In force from now on.
    pub revision: u64,
}

impl Admin {
    /// A client for `host:port`; it connects with its first call.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str) -> anyhow::Result<Self> {
        Ok(Self { client: HttpClient::new(&format!("http://{address}"))? })
    }

    /// Every route.
    ///
    /// # Errors
    /// When the gateway does not answer with them.
    pub async fn routes(&mut self) -> anyhow::Result<Routes> {
        self.call(Method::GET, "/v1/routes", None).await.context("GET /v1/routes")
    }

    /// The route of that name.
    ///
    /// # Errors
    /// When the gateway does not answer with it.
    pub async fn route(&mut self, name: &str) -> anyhow::Result<Route> {
        let path = format!("/v1/routes/{name}");
        let route = self.call(Method::GET, &path, None).await;
        route.with_context(|| format!("GET {path}"))
    }

    /// Changes the shares of some arms by hand.
    ///
    /// # Errors
    /// What the gateway refused it with.
    pub async fn set(&mut self, route: &str, shares: &[(&str, &str)]) -> Result<Change, Failure> {
        let shares: Map<String, Value> =
            shares.iter().map(|(arm, share)| ((*arm).to_owned(), (*share).into())).collect();
        let body = json!({ "shares": shares, "author": "loadtest" });
        self.call(Method::PATCH, &format!("/v1/routes/{route}"), Some(&body)).await
    }

    /// Has the configuration file read again.
    ///
    /// # Errors
    /// What the gateway refused it with.
    pub async fn reload(&mut self) -> Result<Change, Failure> {
        self.call(Method::POST, "/v1/reload", None).await
    }

    /// Goes back to the revision before.
    ///
    /// # Errors
    /// What the gateway refused it with.
    pub async fn rollback(&mut self) -> Result<Change, Failure> {
        self.call(Method::POST, "/v1/rollback", Some(&json!({ "author": "loadtest" }))).await
    }

    /// What the shadows of a route are worth.
    ///
    /// # Errors
    /// When the gateway does not answer with it.
    pub async fn report(&mut self, route: &str) -> Result<Value, Failure> {
        self.call(Method::GET, &format!("/v1/routes/{route}/report"), None).await
    }

    /// Has the report count from nothing.
    ///
    /// # Errors
    /// What the gateway refused it with.
    pub async fn reset_report(&mut self, route: &str) -> Result<(), Failure> {
        let path = format!("/v1/routes/{route}/report");
        self.client.call(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.client.call(method, path, body.into()).await?;
        serde_json::from_slice(&answer).map_err(Failure::malformed)
    }
}

impl Route {
    /// How many of 10,000 buckets an arm has; 0 where there is none of that name.
    #[must_use]
    pub fn buckets(&self, arm: &str) -> u32 {
        let found = self.arms.iter().filter(|known| known.name == arm);
        found
            .flat_map(|arm| &arm.buckets)
            .map(|(from, to)| u32::from(to.saturating_sub(*from)))
            .sum()
    }
}
