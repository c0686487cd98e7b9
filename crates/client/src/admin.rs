//! What administrators of the server ask: its actors, the supervision log, the log settings.
//! Their operations have REST routes alone.

mod follower;

use iris_protocol::{
    ActorDetail, ActorGet, ActorList, ActorPage, ActorRestart, ActorStop, Data, Done, ErrorCode,
    KeysRotate, KeysRotated, LogGet, LogSet, LogSettings, Method, Operation, Request, RestRoute,
    SupervisionList, SupervisionPage,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;

pub use self::follower::{SupervisionFollowOptions, SupervisionFollower, SupervisionUpdate};
use crate::{Client, ClientError, RestAnswer};

/// Gives a path a base while its parts are encoded; never contacted.
const ANY_BASE: &str = "http://host";

/// Every method fails with `Api` when the server refuses: `UNAUTHENTICATED`, `TOKEN_EXPIRED` without a
/// refresh token, `FORBIDDEN` for who is no administrator. Otherwise with the errors of
/// [`Client::rest`].
impl Client {
    /// The actors that are alive, in the order of their paths, and the process.
    ///
    /// # Errors
    /// As said above.
    pub async fn actors(&self, request: &ActorList) -> Result<ActorPage, ClientError> {
        self.over_rest(request).await
    }

    /// One actor with what it says of itself.
    ///
    /// # Errors
    /// As said above; `Api` with `NOT_FOUND` when no actor is there.
    pub async fn actor(&self, path: &str) -> Result<ActorDetail, ClientError> {
        self.over_rest(&ActorGet { path: path.to_owned() }).await
    }

    /// Starts an actor again with fresh state.
    ///
    /// # Errors
    /// As said above; `Api` with `NOT_FOUND` when no actor is there.
    pub async fn restart_actor(&self, path: &str) -> Result<Done, ClientError> {
        self.over_rest(&ActorRestart { path: path.to_owned() }).await
    }

    /// Ends an actor and those under it.
    ///
    /// # Errors
    /// As said above; `Api` with `NOT_FOUND` when no actor is there.
    pub async fn stop_actor(&self, path: &str) -> Result<Done, ClientError> {
        self.over_rest(&ActorStop { path: path.to_owned() }).await
    }

    /// One page of the supervision log, oldest record first.
    ///
    /// # Errors
    /// As said above.
    pub async fn supervision(
        &self,
        request: &SupervisionList,
    ) -> Result<SupervisionPage, ClientError> {
        self.over_rest(request).await
    }

    /// Which log lines the server writes, and how.
    ///
    /// # Errors
    /// As said above.
    pub async fn log_settings(&self) -> Result<LogSettings, ClientError> {
        self.over_rest(&LogGet {}).await
    }

    /// Changes which log lines the server writes, and how, until it stops. Gives what holds now.
    ///
    /// # Errors
    /// As said above; `Api` with `INVALID_REQUEST` when the filter cannot be read.
    pub async fn set_log(&self, request: &LogSet) -> Result<LogSettings, ClientError> {
        self.over_rest(request).await
    }

    /// Makes a new master key and seals everything anew: as long as it takes to open every project.
    ///
    /// # Errors
    /// As said above; `Api` with `CONFLICT` where the server cannot change the file of the key.
    pub async fn rotate_keys(&self) -> Result<KeysRotated, ClientError> {
        self.over_rest(&KeysRotate {}).await
    }

    /// Runs an operation over its REST route, which names no project. An expired access token is
    /// refreshed once.
    ///
    /// # Errors
    /// `Api` with the server's error; otherwise those of [`Client::rest`].
    pub async fn over_rest<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        let (route, path, body) = address(R::OPERATION, request)?;
        let ask = async |token: Option<&str>| {
            let answer = self.rest(route.method.as_str(), &path, token, body.as_ref()).await?;
            response(&answer, route.data)
        };
        let token = self.token();
        match ask(token.as_deref()).await {
            Err(ClientError::Api(expired)) if expired.code == ErrorCode::TokenExpired => {
                match self.renew(token.as_deref()).await {
                    // Without another token the first refusal says more.
                    Err(ClientError::Api(_)) => Err(ClientError::Api(expired)),
                    renewed => {
                        renewed?;
                        ask(self.token().as_deref()).await
                    }
                }
            }
            outcome => outcome,
        }
    }
}

/// Where a request goes: its fields in the path, in the query, and the rest of them in the body.
fn address<R: Request>(
    operation: Operation,
    request: &R,
) -> Result<(RestRoute, String, Option<Value>), ClientError> {
    let Some(route) = operation.spec().rest else {
        let name = operation.name();
        return Err(ClientError::Protocol(format!("`{name}` has no REST route")));
    };
    let encoded = serde_json::to_value(request)
        .map_err(|e| ClientError::protocol("encoding the request", e))?;
    let Value::Object(mut fields) = encoded else {
        return Err(ClientError::Protocol("a request is not an object".to_owned()));
    };
    let mut url =
        Url::parse(ANY_BASE).map_err(|e| ClientError::protocol("encoding the path", e))?;
    if let Ok(mut segments) = url.path_segments_mut() {
        for segment in route.path.split('/').filter(|segment| !segment.is_empty()) {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match name.map(|name| text(fields.remove(name))) {
                Some(value) => segments.extend(value.split('/')),
                None => segments.push(segment),
            };
        }
    }
    for (name, _) in route.query {
        if let Some(value) = fields.remove(*name).filter(|value| !value.is_null()) {
            url.query_pairs_mut().append_pair(name, &text(Some(value)));
        }
    }
    let path = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
    let body = (route.method != Method::Get).then_some(Value::Object(fields));
    Ok((route, path, body))
}

/// A field as it stands in a path or a query.
fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Puts the response together again from `data` and `meta` of an answer.
fn response<T: DeserializeOwned>(answer: &RestAnswer, data: Data) -> Result<T, ClientError> {
    let field = match data {
        Data::Whole => return answer.data(),
        Data::Field(field) | Data::List(field) | Data::Upload(field) | Data::Form(field) => field,
        Data::Bytes(_) | Data::Document | Data::Redirect => {
            return Err(ClientError::Protocol("the answer is no JSON".to_owned()));
        }
    };
    let mut fields = match answer.json.get("meta") {
        Some(Value::Object(meta)) => meta.clone(),
        Some(_) | None => Map::new(),
    };
    fields.insert(field.to_owned(), answer.data()?);
    serde_json::from_value(Value::Object(fields))
        .map_err(|e| ClientError::protocol("the answer", e))
}

#[cfg(test)]
mod tests {
    use iris_protocol::SupervisionKind;
    use serde_json::json;

    use super::*;

    fn path_and_body<R: Request>(request: &R) -> (String, Option<Value>) {
        let (_, path, body) = address(R::OPERATION, request).unwrap();
        (path, body)
    }

    #[test]
    fn the_path_of_an_actor_stands_in_the_route_with_its_slashes() {
        let path = "node/directory/project/prj_1".to_owned();
        let expected = "/v1/admin/actors/node/directory/project/prj_1".to_owned();
        assert_eq!(path_and_body(&ActorGet { path: path.clone() }), (expected.clone(), None));
        let restart = path_and_body(&ActorRestart { path });
        assert_eq!(restart, (expected + "/restart", Some(json!({}))));
        let odd = path_and_body(&ActorGet { path: "node/a b?c#d%e".to_owned() }).0;
        assert_eq!(odd, "/v1/admin/actors/node/a%20b%3Fc%23d%25e");
    }

    #[test]
    fn what_is_asked_of_the_log_stands_in_the_query() {
        let request = SupervisionList {
            since: Some(1 << 52),
            kind: Some(SupervisionKind::GaveUp),
            path: Some("node/a".to_owned()),
            limit: None,
        };
        let expected = "/v1/admin/supervision?since=4503599627370496&kind=gaveUp&path=node%2Fa";
        assert_eq!(path_and_body(&request), (expected.to_owned(), None));
        let nothing = path_and_body(&SupervisionList::default());
        assert_eq!(nothing, ("/v1/admin/supervision".to_owned(), None));
    }

    #[test]
    fn log_settings_stand_in_the_body() {
        let request = LogSet { filter: Some("debug".to_owned()), format: None };
        let expected = ("/v1/admin/log".to_owned(), Some(json!({"filter": "debug"})));
        assert_eq!(path_and_body(&request), expected);
    }
}
