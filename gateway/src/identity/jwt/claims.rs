//! What the claims of a good token say about its caller.

use serde_json::{Map, Value};

use crate::config::auth::Jwt;
use crate::types::{Identity, Role};

/// Longest name of a caller or tenant, in bytes: names stand in logs and in the keys of limits.
const LONGEST_NAME: usize = 256;

/// The caller; `None` when a claim that has a meaning here is missing or no such thing.
pub(super) fn identity(settings: &Jwt, claims: &Map<String, Value>) -> Option<Identity> {
    if !settings.issuers.is_empty() {
        // One issuer and one text: a list is not what RFC 7519 (4.1.1) says.
        claims.get("iss")?.as_str()?;
    }
    let name = name(find(claims, &settings.name_claim)?)?;
    let tenant = match settings.tenant_claim.as_ref().and_then(|path| find(claims, path)) {
        Some(value) => self::name(value)?,
        None => name.clone(),
    };
    let granted = match settings.roles_claim.as_ref().and_then(|path| find(claims, path)) {
        Some(value) => words(value)?,
        None => vec![],
    };
    let granted = granted.iter().filter_map(|word| role(settings, word));
    let roles = Role::ALL.into_iter().filter(|role| settings.roles.contains(*role));
    let roles = roles.chain(granted).collect();
    let models = match &settings.models_claim {
        // A token that says nothing of models must not reach all of them.
        Some(path) => Some(find(claims, path).map_or(Some(vec![]), words)?),
        None => None,
    };
    Some(Identity { name, tenant, roles, models })
}

fn role(settings: &Jwt, word: &str) -> Option<Role> {
    if settings.role_map.is_empty() {
        return Role::ALL.into_iter().find(|role| role.name() == word);
    }
    settings.role_map.get(word).copied()
}

/// A claim by its name, or by names with dots between them that lead into objects. `null` is as
/// good as nothing.
fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    let inside = || {
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
    };
    claims.get(path).or_else(inside).filter(|value| !value.is_null())
}

fn name(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let is_good = (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(char::is_control);
    is_good.then(|| text.to_owned())
}

/// A list of texts, or the words of one text (as `scope` has them, RFC 8693, 4.2).
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split_ascii_whitespace().map(ToOwned::to_owned).collect()),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::parse;

    fn of(settings: &str, claims: Value) -> Option<Identity> {
        let text =
            format!("version = 1\n[auth.jwt]\njwks_file = 'k'\naudience = 'off'\n{settings}");
        let settings = parse(&text, Path::new("")).unwrap().auth.jwt.unwrap();
        identity(&settings, claims.as_object().unwrap())
    }

    fn roles(identity: &Identity) -> Vec<&'static str> {
        let has = |role: &Role| identity.roles.contains(*role);
        Role::ALL.into_iter().filter(has).map(Role::name).collect()
    }

    #[test]
    fn without_more_words_a_token_names_its_subject_and_may_predict() {
        let found = of("", json!({"sub": "ann", "roles": ["admin"]})).unwrap();
        assert_eq!((found.name.as_str(), found.tenant.as_str()), ("ann", "ann"));
        assert_eq!(roles(&found), ["predict"]);
        assert_eq!(found.models, None);
    }

    #[test]
    fn claims_are_found_where_the_settings_say() {
        let settings = "name_claim = 'email'\ntenant_claim = 'org.id'\nroles = []\n\
                        roles_claim = 'realm_access.roles'\nmodels_claim = 'https://acme/models'\n\
                        [auth.jwt.role_map]\n'ml-ops' = 'operate'";
        let claims = json!({
            "sub": "1", "email": "a@b", "org": {"id": "acme"},
            "realm_access": {"roles": ["ml-ops", "admin", "other"]},
            "https://acme/models": ["digits", "team-*"],
        });
        let found = of(settings, claims).unwrap();
        assert_eq!((found.name.as_str(), found.tenant.as_str()), ("a@b", "acme"));
        assert_eq!(roles(&found), ["operate"]);
        assert!(found.may_call("digits") && found.may_call("team-x") && !found.may_call("other"));
    }

    #[test]
    fn words_of_a_scope_are_roles() {
        let found = of("roles_claim = 'scope'", json!({"sub": "a", "scope": "openid operate"}));
        assert_eq!(roles(&found.unwrap()), ["predict", "operate"]);
    }

    #[test]
    fn a_token_that_says_nothing_of_models_may_use_none() {
        let found = of("models_claim = 'models'", json!({"sub": "a"})).unwrap();
        assert!(!found.may_call("digits"));
        assert_eq!(found.models, Some(vec![]));
    }

    #[test]
    fn claims_of_another_kind_are_refused_and_not_guessed() {
        let settings = "issuer = ['i']\ntenant_claim = 't'\nroles_claim = 'r'\nmodels_claim = 'm'";
        let good = json!({"iss": "i", "sub": "a", "t": "t", "r": "x", "m": ["m"]});
        assert!(of(settings, good.clone()).is_some());
        for (key, wrong) in [
            ("iss", json!(["i"])),
            ("sub", json!(7)),
            ("sub", json!("")),
            ("sub", json!(null)),
            ("sub", json!("a\nb")),
            ("sub", json!("x".repeat(257))),
            ("t", json!(["t"])),
            ("r", json!({"admin": true})),
            ("r", json!([1])),
            ("m", json!(1)),
            ("m", json!([["digits"]])),
        ] {
            let mut claims = good.clone();
            claims[key] = wrong.clone();
            assert_eq!(of(settings, claims), None, "{key}: {wrong}");
        }
    }
}
