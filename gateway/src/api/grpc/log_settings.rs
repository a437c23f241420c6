//! The logging extension over gRPC.

use std::collections::HashMap;

use proto::inference as pb;
use proto::inference::log_settings_request::setting_value::ParameterChoice as LogChoice;

use crate::api::Api;
use crate::error::{Kind, Rejection};
use crate::telemetry::logging::{self, Settings};
use crate::types::{Caller, Role};

/// Changes what the request names, and tells all settings.
pub(super) fn answer(
    api: &Api,
    caller: &Caller,
    request: &pb::LogSettingsRequest,
) -> Result<pb::LogSettingsResponse, Rejection> {
    if request.settings.is_empty() {
        api.authorize_reading(caller)?;
    } else {
        api.authorize(caller, Role::Operate)?;
        let mut settings = logging::settings();
        for (key, value) in &request.settings {
            change(&mut settings, key, value.parameter_choice.as_ref())?;
        }
        logging::change(settings);
    }
    Ok(pb::LogSettingsResponse { settings: shown(logging::settings()) })
}

fn change(settings: &mut Settings, key: &str, value: Option<&LogChoice>) -> Result<(), Rejection> {
    match (key, value) {
        ("log_error", Some(LogChoice::BoolParam(on))) => settings.error = *on,
        ("log_warning", Some(LogChoice::BoolParam(on))) => settings.warning = *on,
        ("log_info", Some(LogChoice::BoolParam(on))) => settings.info = *on,
        ("log_verbose_level", Some(LogChoice::Uint32Param(level))) => settings.verbose = *level,
        ("log_file" | "log_format", _) => {
            let text = format!("'{key}' is fixed at start: see [log] in the configuration");
            return Err(Rejection::new(Kind::Unsupported, text));
        }
        _ => {
            let shown: String = key.chars().take(80).collect();
            return Err(Rejection::invalid(format!("'{shown}' is no log setting of this type")));
        }
    }
    Ok(())
}

fn shown(settings: Settings) -> HashMap<String, pb::log_settings_response::SettingValue> {
    use pb::log_settings_response::SettingValue;
    use pb::log_settings_response::setting_value::ParameterChoice as Choice;
    [
        ("log_file", Choice::StringParam(String::new())),
        ("log_info", Choice::BoolParam(settings.info)),
        ("log_warning", Choice::BoolParam(settings.warning)),
        ("log_error", Choice::BoolParam(settings.error)),
        ("log_verbose_level", Choice::Uint32Param(settings.verbose)),
        ("log_format", Choice::StringParam("default".to_owned())),
    ]
    .into_iter()
    .map(|(key, choice)| (key.to_owned(), SettingValue { parameter_choice: Some(choice) }))
    .collect()
}
