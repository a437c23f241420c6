//! The calls of the repository extension: what is there, load, unload.

use std::mem::take;

use proto::inference as pb;
use proto::inference::model_repository_parameter::ParameterChoice;
use tonic::Request;

use super::decode;
use super::service::{Service, caller};
use crate::api::load_call::LoadParameter;
use crate::error::Rejection;
use crate::types::{Caller, Role, Version};

impl Service {
    pub(super) fn index(
        &self,
        request: &Request<pb::RepositoryIndexRequest>,
    ) -> Result<pb::RepositoryIndexResponse, Rejection> {
        let caller = caller(request)?;
        self.api.authorize_reading(&caller)?;
        let models = self
            .api
            .control
            .index(request.get_ref().ready)
            .into_iter()
            .filter(|entry| caller.identity.may_call(entry.name.as_str()))
            .map(|entry| pb::repository_index_response::ModelIndex {
                name: entry.name.to_string(),
                version: entry.version.map_or_else(String::new, |version| version.to_string()),
                state: entry.state.map_or("", |state| state.name()).to_owned(),
                reason: entry.reason,
            })
            .collect();
        Ok(pb::RepositoryIndexResponse { models })
    }

    /// Who calls, and the model that the call is to change, which its caller may. `names` takes
    /// what stands for the repository's name and the model's.
    fn changing<T>(
        &self,
        request: Request<T>,
        names: impl FnOnce(&mut T) -> (String, String),
    ) -> Result<(Caller, String, T), Rejection> {
        let caller = caller(&request)?;
        // Whoever may change nothing is told before what is wrong with the call.
        self.api.authorize(&caller, Role::Operate)?;
        let mut request = request.into_inner();
        let (repository, model) = names(&mut request);
        let model = decode::named(repository, model)?;
        self.api.authorize_change(&caller, &model)?;
        Ok((caller, model, request))
    }

    pub(super) async fn load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<String, Rejection> {
        let (caller, model, request) = self.changing(request, |load| {
            (take(&mut load.repository_name), take(&mut load.model_name))
        })?;
        let parameters = request
            .parameters
            .into_iter()
            .map(|(key, value)| match value.parameter_choice {
                Some(ParameterChoice::StringParam(text)) => Ok((key, LoadParameter::Text(text))),
                Some(ParameterChoice::BytesParam(bytes)) => {
                    Ok((key, LoadParameter::Bytes(bytes.into())))
                }
                _ => Err(Rejection::invalid(format!("parameter '{key}' must be text or bytes"))),
            })
            .collect::<Result<_, _>>()?;
        let result = self.api.load(&caller, &model, parameters).await;
        self.api.audit(&caller, ("load", &model, None), &result).await;
        result.map(|()| model)
    }

    pub(super) async fn unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<String, Rejection> {
        let (caller, model, request) = self.changing(request, |unload| {
            (take(&mut unload.repository_name), take(&mut unload.model_name))
        })?;
        let version = match request.parameters.get("version").map(|p| &p.parameter_choice) {
            None => None,
            Some(Some(ParameterChoice::StringParam(text))) => Some(text.parse::<Version>()?),
            Some(_) => return Err(Rejection::invalid("parameter 'version' must be text")),
        };
        let result = self.api.control.unload(&model, version).await;
        let named = version.map(|version| version.to_string());
        self.api.audit(&caller, ("unload", &model, named.as_deref()), &result).await;
        result.map(|()| model)
    }
}
