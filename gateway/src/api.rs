//! The wire: Open Inference Protocol over REST and gRPC, to and from the words of `types`.
//!
//! Nothing below this module knows a wire format. What both protocols share (descriptions of
//! models, statistics, classification, health) is beside them here.

pub mod admin;
pub mod audit;
pub mod classification;
pub mod description;
pub mod exposition;
pub mod feedback;
pub mod guard;
pub mod health;
mod hints;
pub mod load_call;
pub mod model_config;
pub mod naming;
pub mod parameters;
pub mod proto_json;
pub mod statistics;
pub mod timeouts;
pub mod grpc;
pub mod rest;

use std::sync::Arc;

use crate::config::Limits;
use crate::control::Control;
use crate::delivery::Delivery;
use crate::feedback::Intake;
use crate::identity::Identities;
use crate::pipeline::Pipeline;
use crate::reload::Reloader;
use crate::tasks::Home;
use crate::traffic::Traffic;

pub use health::{Health, Stage, State};

/// Name of the server in its own metadata.
pub const SERVER_NAME: &str = "penstock";

/// The protocol extensions that are implemented; nothing else is advertised.
pub const EXTENSIONS: &[&str] = &[
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "schedule_policy",
    "statistics",
    "logging",
];

/// What the handlers of both protocols need; cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    pub pipeline: Pipeline,
    pub control: Arc<Control>,
    pub identities: Arc<Identities>,
    pub health: Health,
    pub limits: Limits,
    /// Which routes are in force, and changing that.
    pub traffic: Arc<Traffic>,
    /// Where the work of operators is done.
    pub home: Home,
    /// What becomes of the prediction log; `None` where there is none.
    pub delivery: Option<Delivery>,
    /// Takes feedback about predictions in; `None` where there is no log of them.
    pub feedback: Option<Arc<Intake>>,
    /// Reads the configuration file again; `None` where there is none.
    pub reloader: Option<Arc<Reloader>>,
}
