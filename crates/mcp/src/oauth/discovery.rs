//! Where an authorization is given: what a server says of itself (RFC 9728) and what its authorization server
//! says (RFC 8414, or `OpenID` Connect Discovery).

use iris_egress::{Egress, Request};
use serde_json::{Map, Value};
use url::Url;

use super::challenge::Challenge;
use super::reach::Reach;
use super::{OauthError, ask, origin_of, short, shown, texts};

/// How many of the authorization servers that a server names are looked at.
const ISSUERS_MAX: usize = 8;

/// Who gives authorizations for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationServer {
    /// What it calls itself.
    pub issuer: String,
    /// What the tokens are for (RFC 8707).
    pub resource: String,
    /// Where people agree.
    pub authorization_endpoint: Url,
    /// Where tokens come from.
    pub token_endpoint: Url,
    /// Where clients register themselves, if they may.
    pub registration_endpoint: Option<Url>,
    /// What the server wants where the configuration does not say; may be empty.
    pub scopes: Vec<String>,
    /// How clients with a secret show it.
    pub auth_methods: Vec<String>,
    /// Whether it says in its answer who it is (RFC 9207).
    pub names_itself: bool,
}

/// What a server says of itself.
struct Described {
    resource: String,
    issuers: Vec<String>,
    scopes: Vec<String>,
}

/// Finds out who gives authorizations for the server of `reach`, which may have said so in a challenge. Sends
/// at most six requests.
///
/// # Errors
/// `Foreign` and `Insecure` for places that may not be asked, `NotOffered`, `WrongResource`, `WrongIssuer`,
/// `NoPkce`, `Malformed`, `Status`, `Egress`.
pub async fn discover(
    egress: &Egress,
    reach: &Reach,
    challenge: &Challenge,
) -> Result<AuthorizationServer, OauthError> {
    let described = describe(egress, reach, challenge).await?;
    let Described { resource, issuers, mut scopes } = described;
    // What was asked for last counts more than all that there is.
    if let Some(scope) = &challenge.scope {
        scopes = scope.split_whitespace().map(str::to_owned).collect();
    }
    let issuer = chosen(reach, &issuers)?;
    for place in places_of_issuer(&issuer)? {
        if let Some(fields) = document(egress, reach, &place).await? {
            return read(reach, &issuer, resource, scopes, &fields);
        }
    }
    Err(OauthError::NotOffered)
}

/// What the server says of itself. One that says nothing gives authorizations itself, as servers of earlier
/// versions of the protocol do.
async fn describe(
    egress: &Egress,
    reach: &Reach,
    challenge: &Challenge,
) -> Result<Described, OauthError> {
    let server = reach.server();
    let places = match &challenge.resource_metadata {
        Some(text) => vec![reach.url(text)?],
        None => places_of_resource(server),
    };
    for place in places {
        if let Some(fields) = document(egress, reach, &place).await? {
            let resource = short(&fields, "resource").unwrap_or_default();
            check_resource(server, &resource)?;
            let issuers = texts(&fields, "authorization_servers");
            return Ok(Described { resource, issuers, scopes: texts(&fields, "scopes_supported") });
        }
    }
    if challenge.resource_metadata.is_some() {
        return Err(OauthError::NotOffered);
    }
    let mut resource = server.clone();
    resource.set_fragment(None);
    let issuers = vec![origin_of(server)];
    Ok(Described { resource: resource.into(), issuers, scopes: Vec::new() })
}

/// The same place, or one that the server's is below (RFC 9728 section 3.3 wants the same; most servers
/// describe all that is below their origin). Tokens for anything else are not ours to ask for.
fn check_resource(server: &Url, text: &str) -> Result<(), OauthError> {
    let wrong = || OauthError::WrongResource { resource: shown(text) };
    let resource = Url::parse(text).map_err(|_| wrong())?;
    let above = resource.path().trim_end_matches('/');
    let rest = server.path().strip_prefix(above).ok_or_else(wrong)?;
    let is_below = rest.is_empty() || rest.starts_with('/');
    if resource.origin() != server.origin() || resource.fragment().is_some() || !is_below {
        return Err(wrong());
    }
    Ok(())
}

/// The first that may be asked.
fn chosen(reach: &Reach, issuers: &[String]) -> Result<String, OauthError> {
    let mut refused = OauthError::NotOffered;
    for issuer in issuers.iter().take(ISSUERS_MAX) {
        match reach.url(issuer) {
            Ok(_) => return Ok(issuer.clone()),
            Err(error) if matches!(refused, OauthError::NotOffered) => refused = error,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// RFC 9728 section 3.1: before the path, then for the whole origin.
fn places_of_resource(server: &Url) -> Vec<Url> {
    let name = "/.well-known/oauth-protected-resource";
    let path = server.path().trim_end_matches('/');
    let mut places = vec![at(server, &format!("{name}{path}"))];
    if !path.is_empty() {
        places.push(at(server, name));
    }
    places
}

/// RFC 8414 section 3.1, then `OpenID` Connect Discovery, whose name stands behind the path.
fn places_of_issuer(issuer: &str) -> Result<Vec<Url>, OauthError> {
    let issuer = iris_egress::parse_url(issuer)?;
    let path = issuer.path().trim_end_matches('/');
    let mut paths = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        paths.push(format!("{path}/.well-known/openid-configuration"));
    }
    Ok(paths.iter().map(|path| at(&issuer, path)).collect())
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// A document; none where there is none.
async fn document(
    egress: &Egress,
    reach: &Reach,
    place: &Url,
) -> Result<Option<Map<String, Value>>, OauthError> {
    reach.check(place)?;
    let answer = ask(egress, Request::get(place.as_str()), reach).await?;
    match answer.status {
        200 => match serde_json::from_slice(&answer.body) {
            Ok(fields) => Ok(Some(fields)),
            Err(_) => Err(OauthError::Malformed { expected: "a JSON object" }),
        },
        400..=499 => Ok(None),
        status => Err(OauthError::Status { status }),
    }
}

fn read(
    reach: &Reach,
    issuer: &str,
    resource: String,
    scopes: Vec<String>,
    fields: &Map<String, Value>,
) -> Result<AuthorizationServer, OauthError> {
    let named = short(fields, "issuer").unwrap_or_default();
    if named.trim_end_matches('/') != issuer.trim_end_matches('/') {
        return Err(OauthError::WrongIssuer { issuer: shown(&named) });
    }
    if !texts(fields, "code_challenge_methods_supported").iter().any(|it| it == "S256") {
        return Err(OauthError::NoPkce);
    }
    let endpoint = |name: &'static str| {
        let text =
            short(fields, name).ok_or(OauthError::Malformed { expected: "its endpoints" })?;
        reach.url(&text)
    };
    let registers = fields.contains_key("registration_endpoint");
    let names_itself = fields.get("authorization_response_iss_parameter_supported");
    Ok(AuthorizationServer {
        issuer: named,
        resource,
        authorization_endpoint: endpoint("authorization_endpoint")?,
        token_endpoint: endpoint("token_endpoint")?,
        registration_endpoint: registers.then(|| endpoint("registration_endpoint")).transpose()?,
        scopes,
        auth_methods: texts(fields, "token_endpoint_auth_methods_supported"),
        names_itself: names_itself.and_then(Value::as_bool).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn m5_tokens_are_asked_for_the_server_and_for_nothing_else() {
        let server = url("https://a.example/mcp/v1");
        for same in [
            "https://a.example",
            "https://a.example/",
            "https://a.example/mcp",
            "https://a.example/mcp/v1/",
        ] {
            assert!(check_resource(&server, same).is_ok(), "{same}");
        }
        for other in [
            "",
            "https://b.example/mcp/v1",
            "https://a.example/mc",
            "https://a.example/mcp/v1/x",
            "http://a.example/mcp/v1",
            "https://a.example/#x",
        ] {
            assert!(check_resource(&server, other).is_err(), "{other}");
        }
    }

    #[test]
    fn documents_are_looked_for_where_the_standards_say() {
        let texts = |urls: Vec<Url>| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
        let places = texts(places_of_resource(&url("https://a.example/mcp/?x=1")));
        let name = "https://a.example/.well-known/oauth-protected-resource";
        assert_eq!(places, [format!("{name}/mcp"), name.to_owned()]);
        assert_eq!(texts(places_of_resource(&url("https://a.example"))), [name]);
        let places = texts(places_of_issuer("https://i.example/t").unwrap());
        let base = "https://i.example";
        let expected = [
            format!("{base}/.well-known/oauth-authorization-server/t"),
            format!("{base}/.well-known/openid-configuration/t"),
            format!("{base}/t/.well-known/openid-configuration"),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn m5_what_an_authorization_server_says_is_checked() {
        let reach = Reach::new(url("https://a.example/mcp"), &["https://i.example".to_owned()]);
        let good = json!({
            "issuer": "https://i.example", "authorization_endpoint": "https://i.example/a",
            "token_endpoint": "https://i.example/t", "registration_endpoint": "https://i.example/r",
            "code_challenge_methods_supported": ["plain", "S256"],
        });
        let read = |change: Value| {
            let mut fields = good.as_object().unwrap().clone();
            fields.extend(change.as_object().unwrap().clone());
            super::read(&reach, "https://i.example/", String::new(), Vec::new(), &fields)
        };
        assert!(read(json!({})).is_ok());
        let issuer = read(json!({ "issuer": "https://evil.example" })).unwrap_err();
        assert!(matches!(issuer, OauthError::WrongIssuer { .. }), "{issuer}");
        let plain = read(json!({ "code_challenge_methods_supported": ["plain"] })).unwrap_err();
        assert!(matches!(plain, OauthError::NoPkce), "{plain}");
        for name in ["authorization_endpoint", "token_endpoint", "registration_endpoint"] {
            let evil = read(json!({ name: "https://evil.example/x" })).unwrap_err();
            assert!(matches!(evil, OauthError::Foreign { .. }), "{evil}");
            let inside = read(json!({ name: "http://10.0.0.1/x" })).unwrap_err();
            assert!(matches!(inside, OauthError::Insecure { .. }), "{inside}");
        }
        let none = read(json!({ "token_endpoint": 5 })).unwrap_err();
        assert!(matches!(none, OauthError::Malformed { .. }), "{none}");
    }
}
