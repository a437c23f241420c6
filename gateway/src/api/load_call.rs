//! The parameters of a load call, the same over both protocols: `config`, `file:…` and our own
//! `version`.

use super::{Api, model_config};
use crate::control::{LoadCall, Upload};
use crate::error::{Kind, Rejection};
use crate::types::{Caller, Role};

/// One parameter, as its wire decoded it.
#[derive(Debug)]
pub enum LoadParameter {
    Text(String),
    Bytes(Vec<u8>),
}

impl Api {
    /// Loads a model as the parameters of a call say.
    ///
    /// # Errors
    /// As `load_call` and [`Control::load`](crate::control::Control::load).
    pub async fn load(
        &self,
        caller: &Caller,
        model: &str,
        parameters: Vec<(String, LoadParameter)>,
    ) -> Result<(), Rejection> {
        let call = self.load_call(caller, parameters)?;
        self.control.load(model, call).await
    }

    /// Makes a load call out of its parameters.
    ///
    /// # Errors
    /// `InvalidInput` for a parameter that is unknown or of the wrong type, `PermissionDenied` for
    /// files of somebody who may not bring code.
    fn load_call(
        &self,
        caller: &Caller,
        parameters: Vec<(String, LoadParameter)>,
    ) -> Result<LoadCall, Rejection> {
        if parameters.iter().any(|(key, _)| key.starts_with("file:")) {
            self.authorize(caller, Role::Admin)?;
        }
        let mut call = LoadCall::default();
        let mut config = None;
        let mut files = Vec::new();
        for (key, value) in parameters {
            match (key.as_str(), value) {
                ("config", LoadParameter::Text(text)) => config = Some(text),
                ("version", LoadParameter::Text(text)) => call.version = Some(text.parse()?),
                (key, LoadParameter::Bytes(bytes)) if key.starts_with("file:") => {
                    files.push((key["file:".len()..].to_owned(), bytes));
                }
                (key, _) => {
                    let shown: String = key.chars().take(80).collect();
                    return Err(Rejection::invalid(format!(
                        "unexpected parameter '{shown}': a load call takes config (text), \
                         version (text) and file:<version>/model.pt (bytes)"
                    )));
                }
            }
        }
        match (config, files.is_empty()) {
            (None, true) => {}
            (None, false) => return Err(Rejection::invalid("'file:' parameters need 'config'")),
            (Some(config), false) => {
                call.upload = Some(Upload::new(model_config::to_manifest(&config)?, files)?);
            }
            (Some(_), true) => {
                return Err(Rejection::new(
                    Kind::Unsupported,
                    "'config' without files: a model's configuration is its model.toml",
                ));
            }
        }
        if call.upload.is_some() && call.version.is_some() {
            return Err(Rejection::invalid("'version' does not go with uploaded files"));
        }
        Ok(call)
    }
}
