//! What metadata and configuration say about a model or a route, in the words of neither protocol.

use std::sync::Arc;

use proto::inference::ModelConfig;

use super::{Api, model_config};
use crate::error::Rejection;
use crate::models::ServedVersion;
use crate::snapshot::Backend;
use crate::types::Signature;

/// Platform of what another server runs, which need not say on what.
pub const ROUTE_PLATFORM: &str = "penstock_route";

/// What is known about a name that clients call.
#[derive(Debug)]
pub struct Description {
    /// The name that was asked for, be it of a model or of a route.
    pub name: String,
    pub versions: Vec<String>,
    pub signature: Arc<Signature>,
    /// Of a route: the arm that is described.
    arm: Option<String>,
    /// `None` for what another server runs.
    served: Option<Arc<ServedVersion>>,
}

impl Api {
    /// Describes the model or route of a name, or one version or arm of it.
    ///
    /// # Errors
    /// `NotFound` for what is not there, `NotReady` for what should be but is not.
    pub fn describe(&self, name: &str, version: Option<&str>) -> Result<Description, Rejection> {
        let snapshot = self.pipeline.snapshots.load();
        let described = snapshot.named(name, version)?.describe()?;
        Ok(Description {
            name: name.to_owned(),
            versions: snapshot.versions(name),
            signature: described.backend.signature().clone(),
            arm: described.arm.map(|arm| arm.name.to_string()),
            served: match described.backend {
                Backend::Local(served) => Some(served),
                Backend::Remote(_) => None,
            },
        })
    }
}

impl Description {
    /// What runs it, as metadata names it.
    #[must_use]
    pub fn platform(&self) -> &str {
        let manifest = self.served.as_ref().map(|served| &served.manifest);
        manifest.map_or(ROUTE_PLATFORM, |manifest| model_config::platform(manifest))
    }

    /// Facts by key: of a route the arm that is described, of what runs here its version and what
    /// is known about that.
    #[must_use]
    pub fn properties(&self) -> Vec<(String, String)> {
        let mut properties = Vec::new();
        let arm = self.arm.clone().map(|arm| ("arm".to_owned(), arm));
        properties.extend(arm);
        if let Some(served) = &self.served {
            properties.push(("version".to_owned(), served.version.to_string()));
            properties.extend(served.properties());
        }
        properties
    }

    /// Its configuration in the protocol's words.
    #[must_use]
    pub fn config(&self) -> ModelConfig {
        match &self.served {
            Some(served) => model_config::of_version(&self.name, served),
            None => model_config::of_signature(&self.name, ROUTE_PLATFORM, &self.signature),
        }
    }
}
