//! Definitions of tools: which are taken, and which request a call makes. No request is made here.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use iris_agent::permissions::{Access, Target};
use iris_egress::{Config, Egress};
use iris_protocol::{HttpMethod, HttpTool};
use iris_tools::{About, SecretHeader, Tool, ToolError, ToolRegistry, Workshop, origin_of};
use serde_json::{Value, json};

fn http(method: HttpMethod, url: &str) -> HttpTool {
    HttpTool {
        method,
        url: url.to_owned(),
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        body: None,
        secret_headers: Vec::new(),
        timeout_ms: 30_000,
    }
}

fn about() -> About {
    let text = json!({ "type": "string" });
    About {
        id: "tol_1".to_owned(),
        revision: 3,
        name: "weather".to_owned(),
        description: "Tells the weather.".to_owned(),
        parameters: json!({
            "type": "object",
            "properties": { "place": text, "day": text, "note": {}, "opt": {} },
            "required": ["place"],
        }),
    }
}

fn made(http: &HttpTool, secrets: &[(&str, &str)]) -> Result<Arc<dyn Tool>, String> {
    let egress = Arc::new(Egress::new(Config::default()).unwrap());
    let secrets = secrets.iter().map(|(name, value)| SecretHeader {
        name: (*name).to_owned(),
        value: Some((*value).to_owned().into()),
    });
    let workshop = Workshop::new(Some(egress), None);
    workshop.http(about(), http, secrets.collect()).map_err(|error| error.to_string())
}

/// The URL of a call, as the person who is asked reads it.
fn url(tool: &Arc<dyn Tool>, input: &Value) -> String {
    let registry = ToolRegistry::new(vec![Arc::clone(tool)]).unwrap();
    registry.validate("weather", input).unwrap();
    let summary = tool.summary(input);
    summary.split('`').nth(3).unwrap().to_owned()
}

#[test]
fn arguments_stay_in_their_places_whatever_they_are() {
    let template = HttpTool {
        query: BTreeMap::from([("day".to_owned(), "{{day}}".to_owned())]),
        ..http(HttpMethod::Get, "https://api.example/v1/{{place}}/now?q=a-{{note}}")
    };
    let tool = made(&template, &[]).unwrap();
    let base = "https://api.example/v1";
    for (input, expected) in [
        (json!({ "place": "Bern" }), "/Bern/now?q=a-"),
        (json!({ "place": "Bern", "day": "1", "note": 2 }), "/Bern/now?q=a-2&day=1"),
        (json!({ "place": "../../admin" }), "/..%2F..%2Fadmin/now?q=a-"),
        (json!({ "place": "a?x=1#f" }), "/a%3Fx%3D1%23f/now?q=a-"),
        (json!({ "place": "a\\b" }), "/a%5Cb/now?q=a-"),
        (json!({ "place": "@evil.example" }), "/%40evil.example/now?q=a-"),
        (json!({ "place": "a\r\nHost: evil" }), "/a%0D%0AHost%3A%20evil/now?q=a-"),
        (
            json!({ "place": "x", "note": "1&admin=1", "day": "a&b=c" }),
            "/x/now?q=a-1%26admin%3D1&day=a%26b%3Dc",
        ),
        (json!({ "place": "{{note}}", "note": "n" }), "/%7B%7Bnote%7D%7D/now?q=a-n"),
        (json!({ "place": "%2e%2e" }), "/%252e%252e/now?q=a-"),
    ] {
        assert_eq!(url(&tool, &input), format!("{base}{expected}"), "{input}");
    }
    let registry = ToolRegistry::new(vec![Arc::clone(&tool)]).unwrap();
    for place in ["", ".", ".."] {
        let refused = registry.validate("weather", &json!({ "place": place })).unwrap_err();
        assert!(refused.to_string().contains("`/place` must not leave"), "{refused}");
    }
    let list = registry.validate("weather", &json!({ "place": "x", "note": [1] })).unwrap_err();
    assert!(matches!(list, ToolError::InvalidInput { .. }), "{list}");
    let split = made(&http(HttpMethod::Get, "https://api.example/%2e{{place}}"), &[]).unwrap();
    let registry = ToolRegistry::new(vec![split]).unwrap();
    assert!(registry.validate("weather", &json!({ "place": "." })).is_err());
}

#[test]
fn a_call_says_what_it_touches_and_which_definition_it_is_of() {
    let tool = made(&http(HttpMethod::Post, "https://API.example:8443/{{place}}"), &[]).unwrap();
    let host = Target::Text("api.example".to_owned());
    assert_eq!(tool.accesses(&json!({})), [Access::of("weather", host)]);
    assert_eq!(
        tool.summary(&json!({ "place": "x" })),
        "call the tool `weather` (revision 3 of tol_1): POST `https://api.example:8443/x`"
    );
    assert!(tool.writes() && !tool.runs_code());
    let reads = made(&http(HttpMethod::Get, "https://api.example"), &[]).unwrap();
    assert!(!reads.writes());
}

#[test]
fn where_a_request_goes_is_literal() {
    for url in [
        "https://{{place}}/",
        "https://{{place}}.example/",
        "https://a.example:{{place}}/",
        "https://a{{place}}/",
        "{{place}}://a.example/",
        "{{place}}",
        "https://user:{{place}}@a.example/",
    ] {
        let refused = made(&http(HttpMethod::Get, url), &[]).err().unwrap();
        assert!(refused.contains("literally") || refused.contains("absolute"), "{url}: {refused}");
    }
    for url in [
        "",
        "a.example",
        "/path",
        "ftp://a.example/",
        "file:///etc/passwd",
        "https://",
        "https://user@a.example/",
        "https://a.example/#f",
        "https://a.example/a b",
        "https://a.example\\@b.example/",
        "https://a.example/\n",
        "https://a.example/{{",
    ] {
        assert!(made(&http(HttpMethod::Get, url), &[]).is_err(), "{url}");
    }
    assert_eq!(origin_of("https://A.example:443/{{x}}").unwrap(), "https://a.example");
    assert_eq!(origin_of("http://a.example:8080?x").unwrap(), "http://a.example:8080");
    assert_eq!(
        url(
            &made(&http(HttpMethod::Get, "https://a.example?q={{place}}"), &[]).unwrap(),
            &json!({ "place": "1" })
        ),
        "https://a.example/?q=1"
    );
}

#[test]
fn a_definition_that_could_not_run_is_refused() {
    let url = "https://a.example/{{place}}";
    let post = || http(HttpMethod::Post, url);
    let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let refused = |http: HttpTool| made(&http, &[]).err().unwrap_or_default();
    let refusals = [
        (http(HttpMethod::Post, "https://a.example/{{other}}"), "argument `other`"),
        (http(HttpMethod::Post, "https://a.example/{{day}}"), "as `required`"),
        (HttpTool { query: one("x", "{{other}}"), ..post() }, "argument `other`"),
        (HttpTool { body: Some(json!({ "a": ["{{other}}"] })), ..post() }, "argument `other`"),
        (HttpTool { body: Some(json!({ "{{day}}": 1 })), ..post() }, "literally"),
        (HttpTool { body: Some(json!("{{")), ..post() }, "without `}}`"),
        (HttpTool { body: Some(json!({})), ..http(HttpMethod::Get, url) }, "`GET`"),
        (HttpTool { headers: one("Host", "evil"), ..post() }, "`host` cannot be set"),
        (HttpTool { headers: one("a b", "x"), ..post() }, "characters"),
        (HttpTool { headers: one("x", "a\r\nb: c"), ..post() }, "characters"),
        (HttpTool { timeout_ms: 0, ..post() }, "timeoutMs"),
        (HttpTool { timeout_ms: 30_001, ..post() }, "timeoutMs"),
    ];
    for (http, part) in refusals {
        let refusal = refused(http.clone());
        assert!(refusal.contains(part), "{http:?}: {refusal}");
    }
    let both = HttpTool { headers: one("Authorization", "x"), ..post() };
    let refusal = made(&both, &[("authorization", "Bearer 123456789")]).err().unwrap();
    assert!(refusal.contains("twice"), "{refusal}");
    let broken = made(&post(), &[("x-key", "a\r\nb: 123456789")]).err().unwrap();
    assert!(broken.contains("`x-key`") && !broken.contains("123456789"), "{broken}");
    let mut about = about();
    about.name = "two__parts".to_owned();
    assert!(Workshop::default().http(about, &post(), Vec::new()).is_err());
}

#[test]
fn headers_take_no_line_breaks_from_arguments() {
    let headers = BTreeMap::from([("x-note".to_owned(), "{{place}}".to_owned())]);
    let template = HttpTool { headers, ..http(HttpMethod::Get, "https://a.example/") };
    let registry = ToolRegistry::new(vec![made(&template, &[]).unwrap()]).unwrap();
    registry.validate("weather", &json!({ "place": "fine" })).unwrap();
    let refused = registry.validate("weather", &json!({ "place": "a\r\nx-admin: 1" }));
    assert!(refused.unwrap_err().to_string().contains("x-note"));
}

#[test]
fn a_tool_without_its_secret_or_without_a_way_out_says_so() {
    let template = http(HttpMethod::Get, "https://a.example/");
    let lost = || vec![SecretHeader { name: "x-key".to_owned(), value: None }];
    let egress = Arc::new(Egress::new(Config::default()).unwrap());
    let tool = Workshop::new(Some(egress), None).http(about(), &template, lost()).unwrap();
    let problem = tool.unavailable().unwrap().to_string();
    assert!(problem.contains("`x-key` must be set again"), "{problem}");
    let stuck = Workshop::default().http(about(), &template, Vec::new()).unwrap();
    assert!(matches!(stuck.unavailable(), Some(ToolError::NoWayOut)));
}
